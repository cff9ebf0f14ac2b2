"""Emulated Jetson boards: physics, clocks and sensors in software."""
