"""Consecutive inferences at one operating point, and the trial they add up to."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Mapping
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
from governor.trial import MAIN, Span, StreamLatency, Trial

ALARM = 1e-3
"""The chance of calling one look at a point plainly violating when it is not."""
FAR_OVER = 1.25
"""Three inferences, each so many times the bound, need no statistics."""

_PART_OF_THE_POINT = frozenset({"over_current", "average_over_current", "under_voltage"})
"""What a point draws is its own doing, and what the board does about it shows in its latency;
heat is a matter of history. Besides, Orin's over-current counter climbs in MAXN_SUPER at any load.
"""


class Window:
    """Grows span by span, of one stream or several; says at any time what it amounts to.

    Only inferences that began after ``start_s`` count: one in flight while the clocks
    changed belongs to no operating point. Power counts from the end of the last one left out:
    the first inferences of all may wait long for a model to load, at little power.

    Attributes:
        point: what is set, None under the system's own governors.
        start_s: when the operating point was in force.
        throttled: the board's throttle counters have moved since the start.
        looked_at_s: its duration when it was judged last.
    """

    def __init__(
        self,
        point: OperatingPoint | None,
        start_s: float,
        percentiles: Mapping[str, float],
        skip: int = 0,
        throttle_events: Mapping[str, int] | None = None,
    ) -> None:
        """
        Args:
            percentiles: by stream, the share of its inferences that must keep its bound.
            skip: so many spans of each stream are left out (an application needs one inference
                to pick up a new batch size).
        """
        self.point = point
        self.start_s = start_s
        self.throttled = False
        self.looked_at_s = 0.0
        self._power_since_s = start_s
        self._percentiles = percentiles
        self._skip = skip
        self._skipped: Counter[str] = Counter()
        self._spans: list[Span] = []
        self._by_stream: dict[str, list[Span]] = {}
        self._events = throttle_events

    def __len__(self) -> int:
        return len(self._spans)

    def again(self, start_s: float) -> Window:
        """An empty window at the same point, from ``start_s`` on."""
        start_s = max(start_s, self.start_s)
        window = Window(self.point, start_s, self._percentiles, self._skip, self._events)
        window._skipped = self._skipped
        return window

    def add(self, span: Span) -> bool:
        """Take note of a span; returns whether it counts here."""
        stream = span.stream
        if (span.start_s if span.since_s is None else span.since_s) < self.start_s:
            return False
        if self._skipped[stream] < self._skip:
            self._skipped[stream] += 1
            self._power_since_s = max(self._power_since_s, span.end_s)
            return False
        self._spans.append(span)
        self._by_stream.setdefault(stream, []).append(span)
        return True

    def add_unfinished(self, span: Span) -> None:
        """Take note of a span that lasts; where it has just ended, it is known already."""
        known = self._by_stream.get(span.stream, ())
        if not known or known[-1].start_s != span.start_s:
            self.add(span)

    def fewest(self, streams: Collection[str]) -> int:
        """How many inferences each of these streams has at least."""
        return min((len(self._by_stream.get(stream, ())) for stream in streams), default=0)

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

    def latencies_s(self, stream: str = MAIN) -> FloatArray:
        """Of one stream, shape ``(n,)``, in order."""
        spans = self._by_stream.get(stream, ())
        return np.array([span.end_s - span.start_s for span in spans], dtype=np.float64)

    def plainly_violates(self, slo_s: float, effect: float = BURST, stream: str = MAIN) -> bool:
        """Whether so many misses of a stream cannot be chance at a point that keeps its SLO.

        ``effect``: the design effect of misses that come in clusters.
        """
        latencies_s = self.latencies_s(stream)
        count = len(latencies_s)
        misses = int((latencies_s > slo_s).sum())
        if 3 <= misses == count and float(latencies_s.min()) > FAR_OVER * slo_s:
            return True
        budget = 1.0 - self._percentiles[stream]
        return plainly_over_budget(misses, count, budget, effect, ALARM)

    def time_per_item(self) -> Estimate:
        """Seconds from one item of any stream to the next, waiting included.

        Inferences without items are bounds on work that others count; alone, each counts one.
        """
        counted = [span for span in self._spans if span.items] or self._spans
        if len(counted) < 2:
            only = counted[0]
            seconds = only.latency_s / max(only.items, 1)
            return Estimate(seconds, seconds)
        if len(self._by_stream) > 1:
            counted = sorted(counted, key=lambda span: span.start_s)
        starts = np.array([span.start_s for span in counted])
        items = np.array([max(span.items, 1) for span in counted[:-1]], dtype=np.float64)
        per_span = mean_estimate(np.diff(starts))
        scale = float(items.mean())
        return Estimate(per_span.value / scale, per_span.se / scale)

    def trial(self, meter: Meter, least: int = 1) -> Trial:
        """What the window amounts to. Needs at least one span.

        Energy and power are NaN while the meter has never had a reading. The latencies are
        those of the first stream; who knows the bounds makes them speak for all. Streams of
        fewer than ``least`` inferences are left out where another has as many.
        """
        streams = [s for s, spans in self._by_stream.items() if len(spans) >= least]
        by_stream = tuple(self._latency(stream) for stream in streams or self._by_stream)
        first = by_stream[0]
        power = meter.power(self._power_since_s, max(span.end_s for span in self._spans))
        per_item = self.time_per_item()
        energy_j = power.value * per_item.value
        return Trial(
            point=self.point,
            latency_s=first.latency_s,
            latency_se_s=first.latency_se_s,
            mean_latency_s=first.mean_latency_s,
            mean_latency_se_s=first.mean_latency_se_s,
            energy_j=energy_j,
            energy_se_j=energy_j * math.hypot(power.relative_se, per_item.relative_se),
            power_w=power.value,
            inferences=len(self._spans),
            items=sum(span.items for span in self._spans),
            duration_s=self.duration_s,
            throttled=self.throttled,
            by_stream=by_stream,
        )

    def _latency(self, stream: str) -> StreamLatency:
        latencies_s = self.latencies_s(stream)
        at_percentile = percentile_estimate(latencies_s, self._percentiles[stream])
        mean = mean_estimate(latencies_s)
        return StreamLatency(
            stream, at_percentile.value, at_percentile.se, mean.value, mean.se, len(latencies_s)
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
