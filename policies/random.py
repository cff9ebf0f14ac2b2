"""Settings drawn uniformly, none twice."""

from __future__ import annotations

import numpy as np

from governor.trial import Trial
from policies.measured import choose_measured
from policies.policy import Choice, Problem, Proposal


class RandomPolicy:
    """The least that any search must beat."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._order = np.random.default_rng(problem.seed).permutation(len(problem.space))
        self._next = 0
        self._trials: list[Trial] = []

    def ask(self) -> Proposal | None:
        """The next untried setting of a random order."""
        tried = {trial.point for trial in self._trials}
        while self._next < len(self._order):
            point = self._problem.space.point(int(self._order[self._next]))
            self._next += 1
            if point not in tried:
                return Proposal(point=point, reason="drawn at random")
        return None

    def tell(self, trial: Trial) -> None:
        """Remember the trial."""
        self._trials.append(trial)

    def choose(self) -> Choice:
        """The best measured."""
        return choose_measured(self._trials, self._problem.slo_s)
