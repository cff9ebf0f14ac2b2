"""Measuring a workload at many settings of a device."""
