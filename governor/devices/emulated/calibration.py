"""How far the emulated boards lie from published figures: each anchor, and a summary a board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np

from governor.devices.emulated.hardware import Board, board_names, load_board, load_toml
from governor.devices.emulated.physics import Tables, steady_power, tables
from governor.devices.emulated.workload import Workload
from governor.errors import unknown_name

Quantity = Literal["latency", "power"]

AIR_C = 25.0

SUPPLY_EFFICIENCY, CARRIER_W = 0.8, 1.0
"""A supply-side analyser sees the module over the carrier's regulators (75 to 80 % end to end on
Orin NX, ARK Electronics, docs/power.md) plus the carrier itself (assumed)."""

_IDLE = Workload("bert-tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One published figure.

    Attributes:
        board: the emulated board it concerns.
        label: what ran, for people.
        clocks_mhz: CPU, GPU and EMC; None: the highest.
        workload: None: idle.
        period_s: of a periodic run, 0: a closed loop.
        published: seconds or watts.
    """

    board: str
    label: str
    quantity: Quantity
    clocks_mhz: tuple[float | None, float | None, float | None]
    workload: Workload | None
    batch_size: int
    period_s: float
    supply: bool
    published: float
    source: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure beside the emulated one.

    Attributes:
        emulated: in the anchor's unit.
        error: relative.
    """

    anchor: Anchor
    emulated: float
    error: float


def anchors(board: str | None = None) -> list[Anchor]:
    """All published figures that are carried here, or those of one board."""
    if board is not None and board not in board_names():
        raise unknown_name("board", board, board_names())
    data = load_toml("anchors.toml")
    found = [anchor for each in data["set"] for anchor in _of_set(each)]
    return [anchor for anchor in found if board in (None, anchor.board)]


def _rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A set's parallel lists, row by row."""
    lists = {key: cast("list[Any]", value) for key, value in table.items() if _many(value)}
    for row in range(max((len(value) for value in lists.values()), default=1)):
        yield dict(table) | {key: value[row] for key, value in lists.items()}


def _many(value: object) -> bool:
    return isinstance(value, list)


def _of_set(table: Mapping[str, Any]) -> Iterator[Anchor]:
    for row in _rows(table):
        idle = row["network"] == "idle"
        workload = Workload(
            row["network"],
            row.get("framework", ""),
            row.get("precision", ""),
            row.get("gemm_precision", ""),
        )
        batch = int(row.get("batch_size", 1))
        period_s = 1e-3 * row.get("period_ms", 0.0)
        label = "idle" if idle else f"{workload.network} {workload.framework} {workload.precision}"
        label += f" batch {batch}" * (batch > 1)
        label += f" every {1e3 * period_s:g} ms" * (period_s > 0)
        for key, quantity, unit in (("latency_ms", "latency", 1e-3), ("power_w", "power", 1.0)):
            if key in row:
                yield Anchor(
                    board=row["board"],
                    label=label,
                    quantity=cast("Quantity", quantity),
                    clocks_mhz=(row.get("cpu_mhz"), row.get("gpu_mhz"), row.get("emc_mhz")),
                    workload=None if idle else workload,
                    batch_size=batch,
                    period_s=period_s,
                    supply=row.get("scope") == "supply",
                    published=row[key] * unit,
                    source=row["source"],
                )


def _index(levels_hz: Sequence[float], mhz: float | None) -> int:
    if mhz is None:
        return len(levels_hz) - 1
    return int(np.abs(np.array(levels_hz) - mhz * 1e6).argmin())


def emulate(anchor: Anchor, board: Board) -> float:
    """What ``board`` gives for a latency (s) or power (W) anchor."""
    table = _table(board, anchor.workload or _IDLE, anchor.batch_size)
    cpu, gpu, emc = (
        _index(levels, mhz)
        for levels, mhz in zip(
            (board.cpu.levels_hz, board.gpu.levels_hz, board.memory.levels_hz),
            anchor.clocks_mhz,
            strict=True,
        )
    )
    latency_s = float(table.latency_s[cpu, gpu, emc])
    if anchor.quantity == "latency":
        return latency_s
    busy = min(latency_s / anchor.period_s, 1.0) if anchor.period_s else 1.0
    if anchor.workload is None:
        busy = 0.0
    cold_w = busy * table.busy_w[cpu, gpu, emc] + (1 - busy) * table.idle_w[cpu, gpu, emc]
    leak_w = table.cpu_leak_w[cpu] + table.gpu_leak_w[gpu]
    power_w = float(steady_power(board, cold_w.sum(), leak_w, AIR_C))
    return power_w / SUPPLY_EFFICIENCY + CARRIER_W if anchor.supply else power_w


def compare(board: str | None = None) -> list[Comparison]:
    """Every anchor (of ``board``, if given) beside what the emulation gives."""
    return [_compare(anchor) for anchor in anchors(board)]


def _compare(anchor: Anchor) -> Comparison:
    emulated = emulate(anchor, load_board(anchor.board))
    return Comparison(anchor, emulated, emulated / anchor.published - 1)


@dataclass(frozen=True, slots=True)
class Summary:
    """How well one board meets its anchors of one quantity.

    Attributes:
        mean_error: mean absolute relative error.
        worst_error: the largest.
    """

    board: str
    quantity: Quantity
    count: int
    mean_error: float
    worst_error: float


def summarise(comparisons: Sequence[Comparison]) -> list[Summary]:
    """One summary for each board and quantity that occurs."""
    errors: dict[tuple[str, Quantity], list[float]] = {}
    for each in comparisons:
        key = (each.anchor.board, each.anchor.quantity)
        errors.setdefault(key, []).append(abs(each.error))
    return [
        Summary(board, quantity, len(found), sum(found) / len(found), max(found))
        for (board, quantity), found in errors.items()
    ]


@lru_cache(maxsize=16)
def _table_by_name(board: str, workload: Workload, batch_size: int) -> Tables:
    return tables(load_board(board), workload, batch_size)


def _table(board: Board, workload: Workload, batch_size: int) -> Tables:
    """Cached for the boards as they are; a changed one (a fit's candidate) is computed anew."""
    if board is load_board(board.name):
        return _table_by_name(board.name, workload, batch_size)
    return tables(board, workload, batch_size)
