"""How many inferences took how long: a histogram with the latency bound as an edge."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

LADDER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Edges that every histogram has, whatever its SLO."""
AROUND = (0.8, 0.9, 1.1, 1.25)
"""Edges as multiples of the bound, where a percentile has to be told finely."""


@dataclass(frozen=True, slots=True)
class LatencyBuckets:
    """Inferences by latency.

    Attributes:
        edges_s: ascending; the bound itself is one of them as soon as it is known.
        counts: shape ``(len(edges_s) + 1,)``: above the edge before, up to and with its own; the
            last is of those above all edges.
        sum_s: of all latencies.
    """

    edges_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


class Latencies:
    """Counts inferences by latency.

    A relative bound is known only later, and may change with every search. What was counted
    by then cannot be told apart by the new edge, so the counts begin anew, which readers of
    counters take for what it is: a reset.
    """

    def __init__(self, slo_s: float) -> None:
        """``slo_s``: infinite while it is not yet known."""
        self._edges_s = edges(slo_s)
        self._counts = [0] * (len(self._edges_s) + 1)
        self._sum_s = 0.0

    def add(self, latency_s: float) -> None:
        """Count one inference."""
        self._counts[bisect_left(self._edges_s, latency_s)] += 1
        self._sum_s += latency_s

    def buckets(self) -> LatencyBuckets:
        """What was counted so far."""
        return LatencyBuckets(self._edges_s, tuple(self._counts), self._sum_s)


def edges(slo_s: float) -> tuple[float, ...]:
    """The edges for a bound, ascending; the ladder alone while it is infinite.

    >>> edges(0.04)[4:10]
    (0.025, 0.032, 0.036, 0.04, 0.044, 0.05)
    """
    if not math.isfinite(slo_s):
        return LADDER_S
    around = (float(f"{factor * slo_s:.4g}") for factor in AROUND)
    return tuple(sorted({*LADDER_S, *around, slo_s}))
