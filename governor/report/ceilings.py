"""The roofline of a board with a network on it: what its clocks allow, and what was reached.

Williams, Waterman, Patterson, CACM 52(4), 2009. A whole network is one dot here; its layers lie
on both sides of it (``governor roofline`` draws those).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from governor.records.lines import Header
from governor.report.page import figure
from governor.report.panels import Measured
from governor.report.svg import Axis, Chart
from governor.space import OperatingPoint
from governor.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What limits a network on a board.

    Attributes:
        flop_per_s: at a GPU clock in Hz.
        bytes_per_s: at a GPU and a memory clock in Hz.
        flop, moved: FLOP and bytes an item.
        source: where these figures are from.
    """

    flop_per_s: Callable[[float], float]
    bytes_per_s: Callable[[float, float], float]
    flop: float
    moved: float
    precision: str
    source: str


def ceilings_of(header: Header) -> Ceilings | None:
    """Those of a recorded run; None where board or network is not known."""
    if header.emulated and header.workload:
        return _emulated(header.device, header.workload)
    if header.flop and header.bytes_moved:
        return _counted(header, header.flop, header.bytes_moved)
    return None


def _emulated(device: str, name: str) -> Ceilings | None:
    from governor.devices.emulated import board_names, workload_names
    from governor.devices.emulated.hardware import load_board
    from governor.devices.emulated.physics import traffic
    from governor.devices.emulated.workload import kernels, load_workload

    if device not in board_names() or name not in workload_names():
        return None
    board, workload = load_board(device), load_workload(name)
    work, gpu, memory = kernels(workload, 1), board.gpu, board.memory
    precision = gpu.precision(workload.precision)
    by_emc = memory.efficiency * memory.bytes_per_clock
    return Ceilings(
        flop_per_s=lambda gpu_hz: gpu.flop_per_clock[precision] * gpu_hz,
        bytes_per_s=lambda gpu_hz, emc_hz: min(gpu.bytes_per_clock * gpu_hz, by_emc * emc_hz),
        flop=float(work.flops.sum()),
        moved=float(traffic(board, workload, work).sum()),
        precision=precision,
        source="the emulator's board and network",
    )


def _counted(header: Header, flop: float, moved: float) -> Ceilings | None:
    from governor.roofline.boards import board_names, load_board
    from governor.roofline.prediction import bandwidth
    from governor.roofline.work import PRECISIONS

    if header.device not in board_names() or header.precision not in PRECISIONS:
        return None
    board, precision = load_board(header.device), header.precision
    return Ceilings(
        flop_per_s=lambda gpu_hz: board.gpu.flop_per_clock(precision, "tensor") * gpu_hz,
        bytes_per_s=lambda gpu_hz, emc_hz: float(
            bandwidth(board, np.array([gpu_hz]), np.array([emc_hz]))[0]
        ),
        flop=flop,
        moved=moved,
        precision=precision,
        source="published figures of the board, and the network's counted work",
    )


def roofline(
    ceilings: Ceilings, levels: dict[str, list[float]], chosen: Measured | None,
    trials: Sequence[Measured],
) -> str:  # fmt: skip
    """The roofs at the highest clocks and at those chosen, and the network below them."""
    highest = OperatingPoint({name: max(each) for name, each in levels.items()})
    if not {"gpu_hz", "emc_hz"} <= set(highest):
        return ""
    fastest = trials[0] if trials and trials[0].point is not None else None
    dots = [each for each in (fastest, chosen) if each is not None and each.point is not None]
    if not dots:
        return ""
    intensity = ceilings.flop / ceilings.moved
    peak, reach = _roof(ceilings, highest)
    ridge = peak / reach
    lowest = min([_reached(ceilings, each) for each in dots] + [reach * intensity / 10])
    x = Axis("FLOP a byte", min(intensity, ridge) / 12, max(intensity, ridge) * 12, log=True)
    y = Axis("GFLOP/s", 0.5 * min(lowest, x.low * reach * 3) / 1e9, 2.0 * peak / 1e9, log=True)
    chart = Chart("Roofline", x, y)
    places = [x.low * (x.high / x.low) ** (n / 80) for n in range(81)]
    for style, point in (("front", highest), ("chosen", chosen.point if chosen else None)):
        if point is not None and {"gpu_hz", "emc_hz"} <= set(point):
            top, wide = _roof(ceilings, point)
            chart.line([(at, min(top, at * wide) / 1e9) for at in places], style)
    chart.upright(intensity, f"{intensity:.3g} FLOP a byte", "base")
    if fastest is not None:
        reached = _reached(ceilings, fastest) / 1e9
        tip = f"At the highest clocks, {format_duration(fastest.latency_s)}: {reached:.0f} GFLOP/s"
        chart.dot(intensity, reached, "kept", tip, "all-max")
    if chosen is not None and chosen.point is not None:
        reached = _reached(ceilings, chosen) / 1e9
        tip = f"As chosen, {format_duration(chosen.latency_s)}: {reached:.0f} GFLOP/s"
        chart.star(intensity, reached, tip, "chosen")
    bound = "arithmetic" if intensity > ridge else "memory"
    return figure(
        "Roofline",
        f"GFLOP/s over FLOP a byte, both logarithmic, for {ceilings.precision}. On this board the "
        f"whole network leans on {bound}; what lies between it and its roof are launches, narrow "
        f"layers and overheads. From {ceilings.source}.",
        chart.draw(),
        (("front", "roof at the highest clocks"), ("chosen", "at those chosen")),
    )


def _roof(ceilings: Ceilings, point: OperatingPoint) -> tuple[float, float]:
    """FLOP/s and bytes/s at most."""
    gpu_hz, emc_hz = point["gpu_hz"], point["emc_hz"]
    return ceilings.flop_per_s(gpu_hz), ceilings.bytes_per_s(gpu_hz, emc_hz)


def _reached(ceilings: Ceilings, each: Measured) -> float:
    """FLOP a second of one inference after another."""
    items = 1.0 if each.point is None else each.point.get("batch_size", 1.0)
    return ceilings.flop * items / each.latency_s if each.latency_s > 0 else math.nan
