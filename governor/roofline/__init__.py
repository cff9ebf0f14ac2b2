"""The time and energy roofline model."""
