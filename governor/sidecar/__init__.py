"""Govern a pipeline that runs in another process or container."""
