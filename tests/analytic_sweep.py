"""A small made-up board, so that the truth of every setting is known in closed form."""

from __future__ import annotations

from governor.devices.trace import Sweep
from governor.space import Knob, Space

CPU_HZ = (0.6e9, 1.0e9, 1.4e9, 1.8e9)
GPU_HZ = (0.2e9, 0.4e9, 0.6e9, 0.8e9, 1.0e9, 1.2e9)
EMC_HZ = (0.8e9, 1.6e9, 3.2e9)


def analytic_sweep(device: str = "made-up", workload: str = "net", batch_size: int = 4) -> Sweep:
    """Time is work over each clock; power is static plus cubic in each clock."""
    space = Space([Knob("cpu_hz", CPU_HZ), Knob("gpu_hz", GPU_HZ), Knob("emc_hz", EMC_HZ)])
    cpu, gpu, emc = space.normalised.T
    latency_s = 0.004 * batch_size * (0.2 / cpu + 0.6 / gpu + 0.2 / emc)
    power_w = 4.0 + 3.0 * cpu**3 + 14.0 * gpu**3 + 3.0 * emc**2
    return Sweep(device, workload, batch_size, space, latency_s, power_w * latency_s, power_w)
