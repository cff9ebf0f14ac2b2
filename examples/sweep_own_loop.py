"""Sweep an application by its own loop: it asks for the next turn, and does what it always does.

On an emulated board in virtual time; no figure was measured on hardware. On a Jetson, open the
device by ``open_device("auto")``; the loop stays as it is. Killed and run again with the same
file, it goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from governor import Knob
from governor.devices.emulated import EmulatedBoard
from governor.sweep import (
    Rules,
    Sweep,
    SweepFile,
    describe,
    provenance,
    sample,
    schedule,
    thin,
)
from governor.units import format_duration, format_energy


def main(path: Path) -> None:
    board = EmulatedBoard("orin-nano", workload="resnet-18")
    space = sample(thin(board.space, {"gpu_hz": "all", "cpu_hz": "6"}), 12, seed=0)
    space = space.with_knob(Knob("batch_size", (1.0, 4.0)))
    rules = Rules(inferences=20)
    about = describe(board, "my loop", space, rules, repeats=2)
    file = SweepFile(path, space.names, about, provenance(board, sys.argv))
    with Sweep(board, file.remaining(schedule(space, repeats=2)), file.keep, rules) as sweep:
        for batch_size in sweep.turns():
            board.infer(items=batch_size)  # your own: model(frames[:batch_size])
    file.finish(sweep.failures)
    for trace in file.traces():
        best = trace.optimum(float("inf"))
        item_j = format_energy(trace.energy_j[best] / trace.batch_size)
        latency = format_duration(trace.latency_s[best])
        print(
            f"EMULATED, batch {trace.batch_size}: {item_j} an item, {latency}, "
            f"{trace.space.point(best)}"
        )


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/sweep.csv"))
