"""Coordinate descent: one knob at a time, downhill in energy, within the SLO as measured."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from governor.space import Knob, OperatingPoint
from governor.trial import Trial
from policies.measured import Measured, rank
from policies.policy import Problem, Proposal

_FIRST_STEP = 1 / 3
"""Share of a knob's levels. Nearer to the optimum after 12 trials than a quarter or a half."""


class CoordinatePolicy(Measured):
    """Walks from the all-max corner in steps that halve once no knob's step helps."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._wanted = self._walk()

    def ask(self) -> Proposal | None:
        """The next step to try; None in a local optimum."""
        point = next(self._wanted, None)
        return None if point is None else Proposal(point=point, reason="one knob, one step")

    def _walk(self) -> Iterator[OperatingPoint]:
        """The points to measure, in turn, each of them until its trial is told."""
        space, slo_s = self.problem.space, self.problem.slo_s
        here = space.point(space.fastest)
        best = yield from self._measured(here)
        share = _FIRST_STEP
        while True:
            steps = [max(1, int(share * len(knob.levels))) for knob in space.knobs]
            improved = False
            for knob, step in zip(space.knobs, steps, strict=True):
                for by in (-step, step):
                    while (there := self._moved(here, knob, by)) is not None:
                        trial = yield from self._measured(there)
                        if rank(trial, slo_s) >= rank(best, slo_s):
                            break
                        here, best, improved = there, trial, True
            if not improved and max(steps) == 1:
                return
            if not improved:
                share /= 2

    def _measured(self, point: OperatingPoint) -> Generator[OperatingPoint, None, Trial]:
        while point not in self.trials:
            yield point
        return self.trials[point]

    def _moved(self, point: OperatingPoint, knob: Knob, by: int) -> OperatingPoint | None:
        """``point`` with one knob moved by so many levels, or to its end; None: no such one."""
        level = knob.levels.index(point[knob.name]) + by
        level = min(max(level, 0), len(knob.levels) - 1)
        there = OperatingPoint({**point, knob.name: knob.levels[level]})
        return there if there != point and there in self.problem.space else None
