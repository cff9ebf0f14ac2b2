"""The lines of a run record: one JSON object a line, told apart by its key ``record``.

Times are seconds since the start of the run, on the device's clock; all else is in SI units. What
is not known is null. A reader of format 1 passes over keys that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from governor.decision import Kind, Phase
from governor.space import OperatingPoint
from governor.trial import Trial

FORMAT = 1

Amount = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(0)]
Change = Annotated[float, Interval(gt=-1.0, lt=1.0)]
Point = dict[str, Positive] | None

_STRICT = {"allow_inf_nan": False}
"""Pydantic's settings, where it reads these classes; writing does without it."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first line of a run; a file that several runs were appended to has several.

    Attributes:
        started_at: by the machine's clock, ISO 8601 with its zone.
        program: that was governed, by its file's name.
        device, description, emulated, workload, total_rail: see
            :class:`governor.devices.device.DeviceInfo`.
        levels: by knob, ascending. ``settings``: how many of their combinations are allowed.
        objective: what was to be small at the start, for people.
        slo: for people. ``slo_s``: its bound, null where it is relative to all-max.
        trials: operating points that a search may try.
        model, precision, flop, bytes_moved: what an item is counted to cost, where the governor
            was told of the model.
    """

    format: int
    version: str
    started_at: str
    program: str
    device: str
    description: str
    emulated: bool
    workload: str
    total_rail: str
    levels: dict[str, list[Positive]]
    settings: Count
    slo: str
    slo_s: Positive | None
    percentile: Annotated[float, Gt(0)]
    policy: str
    trials: Count
    seed: int
    objective: str = "energy"
    model: str = ""
    precision: str = ""
    flop: Amount | None = None
    bytes_moved: Amount | None = None
    record: Literal["header"] = "header"

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """A trial, see :class:`governor.trial.Trial`; the baseline's point is null."""

    time_s: Amount
    role: Literal["baseline", "search"]
    point: Point
    latency_s: Amount
    latency_se_s: Amount
    mean_latency_s: Amount
    mean_latency_se_s: Amount
    energy_j: Amount | None
    energy_se_j: Amount | None
    power_w: Amount | None
    inferences: Count
    items: Count
    duration_s: Amount
    throttled: bool = False
    disturbed: bool = False
    too_short: bool = False
    warming: Change = 0.0
    record: Literal["trial"] = "trial"

    __pydantic_config__ = _STRICT

    @property
    def trial(self) -> Trial:
        """As the policy saw it; NaN where nothing is known."""
        return Trial(
            point=point_of(self.point),
            latency_s=self.latency_s,
            latency_se_s=self.latency_se_s,
            mean_latency_s=self.mean_latency_s,
            mean_latency_se_s=self.mean_latency_se_s,
            energy_j=number(self.energy_j),
            energy_se_j=number(self.energy_se_j),
            power_w=number(self.power_w),
            inferences=self.inferences,
            items=self.items,
            duration_s=self.duration_s,
            throttled=self.throttled,
            disturbed=self.disturbed,
            too_short=self.too_short,
            warming=self.warming,
        )


@dataclass(frozen=True, kw_only=True)
class DecisionLine:
    """A decision, see :class:`governor.decision.Decision`, and what was known with it.

    Attributes:
        saving: share of energy an item against the baseline, null while it is not known.
    """

    time_s: Amount
    kind: Kind
    phase: Phase
    point: Point
    change: bool
    reason: str
    slo_s: Positive | None
    slo_feasible: bool | None
    saving: float | None
    record: Literal["decision"] = "decision"

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class WindowLine:
    """A stretch of time at one operating point.

    Attributes:
        latency_s: at the SLO's percentile, null without inferences; as ``mean_latency_s``.
        energy_j: joules an item, idle time included.
        power_w: mean watts by rail. ``temperature_c``: the latest by zone.
        throttle_events: so far, by cause.
    """

    start_s: Amount
    end_s: Amount
    phase: Phase
    point: Point
    slo_s: Positive | None
    inferences: Count
    items: Count
    violations: Count
    latency_s: Amount | None
    mean_latency_s: Amount | None
    energy_j: Amount | None
    power_w: dict[str, float]
    temperature_c: dict[str, float]
    throttle_events: dict[str, Count]
    saving: float | None
    record: Literal["window"] = "window"

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class End:
    """The last line of a run that ended by itself; a crash leaves none.

    Attributes:
        reason: ``exit``, ``exception``, a signal's name; or ``other settings``, as of another power
            mode: the next run in the file goes on with those.
        total_j: joules on the total rail in all.
    """

    time_s: Amount
    reason: str
    inferences: Count
    items: Count
    violations: Count
    total_j: Amount
    baseline_energy_j: Amount | None
    held_energy_j: Amount | None
    saving: float | None
    record: Literal["end"] = "end"

    __pydantic_config__ = _STRICT


Line = Header | TrialLine | DecisionLine | WindowLine | End


def point_of(point: Mapping[str, float] | None) -> OperatingPoint | None:
    """None stands for the system's own governors."""
    return None if point is None else OperatingPoint(point)


def plain(point: OperatingPoint | None) -> dict[str, float] | None:
    """The other way round."""
    return None if point is None else dict(point)


def number(value: float | None) -> float:
    """NaN where nothing is known."""
    return math.nan if value is None else value


def known(value: float) -> float | None:
    """None where nothing is known, which JSON can say."""
    return value if math.isfinite(value) else None
