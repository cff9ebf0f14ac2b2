"""For policies that walk over the lattice: the next step depends on what the last one gave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator

from governor.space import Knob, OperatingPoint
from governor.trial import Trial
from policies.measured import Measured
from policies.policy import Problem, Proposal

Steps = Generator[OperatingPoint, None, None]
"""The points to measure, in turn, each of them until its trial is told."""


class Walk(Measured, ABC):
    """Follows :meth:`walk`; holds the best measured."""

    reason = "the next step"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._steps = self.walk()

    @abstractmethod
    def walk(self) -> Steps:
        """Where to go, written as one story: ``trial = yield from self.measured(point)``."""

    def ask(self) -> Proposal | None:
        """The next step to try; None where the walk ends."""
        point = next(self._steps, None)
        return None if point is None else Proposal(point=point, reason=self.reason)

    def measured(self, point: OperatingPoint) -> Generator[OperatingPoint, None, Trial]:
        """The trial at a point; one already told costs nothing."""
        while point not in self.trials:
            yield point
        return self.trials[point]

    def moved(self, here: OperatingPoint, knob: Knob, by: int) -> OperatingPoint | None:
        """``here`` with one knob moved by so many levels, or to its end; None: no such one."""
        level = knob.levels.index(here[knob.name]) + by
        level = min(max(level, 0), len(knob.levels) - 1)
        there = OperatingPoint({**here, knob.name: knob.levels[level]})
        return there if there != here and there in self.problem.space else None
