"""Clocks and batch size together where frames arrive at a rate, and wait for their batch.

A larger batch spends less energy an item, and its oldest frame waits longer: for the rest of its
batch, and for the inference of all of it. The bound is for that frame, from its arrival to its
result; ``gov.record`` takes the two times. On emulated boards in virtual time; no figure was
measured on hardware.
"""

from __future__ import annotations

import sys

from governor import EnergyGovernor, OperatingPoint
from governor.devices.emulated import EmulatedBoard

SIZES = (1, 2, 4, 8)
CASES = (
    ("nano", "resnet-18", 0.150, 0.70),
    ("xavier-nx", "resnet-18", 0.060, 0.30),
    ("agx-orin", "resnet-50", 0.040, 0.20),
)
"""Board, network, seconds between two frames, bound in seconds."""
TRIALS = 15


def govern(board: EmulatedBoard, slo_s: float, seed: int) -> OperatingPoint | None:
    """Run the loop until a point is held; that point."""
    with EnergyGovernor(slo_s, device=board, batch_size=SIZES, trials=TRIALS, seed=seed) as gov:
        while gov.phase != "hold":
            items = gov.batch_size
            arrived_s = board.batch(items, stale_s=slo_s)
            board.infer(items)
            gov.record(arrived_s, board.clock.now(), items)
        return gov.operating_point


def least(
    board: EmulatedBoard, slo_s: float, sizes: tuple[int, ...]
) -> tuple[float, OperatingPoint]:
    """Joules an item and setting of least energy that keep the bound, of these batch sizes."""
    settings = (
        OperatingPoint({**board.space.point(row), "batch_size": float(size)})
        for size in sizes
        for row in range(len(board.space))
    )
    return min(
        (
            (board.true_energy_j(point), point)
            for point in settings
            if board.true_delay_s(point) <= slo_s
        ),
        key=lambda pair: pair[0],
    )


def batch_alone(name: str, workload: str, period_s: float, slo_s: float) -> float:
    """Joules an item at the best batch size under the kernel's own governors."""
    kept: list[float] = []
    for size in SIZES:
        board = EmulatedBoard(name, workload, batch_size=size, period_s=period_s)
        latency_s, energy_j = board.true_default()
        if latency_s <= size * period_s and (size - 1) * period_s + latency_s <= slo_s:
            kept.append(energy_j)
    return min(kept)


def main(wanted: list[str], seeds: int = 3) -> None:
    print("EMULATED, mJ an item   default   batch  clocks   joint  governed, above joint")
    for name, workload, period_s, slo_s in CASES:
        if wanted and name not in wanted:
            continue
        board = EmulatedBoard(name, workload, period_s=period_s)
        joint_j, best = least(board, slo_s, SIZES)
        clocks_j, _ = least(board, slo_s, SIZES[:1])
        found: list[float] = []
        missed = 0
        for seed in range(seeds):
            point = govern(EmulatedBoard(name, workload, period_s=period_s, seed=seed), slo_s, seed)
            if point is None:  # the kernel's own governors were better than all that was tried
                found.append(board.true_default()[1])
                continue
            found.append(board.true_energy_j(point))
            missed += board.true_delay_s(point) > slo_s
        governed_j = sum(found) / seeds
        figures = (
            board.true_default()[1],
            batch_alone(name, workload, period_s, slo_s),
            clocks_j,
            joint_j,
            governed_j,
        )
        cells = "  ".join(f"{1e3 * each:6.1f}" for each in figures)
        print(f"{name:10s} {workload:10s} {cells}  {100 * (governed_j / joint_j - 1):+.1f} %")
        print(f"  joint: {best}; {missed} of {seeds} held miss {1e3 * slo_s:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
