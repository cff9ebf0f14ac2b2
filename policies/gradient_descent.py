"""Gradient descent over the power modes, as Fulcrum searches them.

Fulcrum (Prashanthi et al.: Fulcrum: optimizing concurrent DNN training and inferencing on edge
accelerators, arXiv 2509.20205) descends over cores, clocks and batch size at once and profiles
15 modes. Its aim is throughput within a power budget; here it is energy within a latency bound.
What its abstract leaves open is filled in the plainest way: the slope along each knob is the
difference to a neighbour, the steps halve where no neighbour is better.
"""

from __future__ import annotations

import math

from governor.space import OperatingPoint
from governor.trial import Trial
from policies.walk import Steps, Walk

_MODES = 15
"""What Fulcrum's search profiles; the all-max corner comes on top."""

_FIRST_STEP = 1 / 4
"""Share of a knob's levels: from the middle half-way to its end."""


class GradientDescentPolicy(Walk):
    """Starts in the middle of every knob and follows the steepest slope."""

    reason = "the slope along one knob"

    def walk(self) -> Steps:
        """Ends in a local optimum, or after as many modes as Fulcrum profiles."""
        space = self.problem.space
        yield from self.measured(space.point(space.fastest))
        here = self._middle()
        trial = yield from self.measured(here)
        share = _FIRST_STEP
        while share * max(len(knob.levels) for knob in space.knobs) >= 1:
            better: list[tuple[float, OperatingPoint, Trial]] = []
            # Too slow: some knob must go up. Fast enough: some knob may go down.
            sign = 1 if self._too_slow(trial) else -1
            for knob in space.knobs:
                by = sign * max(1, round(share * len(knob.levels)))
                there = self.moved(here, knob, by)
                if there is None:
                    continue
                if len(self.trials) > _MODES:
                    return
                tried = yield from self.measured(there)
                if (slope := self._slope(trial, tried)) > 0:
                    better.append((slope, there, tried))
            if better:
                _, here, trial = max(better, key=lambda step: step[0])
            else:
                share /= 2

    def _middle(self) -> OperatingPoint:
        """The setting nearest to the middle of every knob, the faster of two that are as near.

        A lattice may have holes.
        """
        space = self.problem.space

        def distance(row: int) -> tuple[float, float]:
            point = space.point(row)
            places = [
                knob.levels.index(point[knob.name]) / max(len(knob.levels) - 1, 1)
                for knob in space.knobs
            ]
            return round(sum(abs(place - 0.5) for place in places), 9), -sum(places)

        return space.point(min(range(len(space)), key=distance))

    def _too_slow(self, trial: Trial) -> bool:
        return trial.latency_s > self.problem.slo_s

    def _slope(self, here: Trial, there: Trial) -> float:
        """How much better a neighbour is, for what it costs; not above 0: it is no better."""
        dearer = math.log(self.problem.cost(there) / self.problem.cost(here))
        if self._too_slow(here):
            # Speed is wanted, and what it costs is the price.
            return math.log(here.latency_s / there.latency_s) / max(dearer, 1e-3)
        strain, strain_there = self.problem.strain(here), self.problem.strain(there)
        if strain > 1.0:
            return math.log(strain / strain_there)
        return 0.0 if strain_there > 1.0 else -dearer
