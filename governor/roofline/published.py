"""How far the layered roofline lies from published figures, and the fit to half of them.

The figures are in ``published.toml``, with their sources and the constants that a fit may move.
Points alternate between the two halves: the 1st, 3rd, 5th ... of a set is fitted, the others are
only tested. A fit is weak: each constant is drawn towards its value in the board's file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, cast

import numpy as np

from governor.errors import InputError
from governor.roofline.board import Board
from governor.roofline.board_file import with_constants
from governor.roofline.boards import load_board
from governor.roofline.prediction import Clocks, predict
from governor.roofline.work import Layer, Work
from governor.space import FloatArray

_toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

SUPPLY_EFFICIENCY = 0.8
"""Module power over the supply's, without the carrier board's own (published.toml)."""

_PRIOR_SD, _CYCLES_PRIOR_SD = 0.7, 2.0
"""In logs: a constant may well be twice or half its value in the file, and cycles, which stand
for many small things, seven times."""

_ERROR_SD = 0.05
"""A published point weighs as much as a constant moved by its prior's sd at this error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One published point.

    Attributes:
        label: what ran, for people; ``x4`` is a batch of 4.
        clocks: one setting.
        time_s: of a batch.
        energy_j: of a batch; None where no power is published.
        carrier_w: of the carrier board, where power was measured at the supply; else None.
        fitted: in the half that constants are fitted on.
    """

    label: str
    work: Work
    clocks: Clocks
    time_s: float
    energy_j: float | None
    carrier_w: float | None
    fitted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One board with one framework.

    Attributes:
        free: dotted names of the board's constants that a fit may move.
    """

    name: str
    title: str
    board: Board
    stack: str
    source: str
    free: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A published point beside the prediction; errors are relative."""

    point: Point
    time_s: float
    energy_j: float

    @property
    def time_error(self) -> float:
        """Of the predicted latency."""
        return self.time_s / self.point.time_s - 1

    @property
    def energy_error(self) -> float | None:
        """Of the predicted energy; None where none is published."""
        return None if self.point.energy_j is None else self.energy_j / self.point.energy_j - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Mean absolute errors of some points.

    Attributes:
        latencies, energies: how many points there are of each.
        time_error, energy_error: None where there are none.
    """

    latencies: int
    time_error: float | None
    energies: int
    energy_error: float | None


def set_names() -> list[str]:
    """The sets there are."""
    return [table["name"] for table in _tables()]


def load_set(name: str) -> Published:
    """The set called ``name``, its networks counted.

    Raises:
        InputError: no such set.
        MissingExtraError: PyTorch is needed to count its networks.
    """
    for table in _tables():
        if table["name"] == name:
            return _set(table)
    raise InputError(f"no published set {name!r}; choose one of {', '.join(set_names())}")


def compare(published: Published, board: Board | None = None) -> list[Compared]:
    """Every point of the set beside what is predicted (for ``board``, if given)."""
    board = board or published.board
    return [_compare(point, board, published.stack) for point in published.points]


def summarise(compared: Sequence[Compared]) -> Summary:
    """Mean absolute errors."""
    energies = [abs(one.energy_error) for one in compared if one.energy_error is not None]
    return Summary(
        latencies=len(compared),
        time_error=_mean([abs(one.time_error) for one in compared]),
        energies=len(energies),
        energy_error=_mean(energies),
    )


def fit(sets: Sequence[Published]) -> dict[str, float]:
    """The free constants of one board as they fit the fitted halves of its sets.

    Args:
        sets: all of the same board; their constants have one value for all of them.

    Returns:
        By dotted name, in the units of the board's file.
    """
    least_squares = import_module("scipy.optimize").least_squares
    board = sets[0].board
    free = list(dict.fromkeys(key for each in sets for key in each.free))
    start = np.array([float(board.constants[key].value) for key in free])
    spread = np.array([_CYCLES_PRIOR_SD if key.endswith("_cycles") else _PRIOR_SD for key in free])
    highest = np.array(
        [
            np.log(1 / value) if _is_share(key) else np.inf
            for key, value in zip(free, start, strict=True)
        ]
    )
    halves = [
        replace(each, points=tuple(point for point in each.points if point.fitted)) for each in sets
    ]

    def values(moves: FloatArray) -> dict[str, float]:
        return dict(zip(free, (start * np.exp(moves)).tolist(), strict=True))

    def residuals(moves: FloatArray) -> FloatArray:
        moved = with_constants(board, values(moves))
        compared = [one for half in halves for one in compare(half, moved)]
        errors = [np.log1p(one.time_error) for one in compared]
        errors += [np.log1p(e) for one in compared if (e := one.energy_error) is not None]
        return np.concatenate((np.array(errors) / _ERROR_SD, moves / spread))

    bounds = (np.full(len(free), -np.inf), highest)
    found = least_squares(residuals, np.zeros(len(free)), bounds=bounds, loss="soft_l1")
    return values(cast("FloatArray", found.x))


def _is_share(key: str) -> bool:
    return key.startswith("stacks.") and key.endswith((".conv", ".gemm", ".vector"))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _compare(point: Point, board: Board, stack: str) -> Compared:
    found = predict(board, board.stack(stack), point.work, point.clocks)
    time_s, energy_j = float(found.time_s[0]), float(found.energy_j[0])
    if point.carrier_w is not None:
        energy_j = energy_j / SUPPLY_EFFICIENCY + point.carrier_w * time_s
    return Compared(point=point, time_s=time_s, energy_j=energy_j)


def _tables() -> list[dict[str, Any]]:
    text = files("governor.roofline").joinpath("published.toml").read_text(encoding="utf-8")
    return cast("list[dict[str, Any]]", _toml.loads(text)["set"])


def _set(table: Mapping[str, Any]) -> Published:
    board = load_board(table["board"])
    rows = (row for series in table["series"] for row in _rows(series))
    points = (_point(table, row, board, number) for number, row in enumerate(rows))
    return Published(
        name=table["name"],
        title=table["title"],
        board=board,
        stack=table["stack"],
        source=table["source"],
        free=tuple(table["free"]),
        points=tuple(points),
    )


def _rows(series: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A series' parallel lists, row by row."""
    lists = {key: cast("list[Any]", value) for key, value in series.items() if _many(value)}
    for row in range(max((len(value) for value in lists.values()), default=1)):
        yield dict(series) | {key: value[row] for key, value in lists.items()}


def _many(value: object) -> bool:
    return isinstance(value, list)


def _point(table: Mapping[str, Any], row: Mapping[str, Any], board: Board, number: int) -> Point:
    work = _work(table, row).scaled(int(row["batch"]))
    time_s = row["latency_ms"] * 1e-3
    power_w = float(row.get("power_w", np.nan))
    return Point(
        label=f"{row['network']}" + f" x{row['batch']}" * (row["batch"] > 1),
        work=work,
        clocks=Clocks(
            cpu_hz=np.array([row["cpu_mhz"] * 1e6]),
            gpu_hz=np.array([row["gpu_mhz"] * 1e6]),
            emc_hz=np.array([row["emc_mhz"] * 1e6]),
            cores=int(row.get("cores", board.cpu.cores)),
        ),
        time_s=time_s,
        energy_j=power_w * time_s if np.isfinite(power_w) else None,
        carrier_w=row.get("carrier_w"),
        fitted=number % 2 == 0,
    )


def _work(table: Mapping[str, Any], row: Mapping[str, Any]) -> Work:
    precision = row.get("precision", table["precision"])
    if "flop" not in row:
        return _counted(row["network"], precision, table["stack"] != "pytorch")
    layer = Layer(
        name=row["network"],
        operator=row["operator"],
        flop=row["flop"],
        bytes_read=row["bytes"],
        bytes_written=0.0,
        unit="matmul",
        precision=precision,
        kernels=int(row["kernels"]),
    )
    return Work(name=row["network"], layers=(layer,), batch_size=1, precision=precision)


@cache
def _counted(network: str, precision: str, fused: bool) -> Work:
    from governor.roofline.counting import count_work

    return count_work(network, batch_size=1, precision=precision, fused=fused)
