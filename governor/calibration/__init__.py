"""Measures a board with kernels of known work, and fits its roofline's constants to that."""
