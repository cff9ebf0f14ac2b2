"""What a loop of a real PyTorch model draws on this machine. Reads only: sets nothing.

Works wherever NVML or RAPL can be read; the model runs on the GPU where PyTorch sees one.

    python examples/nvml_loop.py [seconds]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from tiny_yolo import TinyYolo

from governor.devices.linux import find_parts, refusals
from governor.meter import Meter
from governor.units import format_energy, format_power


def main(seconds: float = 10.0) -> int:
    parts = find_parts(Path("/"), os.environ)
    if not parts.sources:
        print("no energy can be read here:", *refusals(parts).values(), sep="\n  ")
        return 1
    meter = Meter(parts.info)
    on = "cuda" if torch.cuda.is_available() else "cpu"
    model = TinyYolo().eval().to(on)
    frame = torch.rand(1, 3, 320, 320, device=on)
    print(f"{parts.info.description}; the model runs on {on}")
    inferences, start_s = 0, time.perf_counter()
    first = parts.sample(start_s)
    with torch.inference_mode():
        while time.perf_counter() < start_s + seconds:
            model(frame)
            if on == "cuda":
                torch.cuda.synchronize()
            inferences += 1
            meter.add(parts.sample(time.perf_counter()))
    end_s = time.perf_counter()
    power = meter.power(start_s, end_s)
    print(f"power by the meter: {format_power(power.value)} +- {format_power(power.se)}")
    print(f"an inference: {format_energy(power.value * (end_s - start_s) / inferences)}")
    last = meter.latest
    if last is not None and last.energy_j is not None and first.energy_j is not None:
        counted_j = (last.energy_j - first.energy_j) / inferences
        print(f"by the counters' first and last value: {format_energy(counted_j)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
