"""What the controller decides: the one thing that those around it act on, log and show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from governor.meter import resolved_energy_j
from governor.space import OperatingPoint
from governor.trial import Trial
from governor.units import format_duration, format_energy, format_power

Phase = Literal["baseline", "profile", "search", "hold", "fallback"]
Kind = Literal[
    "try",  # a point is tried
    "wait",  # at a safe point until the policy answers, or the SLO's budget has recovered
    "verify",  # the chosen point is measured again, or the system's own governors against it
    "hold",  # the chosen point is held
    "infeasible",  # nothing keeps the SLO: the fastest point is held
    "fallback",  # the SLO's budget burns: back to a safe point
    "drift",  # what was held has changed
    "heat",  # too hot to keep: searching below; or a limit that cannot be kept
    "bound",  # another latency bound is wanted
    "drop",  # a window was thrown away
    "reassert",  # someone else wrote a knob: ours again
    "release",  # hands off: the system's own governors
    "freeze",  # no inferences arrive
    "thaw",  # they arrive again
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done from now on, and why.

    Attributes:
        time_s: when, on the device's clock.
        kind: what happened, such as ``try``, ``hold``, ``fallback`` or ``drift``.
        phase: baseline, profile, search, hold or fallback.
        point: what is in force from now on; None: the system's own governors.
        change: whether ``point`` must be set now.
        reason: for people.
        trial: the window that led here, where one did.
    """

    time_s: float
    kind: Kind
    phase: Phase
    point: OperatingPoint | None
    change: bool
    reason: str
    trial: Trial | None = None


def figures(trial: Trial) -> str:
    """A trial's figures as a clause of a reason."""
    latencies = [f"{format_duration(s.latency_s)} for {s.stream}" for s in trial.by_stream]
    several = " and ".join(latencies) if len(latencies) > 1 else format_duration(trial.latency_s)
    latency = f"{several} at the percentile"
    if math.isnan(resolved_energy_j(trial)):
        return f"{latency}, left before its energy could be measured"
    return f"{latency}, {format_energy(trial.energy_j)} an item, {format_power(trial.power_w)}"
