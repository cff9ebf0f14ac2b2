"""What ``governor sweep`` left beside a trace: the board, its defaults, and every repeat."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from governor.errors import InputError
from governor.report.panels import Measured
from governor.space import OperatingPoint


class _Default(BaseModel):
    mean_latency_s: float
    energy_j: float
    power_w: float


class _About(BaseModel):
    """What is taken of ``NAME.json``; a file of something else has none of it."""

    device: str
    emulated: bool
    default_governors: _Default | None = None


@dataclass(frozen=True)
class Beside:
    """What is known of a trace from the files beside it.

    Attributes:
        device: the board's short name; empty: not known.
        emulated: whether no figure of the trace was measured on hardware.
        default: under the system's own governors, at batch size 1; its latency is the mean.
        spread: by setting, batch size among its knobs, the half-width of the 95 % confidence
            interval of its mean energy in joules an item.
    """

    device: str = ""
    emulated: bool = False
    default: Measured | None = None
    spread: dict[OperatingPoint, float] = field(default_factory=dict[OperatingPoint, float])


def beside(trace: Path) -> Beside:
    """What lies beside a trace; nothing, where ``governor sweep`` did not write it.

    Raises:
        InputError: a line of its repeats is no measurement.
    """
    try:
        about = _About.model_validate_json(trace.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return Beside()
    default = about.default_governors
    return Beside(
        about.device,
        about.emulated,
        None
        if default is None
        else Measured(
            point=None,
            latency_s=default.mean_latency_s,  # as the trace's own
            energy_j=default.energy_j,
            power_w=default.power_w,
        ),
        dict(_spread(trace.with_suffix(".repeats.csv"))),
    )


def _spread(path: Path) -> Iterator[tuple[OperatingPoint, float]]:
    from scipy import stats  # heavy, and only this needs it

    student: Any = stats.t
    groups: dict[OperatingPoint, list[float]] = defaultdict(list)
    for point, energy_j in _repeats(path):
        groups[point].append(energy_j)
    for point, energies in groups.items():
        count = len(energies)
        if count > 1:
            quantile = float(student.ppf(0.975, count - 1))
            yield point, quantile * float(np.std(energies, ddof=1)) / math.sqrt(count)


def _repeats(path: Path) -> Iterator[tuple[OperatingPoint, float]]:
    """Each repeat of each setting: joules an item."""
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    except OSError:
        return
    for line, row in enumerate(rows, 2):
        knobs, energy_j = _measurement(path, line, row)
        if knobs:
            yield OperatingPoint(knobs), energy_j


def _measurement(path: Path, line: int, row: dict[str, str]) -> tuple[dict[str, float], float]:
    """Knobs, which stand between the repeat's number and the counts; and joules an item."""
    try:
        names = list(row)[1 : list(row).index("inferences")]
        return {name: float(row[name]) for name in names if row[name]}, float(row["energy_j"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}, line {line}: is no measurement ({error}); remove the line"
        ) from error
