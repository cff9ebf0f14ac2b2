"""Backends that can be read and set, and how the one for this machine is found."""
