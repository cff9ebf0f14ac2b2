"""What was measured: spans, windows and trials, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from governor.space import OperatingPoint


class Span(NamedTuple):
    """One inference: start and end on the device's clock in seconds, and the items in it."""

    start_s: float
    end_s: float
    items: int = 1

    @property
    def latency_s(self) -> float:
        """How long this inference took."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A window's summary at one operating point. Every ``*_se`` is one standard error.

    Attributes:
        point: what was set; None under the system's own governors (the baseline).
        latency_s: seconds, at the SLO's percentile, of one inference (one batch).
        mean_latency_s: seconds, mean.
        energy_j: joules an item: all energy of the window over its items, idle time included.
        power_w: watts, mean over the window, of the device's declared total.
        inferences: spans in the window.
        items: items in those spans.
        duration_s: seconds from the window's start to its end.
        throttled: the board lowered its own clocks for heat meanwhile.
        disturbed: someone else wrote a knob, or the input stalled.
        too_short: ended before its errors were as small as asked for.
    """

    point: OperatingPoint | None
    latency_s: float
    latency_se_s: float
    mean_latency_s: float
    mean_latency_se_s: float
    energy_j: float
    energy_se_j: float
    power_w: float
    inferences: int
    items: int
    duration_s: float
    throttled: bool = False
    disturbed: bool = False
    too_short: bool = False

    @property
    def clean(self) -> bool:
        """Whether this says something about the point itself."""
        return not (self.throttled or self.disturbed)
