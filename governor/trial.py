"""What was measured: spans, windows and trials, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from governor.space import OperatingPoint

MAIN = "main"
"""The stream of inferences that the governor's own bound is for."""

IDLE = 1.1
"""An inference that starts this many latencies after the one before had to wait for input."""


class Span(NamedTuple):
    """One inference: start and end on the device's clock in seconds, and the items in it.

    Attributes:
        stream: whose inference; each stream has a latency bound of its own.
        since_s: where inferences are known only by a counter, the time of the reading before:
            this one lies somewhere after it. None: ``start_s`` is exact.
    """

    start_s: float
    end_s: float
    items: int = 1
    stream: str = MAIN
    since_s: float | None = None

    @property
    def latency_s(self) -> float:
        """How long this inference took."""
        return self.end_s - self.start_s


class StreamLatency(NamedTuple):
    """The latencies of one stream in a window, in seconds, each with one standard error."""

    stream: str
    latency_s: float
    latency_se_s: float
    mean_latency_s: float
    mean_latency_se_s: float
    inferences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A window's summary at one operating point. Every ``*_se`` is one standard error.

    Where several streams are governed, ``latency_s`` speaks for all of them: it is that of the
    stream nearest to its bound, scaled so that its bound is the governor's (90 ms of 100 ms
    are 45 ms of 50 ms), with so large an error that the probability of keeping the bound is
    that of the least sure stream. ``mean_latency_s`` is the mean of all, each scaled so.

    Attributes:
        point: what was set; None under the system's own governors (the baseline).
        latency_s: seconds, at the SLO's percentile, of one inference (one batch).
        mean_latency_s: seconds, mean.
        energy_j: joules an item: all energy of the window over the items of all streams, idle
            time included.
        power_w: watts, mean over the window, of the device's declared total.
        inferences: spans in the window.
        items: items in those spans.
        duration_s: seconds from the window's start to its end.
        throttled: the board lowered its own clocks for heat meanwhile.
        disturbed: someone else wrote a knob, or the input stalled.
        too_short: ended before its errors were as small as asked for.
        warming: the share by which ``energy_j`` and ``power_w`` were corrected from what was
            measured to what they come to once the board's temperature has settled there.
        by_stream: the latencies of each stream, unscaled; a detail, of no account to policies.
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
    warming: float = 0.0
    by_stream: tuple[StreamLatency, ...] = field(default=(), compare=False)

    @property
    def clean(self) -> bool:
        """Whether this says something about the point itself."""
        return not (self.throttled or self.disturbed)

    @property
    def interval_s(self) -> float:
        """Mean seconds from one inference to the next."""
        return self.duration_s / self.inferences

    @property
    def waited(self) -> bool:
        """Whether its inferences had to wait for their input."""
        return self.interval_s > IDLE * self.mean_latency_s
