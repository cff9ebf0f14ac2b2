"""EnergyGovernor: the clocks of least energy within a latency bound, found and held live."""
