"""The latencies behind two readings of a counter or a histogram, as far as these tell."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

LEAST = 1e-3
"""Of a bucket's width: its lower edge belongs to the one below."""
MOST = 10_000
"""Of one reading; beyond it each latency stands for several."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an application has counted since it began.

    Attributes:
        count, sum_s: inferences, and seconds in all of them.
        buckets: by upper edge in s, inferences that took no longer; empty: none are kept.
    """

    count: float
    sum_s: float
    buckets: Mapping[float, float]

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number that no counter can reach, or no edge can be.
        """
        counted = (self.count, self.sum_s, *self.buckets.values())
        if not all(map(math.isfinite, counted)) or not all(edge >= 0.0 for edge in self.buckets):
            raise ValueError("a count that is not finite, or a bucket below 0")

    def since(self, before: Reading) -> Reading | None:
        """What was counted after ``before``; None where the application began anew."""
        if self.count < before.count or self.buckets.keys() != before.buckets.keys():
            return None
        counts = {edge: n - before.buckets[edge] for edge, n in self.buckets.items()}
        if self.sum_s < before.sum_s or any(n < 0 for n in counts.values()):
            return None
        return Reading(self.count - before.count, self.sum_s - before.sum_s, counts)


def latencies(reading: Reading, tail: float) -> list[float]:
    """Latencies in s that agree with the reading.

    With buckets: as many in each as were counted there, spread so that their sum is right, too.
    Without: all alike, ``tail`` times the mean: only a mean is known, and the percentile is
    taken to be so much above it.
    """
    count = round(reading.count)
    if count < 1 or not math.isfinite(reading.sum_s):
        return []
    if not reading.buckets:
        return [tail * reading.sum_s / reading.count] * min(count, MOST)
    bins = _bins(reading)
    if not bins[2]:
        return []
    least_s = sum(low * number for low, _, number in zip(*bins, strict=True))
    room_s = sum(width * number for _, width, number in zip(*bins, strict=True))
    share = min(max((reading.sum_s - least_s) / room_s, 0.02), 0.98)
    power = 1.0 / share - 1.0  # the mean of u**power over (0, 1) is the share
    scale = min(1.0, MOST / sum(bins[2]))
    found: list[float] = []
    for low, width, number in zip(*bins, strict=True):
        kept = max(round(number * scale), 1)
        places = (((place + 0.5) / kept) ** power for place in range(kept))
        found += [low + width * max(place, LEAST) for place in places]
    # in no order: the sample's order would look like a trend
    random.Random(0).shuffle(found)
    return found


def _bins(reading: Reading) -> tuple[list[float], list[float], list[float]]:
    """Lower edges, widths and counts of the buckets that have any."""
    lows: list[float] = []
    widths: list[float] = []
    counts: list[float] = []
    low, below = 0.0, 0.0
    for edge, cumulative in sorted(reading.buckets.items()):
        number = cumulative - below
        if number >= 0.5:
            # what is above the last edge is taken as twice that, or more where the sum says so
            high = edge if math.isfinite(edge) else max(2.0 * low, reading.sum_s / reading.count)
            lows.append(low)
            widths.append(max(high - low, 1e-9))
            counts.append(number)
        low, below = edge, cumulative
    return lows, widths, counts


class Edges:
    """The buckets' edges as they are learnt from the first reading."""

    def __init__(self) -> None:
        self._edges: list[float] = []

    def learn(self, reading: Reading) -> None:
        """These are the edges."""
        self._edges = sorted(reading.buckets)

    def around(self, latency_s: float) -> tuple[float, float]:
        """The edges in s of the bucket that a latency is in; the latency itself: no buckets."""
        if not self._edges:
            return latency_s, latency_s
        place = bisect_left(self._edges, latency_s)
        low = self._edges[place - 1] if place else 0.0
        high = self._edges[place] if place < len(self._edges) else math.inf
        return low, high if math.isfinite(high) else max(2.0 * low, latency_s)
