"""Consecutive inferences at one operating point, and the trial they add up to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median

import numpy as np

from governor.meter import Meter
from governor.slo import (
    BURST,
    Estimate,
    mean_estimate,
    percentile_estimate,
    plainly_over_budget,
)
from governor.space import FloatArray, OperatingPoint
from governor.trial import Span, Trial

ALARM = 1e-3
"""The chance of calling one look at a point plainly violating when it is not."""
FAR_OVER = 1.25
"""Three inferences, each so many times the bound, need no statistics."""

_PART_OF_THE_POINT = frozenset({"over_current", "average_over_current", "under_voltage"})
"""What a point draws is its own doing, and what the board does about it shows in its latency;
heat is a matter of history. Besides, Orin's over-current counter climbs in MAXN_SUPER at any load.
"""


class Window:
    """Grows span by span; says at any time what it amounts to.

    Only inferences that began after ``start_s`` count: one in flight while the clocks
    changed belongs to no operating point.

    Attributes:
        point: what is set, None under the system's own governors.
        start_s: when the operating point was in force.
        skip: so many more spans are left out (an application needs one inference to pick up
            a new batch size).
        throttled: the board's throttle counters have moved since the start.
        looked_at_s: its duration when it was judged last.
    """

    def __init__(
        self,
        point: OperatingPoint | None,
        start_s: float,
        percentile: float,
        skip: int = 0,
        throttle_events: Mapping[str, int] | None = None,
    ) -> None:
        self.point = point
        self.start_s = start_s
        self.skip = skip
        self.throttled = False
        self.looked_at_s = 0.0
        self._percentile = percentile
        self._spans: list[Span] = []
        self._events = throttle_events

    def __len__(self) -> int:
        return len(self._spans)

    def again(self, start_s: float) -> Window:
        """An empty window at the same point, from ``start_s`` on."""
        return Window(
            self.point, max(start_s, self.start_s), self._percentile, self.skip, self._events
        )

    def add(self, span: Span) -> bool:
        """Take note of a span; returns whether it counts here."""
        if span.start_s < self.start_s:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self._spans.append(span)
        return True

    def watch_throttling(self, events: Mapping[str, int]) -> None:
        """Compare the device's throttle counters with those seen last."""
        before = events if self._events is None else self._events
        self.throttled |= any(
            count > before.get(cause, 0)
            for cause, count in events.items()
            if cause not in _PART_OF_THE_POINT
        )
        self._events = events

    @property
    def duration_s(self) -> float:
        """From the first counted inference's start to the last one's end."""
        return self._spans[-1].end_s - self._spans[0].start_s if self._spans else 0.0

    @property
    def latencies_s(self) -> FloatArray:
        """Shape ``(n,)``, in order."""
        return np.array([end - start for start, end, _ in self._spans], dtype=np.float64)

    def plainly_violates(self, slo_s: float, effect: float = BURST) -> bool:
        """Whether so many misses cannot be chance at a point that keeps the SLO.

        ``effect``: the design effect of misses that come in clusters.
        """
        misses = sum(end - start > slo_s for start, end, _ in self._spans)
        if 3 <= misses == len(self._spans):
            quickest_s = min(end - start for start, end, _ in self._spans)
            if quickest_s > FAR_OVER * slo_s:
                return True
        return plainly_over_budget(misses, len(self._spans), 1.0 - self._percentile, effect, ALARM)

    def time_per_item(self) -> Estimate:
        """Seconds from one item to the next, waiting included."""
        if len(self._spans) < 2:
            only = self._spans[0]
            seconds = only.latency_s / only.items
            return Estimate(seconds, seconds)
        starts = np.array([span.start_s for span in self._spans])
        items = np.array([span.items for span in self._spans[:-1]], dtype=np.float64)
        per_span = mean_estimate(np.diff(starts))
        scale = float(items.mean())
        return Estimate(per_span.value / scale, per_span.se / scale)

    def trial(self, meter: Meter) -> Trial:
        """What the window amounts to. Needs at least one span.

        Energy and power are NaN while the meter has never had a reading.
        """
        latencies = self.latencies_s
        at_percentile = percentile_estimate(latencies, self._percentile)
        mean = mean_estimate(latencies)
        power = meter.power(self.start_s, self._spans[-1].end_s)
        per_item = self.time_per_item()
        energy_j = power.value * per_item.value
        return Trial(
            point=self.point,
            latency_s=at_percentile.value,
            latency_se_s=at_percentile.se,
            mean_latency_s=mean.value,
            mean_latency_se_s=mean.se,
            energy_j=energy_j,
            energy_se_j=energy_j * math.hypot(power.relative_se, per_item.relative_se),
            power_w=power.value,
            inferences=len(self._spans),
            items=sum(span.items for span in self._spans),
            duration_s=self.duration_s,
            throttled=self.throttled,
        )


class Arrivals:
    """Knows an ordinary wait for the next inference from a stalled input."""

    def __init__(self, stall_s: float) -> None:
        """``stall_s``: a shorter wait is never a stall."""
        self._stall_s = stall_s
        self._intervals_s: deque[float] = deque(maxlen=15)
        self._last: Span | None = None

    @property
    def patience_s(self) -> float:
        """The longest wait that is ordinary: five usual intervals, or ``stall_s``."""
        if len(self._intervals_s) < 3:
            return self._stall_s
        return max(self._stall_s, 5.0 * median(self._intervals_s))

    def add(self, span: Span) -> bool:
        """Take note of a span; returns whether the input had stalled before it."""
        last, self._last = self._last, span
        if last is None:
            return False
        stalled = self._too_long(span.start_s - last.end_s)
        self._intervals_s.append(span.start_s - last.start_s)
        return stalled

    def stalled(self, now_s: float) -> bool:
        """Whether the wait that lasts until now is no ordinary one."""
        return self._last is not None and self._too_long(now_s - self._last.end_s)

    def _too_long(self, wait_s: float) -> bool:
        return wait_s > self._stall_s and wait_s > self.patience_s  # seldom as far as the median
