"""One mounted board, governed in real time: ``python convergence_rig.py BOARD FOLDER``.

Prints a line of JSON: seconds until a point was held, its energy an item and that of the
emulator's own best point, both as the emulator's physics have them, and whether every file that
is set held at the end what it held before. The bound is one of the 95th percentile, and the
physics know means: a point counts as keeping it whose mean is below it by as much as percentile
and mean lay apart in the window that was held.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from governor import EnergyGovernor
from governor.devices.emulated import ShadowBoard
from governor.devices.emulated.mount import mounted
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.jetson import JetsonDevice
from governor.lease.client import Lease
from governor.space import OperatingPoint

WORKLOADS = {"nano": "yolov4-tiny", "tx2": "inception-v4", "xavier-nx": "vgg16",
             "agx-xavier": "vgg16"}  # fmt: skip
SLOW = "bert-large"
"""Inferences of 50 to 120 ms, so that the time which a busy machine adds between two is little."""
SLO = 1.5
"""Times the latency at the fastest point."""
TRIALS = 18
"""More than the default's 12: what is asked here is where the search arrives."""
LONGEST_S = 120.0


def main(board: str, folder: Path) -> None:
    workload = WORKLOADS.get(board, SLOW)
    truth = ShadowBoard(board, workload)
    slo_s = SLO * truth.true_latency_s(truth.space.point(truth.space.fastest))
    root = folder / "root"
    root.mkdir()
    jetson = VirtualJetson(board, workload=workload)
    before = settings(jetson)
    with mounted(jetson, root):
        device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=folder))
        began_s = time.monotonic()
        with EnergyGovernor(slo_s, device=device, trials=TRIALS) as gov:
            while gov.phase != "hold" and time.monotonic() < began_s + LONGEST_S:
                # As long as it took on the board: here it ends when this process gets its turn.
                span = jetson.board.infer()
                gov.record(span.start_s, span.end_s)
            held_s, phase, point = time.monotonic() - began_s, gov.phase, gov.operating_point
            trials, status = len(gov.trials), gov.status()
        device.close()
        restored = settings(jetson) == before
    held = _in(truth, point) if point is not None else None
    best, _, least_j = truth.optimum(slo_s * status.mean_latency_s / status.latency_s)
    print(
        json.dumps(
            {
                "board": board,
                "phase": phase,
                "held_s": held_s,
                "trials": trials,
                "point": str(held),
                "best": str(best),
                "held_j": truth.true_energy_j(held) if held else truth.true_default()[1],
                "least_j": least_j,
                "latency_s": truth.true_latency_s(held) if held else truth.true_default()[0],
                "slo_s": slo_s,
                "restored": restored,
            }
        )
    )


def settings(jetson: VirtualJetson) -> dict[str, bytes]:
    """What the files hold that a pin writes."""
    names = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "mrq_rate_locked", "clk_state",
             "bwmgr_halt", "iso_cap", "clk_cap/emc")  # fmt: skip
    return {path: jetson.tree.read(path) for path in jetson.tree.files() if path.endswith(names)}


def _in(truth: ShadowBoard, point: OperatingPoint) -> OperatingPoint:
    """As the emulator names it: a release may call the highest memory clock 3200 for 3199 MHz."""
    return OperatingPoint(
        {
            knob.name: min(knob.levels, key=lambda level: abs(level - point[knob.name]))
            for knob in truth.space.knobs
        }
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
