"""The latency bound, and the statistics of keeping it.

Latency is bursty: misses come in clusters, so ``n`` inferences say less than ``n``
independent draws would. Every statement here divides ``n`` by a design effect, the factor
by which autocorrelation inflates the variance of a mean (Kish, Survey Sampling, 1965).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from governor.errors import InputError
from governor.space import FloatArray
from governor.trial import Trial
from governor.units import Bound, Duration, parse_bound

BURST = 2.0
"""The least design effect assumed: a miss seldom comes quite alone."""

WANDER = 0.002
"""Relative standard error of a latency percentile that no amount of data removes.

The 95th percentiles of two halves of one 300-inference run differ by about this much
(jetson-latency-lab, Orin Nano, Apache-2.0).
"""


@dataclass(frozen=True, slots=True)
class LatencySLO:
    """So large a share of the inferences must take no longer than the bound.

    Attributes:
        percentile: that share, in (0, 1).
    """

    bound: Bound
    percentile: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.percentile < 1.0:
            raise InputError(
                f"percentile must be a share between 0 and 1 such as 0.95, got {self.percentile!r}"
            )

    @classmethod
    def parse(cls, latency: Duration, percentile: float = 0.95) -> LatencySLO:
        """From ``"50ms"``, ``0.05``, ``"20fps"``, a ``timedelta``, ``"1.3x"`` or ``"none"``.

        >>> str(LatencySLO.parse("50ms"))
        'p95 <= 50 ms'
        """
        return cls(parse_bound(latency), percentile)

    @property
    def unbounded(self) -> bool:
        """Whether any latency will do."""
        return math.isinf(self.bound.value)

    @property
    def budget(self) -> float:
        """The share of inferences that may miss the bound."""
        return 1.0 - self.percentile

    def __str__(self) -> str:
        if self.unbounded:
            return "any latency"
        return f"p{100 * self.percentile:g} <= {self.bound}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and one standard error, in the value's unit."""

    value: float
    se: float

    @property
    def relative_se(self) -> float:
        """The standard error over the value."""
        return self.se / self.value if self.value > 0 else math.inf


def design_effect(series: FloatArray) -> float:
    """By how much autocorrelation inflates the variance of the mean of ``series``: >= 1.

    ``1 + 2 * sum(rho)`` over the lags up to the first that is not positive (Geyer's initial
    sequence, Statistical Science 7, 1992), at most 30 lags. Shape of ``series``: ``(n,)``.
    """
    count = len(series)
    centred = series - series.mean() if count else series
    variance = float(centred @ centred)
    if count < 16 or variance <= 0:
        return 1.0
    total = 0.0
    for lag in range(1, min(count // 4, 30) + 1):
        correlation = float(centred[:-lag] @ centred[lag:]) / variance
        if correlation <= 0:
            break
        total += correlation
    return 1.0 + 2.0 * total


def mean_estimate(series: FloatArray) -> Estimate:
    """The mean of ``series``, shape ``(n > 0,)``, its error from the means of blocks.

    Block means (about ``sqrt(n)`` of them) see positive and negative autocorrelation alike:
    a camera's jitter cancels, a burst does not.
    """
    count = len(series)
    mean = float(series.mean())
    if count < 2:
        return Estimate(mean, abs(mean))
    if count < 12:
        return Estimate(mean, float(series.std(ddof=1)) / math.sqrt(count))
    blocks = math.isqrt(count)
    length = count // blocks
    newest = series[count - blocks * length :]
    means = np.add.reduceat(newest, np.arange(0, len(newest), length)) / length
    return Estimate(mean, float(means.std(ddof=1)) / math.sqrt(blocks))


def percentile_estimate(latencies_s: FloatArray, percentile: float) -> Estimate:
    """The latency at ``percentile``, shape ``(n > 0,)``, in s, from order statistics.

    The error is half the distance between the order statistics one standard deviation of
    the rank away on either side (Woodruff, JASA 47, 1952), with ``n`` over the design effect
    of the exceedances. Where the upper rank lies beyond the sample, as it does for a p95 of
    20 inferences, the tail is continued as an exponential above the median.
    """
    ordered = np.sort(latencies_s)
    count = len(ordered)
    value = _quantile(ordered, percentile)
    effect = max(BURST, design_effect((latencies_s > value).astype(np.float64)))
    spread = math.sqrt(percentile * (1.0 - percentile) * effect / count)
    low = _quantile(ordered, percentile - spread)
    high = _quantile(ordered, percentile + spread)
    return Estimate(value, max((high - low) / 2.0, high - value, WANDER * value))


def _quantile(ordered: FloatArray, share: float) -> float:
    """The quantile of sorted values; beyond the largest the tail is taken as exponential."""
    count = len(ordered)
    inside = 1.0 - 0.5 / count
    if share <= inside:
        rank = max(share, 0.0) * count - 0.5
        below = min(max(int(rank), 0), count - 1)
        above = min(below + 1, count - 1)
        part = min(max(rank - below, 0.0), 1.0)
        return float(ordered[below] + part * (ordered[above] - ordered[below]))
    upper = ordered[count // 2 :]
    scale = float(upper.mean() - ordered[count // 2])
    beyond = math.log((1.0 - inside) / max(1.0 - share, 0.05 / count))
    return float(ordered[-1]) + scale * beyond


def p_keeps(trial: Trial, slo_s: float) -> float:
    """The probability that the trial's percentile is at or below ``slo_s``, in [0, 1].

    Normal in the percentile's estimate. An unknown bound (infinite) is always kept.
    """
    if math.isinf(slo_s):
        return 1.0
    if trial.latency_se_s <= 0:
        return float(trial.latency_s <= slo_s)
    deviations = (slo_s - trial.latency_s) / trial.latency_se_s
    return 0.5 * math.erfc(-deviations / math.sqrt(2.0))


def plainly_over_budget(
    misses: int, inferences: int, budget: float, effect: float, alarm: float
) -> bool:
    """Whether so many misses cannot be chance while the true share is within ``budget``.

    Chernoff's bound: ``P(share >= q) <= exp(-n * KL(q || budget))`` with ``n`` the number
    of inferences over the design ``effect``; plain when that is under ``alarm``.
    """
    if not inferences or misses <= budget * inferences:
        return False
    share = misses / inferences
    divergence = share * math.log(share / budget)
    if share < 1.0:
        divergence += (1.0 - share) * math.log((1.0 - share) / (1.0 - budget))
    return inferences / effect * divergence > -math.log(alarm)


def confidence_of_keeping(misses: int, inferences: int, budget: float, effect: float) -> float:
    """The confidence that the true share of misses is within ``budget``, exact, one-sided.

    That is the chance of more misses than were seen, were the share just ``budget`` (Clopper,
    Pearson, Biometrika 26, 1934). Both counts are divided by the design ``effect``, misses
    rounded up and inferences down. So no miss in 59 single inferences gives 95 %, in 20 but 64 %:
    a short window says as much only by how far below the bound it lies, which
    :func:`p_keeps` takes into account.
    """
    seen, of = math.ceil(misses / effect), math.floor(inferences / effect)
    if seen >= of:
        return 0.0
    odds = math.log(budget / (1.0 - budget))
    log_chance = of * math.log1p(-budget)
    at_most = 0.0
    for count in range(seen + 1):
        at_most += math.exp(log_chance)
        log_chance += math.log((of - count) / (count + 1.0)) + odds
    return max(1.0 - at_most, 0.0)


SCALES = (10, 25, 50, 100, 400, 1600)
"""Numbers of most recent inferences the guard looks at: a short one sees a collapse within
a window, a long one a slow burn (the multi-window alerts of Google's SRE Workbook, ch. 5)."""
BLOCK = 100
LONG_SCALES = (6400, 25_600)
"""Longer ones, counted in blocks. At the longest, about 20 minutes of a 20 Hz loop, six misses
in a hundred are plainly over a budget of five: a burn rate of 1.2."""


SAVED_UP = 8.0
"""Misses that a search may spend in a row: a plain violation is left after three to six."""


class BurnGuard:
    """Watches the most recent inferences for an SLO whose budget burns.

    What it knows of the clustering of misses outlives :meth:`restart`, so that one burst
    at a safe point raises at most one false alarm.
    """

    def __init__(self, budget: float, alarm: float = 1e-6) -> None:
        """``alarm``: the chance of a false alarm that is accepted at one look."""
        self._budget = budget
        self._alarm = alarm
        self._missed: deque[bool] = deque(maxlen=SCALES[-1])
        self._blocks: deque[int] = deque(maxlen=LONG_SCALES[-1] // BLOCK)
        self._in_block = self._missed_in_block = 0
        self._fresh_miss = self._fresh_block = False
        self.effect = BURST

    def restart(self) -> None:
        """Forget the inferences so far: another operating point is in force."""
        self._learn_clustering(SCALES[1])
        self._missed.clear()
        self._blocks.clear()
        self._in_block = self._missed_in_block = 0
        self._fresh_miss = False

    def add(self, missed: Iterable[bool]) -> None:
        """Take note of inferences, in order: did they miss the bound?"""
        for miss in missed:
            self._missed.append(miss)
            self._fresh_miss |= miss
            self._in_block += 1
            self._missed_in_block += miss
            if self._in_block == BLOCK:
                self._blocks.append(self._missed_in_block)
                self._in_block = self._missed_in_block = 0
                self._fresh_block = True

    @property
    def burning(self) -> bool:
        """Whether the budget plainly burns, on any of the scales."""
        if not self._fresh_miss:
            return False
        self._fresh_miss = False
        if any(
            plainly_over_budget(misses, inferences, self._budget, self.effect, self._alarm)
            for misses, inferences in self._counts()
        ):
            return True
        if self._fresh_block:  # often enough
            self._fresh_block = False
            self._learn_clustering(SCALES[3])
        return False

    @property
    def burn_rate(self) -> float:
        """The share of misses over the budget, as far back as is looked; NaN: nothing yet."""
        misses, inferences = self._longest
        return misses / inferences / self._budget if inferences else math.nan

    @property
    def confidence(self) -> float:
        """That the share of misses at this operating point is within the budget, in [0, 1]."""
        return confidence_of_keeping(*self._longest, self._budget, self.effect)

    @property
    def _longest(self) -> tuple[int, int]:
        return list(self._counts())[-1]

    def _counts(self) -> Iterator[tuple[int, int]]:
        """Misses and inferences on each of the scales that there are enough of."""
        newest_first = list(reversed(self._missed))
        for scale in SCALES:
            recent = newest_first[:scale]
            yield sum(recent), len(recent)
            if len(recent) < scale:
                return
        blocks_first = list(reversed(self._blocks))
        for scale in LONG_SCALES:
            blocks = blocks_first[: scale // BLOCK]
            yield self._missed_in_block + sum(blocks), self._in_block + BLOCK * len(blocks)
            if len(blocks) < scale // BLOCK:
                return

    def _learn_clustering(self, newest: int) -> None:
        """From what came before the newest inferences: a collapse must not excuse itself.

        Nor must a slow one, of which some inferences miss: what counts is how misses cluster
        around the mean of their block.
        """
        count = max(len(self._missed) - newest, 0) // BLOCK * BLOCK
        settled = np.fromiter(islice(self._missed, count), dtype=np.float64).reshape(-1, BLOCK)
        if settled.any():
            within = settled - settled.mean(axis=1, keepdims=True)
            self.effect = min(max(BURST, design_effect(within.ravel())), 4 * BURST)


class SearchBudget:
    """The misses that a search may spend, and must earn back before it risks more.

    Each inference earns ``budget`` misses, as the SLO allows; what is saved up is bounded, so
    that a long quiet time buys no long violation.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self.restart()

    def restart(self) -> None:
        """Begin with all that can be saved up."""
        self._left = SAVED_UP

    def add(self, missed: Sequence[bool]) -> None:
        """Take note of inferences: did they miss the bound?"""
        self._left = min(self._left + self._budget * len(missed) - sum(missed), SAVED_UP)

    @property
    def overspent(self) -> bool:
        """Whether more was missed than was allowed."""
        return self._left < 0.0
