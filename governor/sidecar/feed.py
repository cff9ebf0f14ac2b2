"""What comes in for one application: checked, counted, and handed to its stream."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from governor.devices.device import ShadowDevice
from governor.instrument.stream import Stream

SHORTEST_S, LONGEST_S = 1e-7, 600.0
"""No inference lasts shorter or longer; what says so is no measurement. A clock of many days
does not even tell its start from its end below that."""
MOST_ITEMS = 1_000_000
MOST_PER_S = 2000.0
"""Inferences taken a second; a flood beyond it is counted and dropped."""
AHEAD_S = 0.01
LATE_S = 5.0
"""A time this far from ours is of another clock: then the duration counts, from its arrival.
CLOCK_MONOTONIC is one for all processes and containers of a machine, unless they are given a
time namespace of their own; it is Python's ``monotonic`` and ``perf_counter`` on Linux.
"""


class Feed:
    """Takes one application's inferences from any thread.

    Attributes:
        name: of the application.
        counts: by outcome: ``taken``, or why it was dropped: ``implausible``, ``flooded``,
            ``pause``; also ``other clock``, which was taken by its duration, and ``bound``.
        slowdown: by how much the emulated board would now be slower than at its fastest; 1: it
            would not, or the board is real.
    """

    def __init__(
        self,
        name: str,
        stream: Stream,
        shadow: ShadowDevice | None = None,
        bind: Callable[[float], None] = lambda _bound_s: None,
    ) -> None:
        """
        Args:
            shadow: the emulated board; what it would have cost is added to each inference.
            bind: gives its stream another latency bound, in s.
        """
        self.name = name
        self.counts: Counter[str] = Counter()
        self.slowdown = 1.0
        self._stream = stream
        self._shadow = shadow
        self._bind = bind
        self._lock = threading.Lock()
        self._allowance = MOST_PER_S
        self._refilled_s = time.perf_counter()

    def inference(
        self,
        start_s: float,
        end_s: float,
        items: int = 1,
        slept_s: float = 0.0,
        *,
        ticked: bool = False,
    ) -> bool:
        """One inference, timed by CLOCK_MONOTONIC; returns whether it was taken.

        Args:
            slept_s: the part at its end that the application slept for the emulated board.
            ticked: it is the time between two ticks, and may be a pause.
        """
        with self._lock:
            now_s = time.perf_counter()
            duration_s = end_s - start_s
            if not self._plausible(duration_s, items, slept_s):
                return self._dropped("implausible")
            if not self._allowed(now_s):
                return self._dropped("flooded")
            if ticked and self._stream.paused(duration_s):
                return self._dropped("pause")
            if not -LATE_S <= end_s - now_s <= AHEAD_S:
                self.counts["other clock"] += 1
                start_s, end_s = now_s - duration_s, now_s
            self.counts["taken"] += 1
            end_s = self._emulated(start_s, end_s, items, slept_s)
            self._stream.put(start_s, end_s, items)
            return True

    def bound(self, bound_s: float) -> bool:
        """The application has another latency bound from now on; returns whether it was taken."""
        with self._lock:
            if not 0.0 < bound_s <= LONGEST_S:
                return self._dropped("implausible")
            if not self._allowed(time.perf_counter()):
                return self._dropped("flooded")
            self.counts["bound"] += 1
        self._bind(bound_s)
        return True

    def just_ended(self, duration_s: float, items: int = 1) -> bool:
        """One inference of this length has ended now."""
        now_s = time.perf_counter()
        return self.inference(now_s - duration_s, now_s, items)

    def batch(self, since_s: float, until_s: float, latencies_s: Sequence[float]) -> None:
        """So many inferences ended between two readings of a counter.

        Raises nothing: those beyond what is taken a second are thinned out evenly.
        """
        with self._lock:
            most = max(int(MOST_PER_S * (until_s - since_s)), 1)
            step = max(math.ceil(len(latencies_s) / most), 1)
            taken = latencies_s[::step]
            self.counts["flooded"] += len(latencies_s) - len(taken)
            each_s = (until_s - since_s) / max(len(taken), 1)
            for number, latency_s in enumerate(taken):
                if not self._plausible(latency_s, 1, 0.0):
                    self._dropped("implausible")
                    continue
                self.counts["taken"] += 1
                start_s = since_s + number * each_s
                end_s = self._emulated(start_s, start_s + latency_s, 1, 0.0)
                self._stream.put(start_s, end_s, 1, since_s)

    def _plausible(self, duration_s: float, items: int, slept_s: float) -> bool:
        return (
            SHORTEST_S <= duration_s <= LONGEST_S
            and 0 < items <= MOST_ITEMS
            and 0.0 <= slept_s <= duration_s - SHORTEST_S
        )

    def _allowed(self, now_s: float) -> bool:
        earned = (now_s - self._refilled_s) * MOST_PER_S
        self._allowance = min(self._allowance + earned, MOST_PER_S)
        self._refilled_s = now_s
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _dropped(self, outcome: str) -> bool:
        self.counts[outcome] += 1
        return False

    def _emulated(self, start_s: float, end_s: float, items: int, slept_s: float) -> float:
        """When it would have ended on the emulated board."""
        if self._shadow is None:
            return end_s
        worked_s = end_s - start_s - slept_s
        stretch_s = self._shadow.follow(start_s, end_s - slept_s, items)
        self.slowdown = 1.0 + stretch_s / worked_s
        return end_s if slept_s else end_s + stretch_s
