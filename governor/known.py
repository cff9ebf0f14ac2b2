"""What one search has found out about its operating points."""

from __future__ import annotations

import math

from governor.objective import ENERGY, Objective
from governor.space import OperatingPoint
from governor.trial import Trial
from policies.policy import STOP_BELOW

WANTED = 0.8
"""The probability of keeping the bounds that a point needs to be called safe, or to be held."""
LATENCY_TOLERANCE = 0.02
ENERGY_TOLERANCE = 0.04
"""Relative changes under these are no change: the optimum is flat, and boards warm up."""
PLAINLY = 2.0
"""Errors by which a choice is plainly cheaper or dearer than the system's own governors."""
MOST_LOOKS = 3
"""Longer looks at a choice and at the system's own governors, in turn, before what is undecided
is decided by what is more likely."""
LEAST_ERROR = 0.002
"""No pair of looks is trusted beyond this share of the cost."""


class Known:
    """Trials, and points since found wanting.

    Attributes:
        refuge: the point to go to when nothing else is known: the fastest, or under a power cap
            that of least power.
        refuge_sure: whether nothing tried can be better; not under a power cap, nor where the
            fastest is only a guess.
        slo_s: the bound in seconds.
    """

    def __init__(
        self,
        refuge: OperatingPoint,
        slo_s: float = math.inf,
        objective: Objective = ENERGY,
        sure: bool = True,
    ) -> None:
        """``sure``: whether the refuge, without a power cap, is known to be the fastest."""
        self.refuge = refuge
        self.refuge_sure = sure and not objective.capped
        self.slo_s = slo_s
        self._objective = objective
        self._trials: list[Trial] = []
        self._rejected: set[OperatingPoint | None] = set()
        self._gains: dict[OperatingPoint | None, list[tuple[float, float]]] = {}

    @property
    def trials(self) -> tuple[Trial, ...]:
        """In order; the first is at the fastest point."""
        return tuple(self._trials)

    def add(self, trial: Trial) -> None:
        """Take note of a trial at a point."""
        self._trials.append(trial)

    def reject(self, point: OperatingPoint | None) -> None:
        """This point did not keep what it promised; the refuge is never rejected.

        None: the system's own governors did not.
        """
        if point != self.refuge:
            self._rejected.add(point)

    def rejected(self, point: OperatingPoint | None) -> bool:
        """Whether the point, or None, the system's own governors, was found wanting."""
        return point in self._rejected

    def keeps(self, trial: Trial) -> bool:
        """Whether the trial rather kept the bounds than not."""
        return trial.clean and self.p_keeps(trial) >= 0.5

    def p_keeps(self, trial: Trial) -> float:
        """The probability that the trial kept the bounds."""
        return self._objective.p_keeps(trial, self.slo_s)

    def _safe(self) -> list[Trial]:
        return [
            trial
            for trial in self._trials
            if trial.point not in self._rejected and self.p_keeps(trial) >= WANTED
        ]

    def _within_cap(self) -> list[Trial]:
        """Of a power cap and an SLO that are not kept together, the cap is the harder one; all
        points tried, where there is no cap."""
        latest = {trial.point: trial for trial in self._trials}
        return [one for one in latest.values() if self._objective.p_keeps_cap(one) >= WANTED]

    def weigh(self, trial: Trial, baseline: Trial) -> bool | None:
        """Take note of two windows, at a choice and, before it, under the system's own governors.

        Returns:
            whether the choice is more worth holding, by all such pairs so far; None: too close to
            tell, so that both are worth a longer look.
        """
        if self.rejected(None) or self.p_keeps(baseline) < WANTED:
            return True
        if self.p_keeps(trial) < WANTED:
            return False
        pairs = self._gains.setdefault(trial.point, [])
        pairs.append(self._gain(trial, baseline))
        weights = [error**-2.0 for _, error in pairs]
        error = sum(weights) ** -0.5
        gain = sum(weight * one for weight, (one, _) in zip(weights, pairs, strict=True)) * error**2
        if gain > PLAINLY * error:
            return True
        if gain + PLAINLY * error < STOP_BELOW:
            return False
        return None if len(pairs) <= MOST_LOOKS else gain > error

    def _gain(self, trial: Trial, baseline: Trial) -> tuple[float, float]:
        """The share of the baseline's cost that the trial saves, and its standard error."""
        cost, error = self._objective.cost, self._objective.cost_error
        before = cost(baseline)
        spread = math.hypot(error(trial), error(baseline)) / before
        return 1.0 - cost(trial) / before, max(spread, LEAST_ERROR)

    def best(self) -> Trial | None:
        """Of the safe trials the one of least cost."""
        return min(self._safe(), key=self._objective.cost, default=None)

    def best_point(self) -> OperatingPoint:
        """The safe point of least cost; where none is safe, the one to fall back to."""
        best = self.best()
        return best.point if best is not None and best.point is not None else self.last_resort()

    def safest_point(self) -> OperatingPoint:
        """Of the safe points the one farthest from the bounds."""
        return self._farthest(self._safe()) or self.last_resort()

    def last_resort(self) -> OperatingPoint:
        """Where to go when no point is safe."""
        if self.refuge_sure:
            return self.refuge
        return self._farthest(self._within_cap()) or self.refuge

    def _farthest(self, trials: list[Trial]) -> OperatingPoint | None:
        farthest = min(trials, key=self._strain, default=None)
        return None if farthest is None else farthest.point

    def _strain(self, trial: Trial) -> float:
        return self._objective.strain(trial, self.slo_s)

    def changed(self, trial: Trial) -> bool:
        """Whether the same point once gave figures that this trial plainly contradicts."""
        before = next((t for t in reversed(self._trials) if t.point == trial.point), None)
        return before is None or contradicts(trial, before)


def contradicts(now: Trial, before: Trial) -> bool:
    """Whether two trials at one point are plainly of different workloads."""
    latency, latency_se = latency_change(now, before)
    energy, energy_se = energy_change(now, before)
    return (
        abs(latency) > LATENCY_TOLERANCE + 3.0 * latency_se
        or abs(energy) > ENERGY_TOLERANCE + 3.0 * energy_se
    )


def distance(now: Trial, before: Trial) -> float:
    """How far apart two trials at one point are; 1: as far as either tolerance."""
    return math.hypot(
        latency_change(now, before)[0] / LATENCY_TOLERANCE,
        energy_change(now, before)[0] / ENERGY_TOLERANCE,
    )


def latency_change(now: Trial, before: Trial) -> tuple[float, float]:
    """``ln`` of the ratio of mean latencies, and its standard error."""
    return math.log(now.mean_latency_s / before.mean_latency_s), math.hypot(
        now.mean_latency_se_s / now.mean_latency_s,
        before.mean_latency_se_s / before.mean_latency_s,
    )


def energy_change(now: Trial, before: Trial) -> tuple[float, float]:
    """``ln`` of the ratio of energies an item, and its standard error."""
    return math.log(now.energy_j / before.energy_j), math.hypot(
        now.energy_se_j / now.energy_j, before.energy_se_j / before.energy_j
    )
