"""Settings drawn uniformly, none twice: the least that any search must beat."""

from __future__ import annotations

import numpy as np

from policies.measured import Measured
from policies.policy import Problem, Proposal


class RandomPolicy(Measured):
    """Goes through the lattice in a random order; holds the best measured."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        rows = np.random.default_rng(problem.seed).permutation(len(problem.space))
        self._untried = (problem.space.point(row) for row in rows.tolist())

    def ask(self) -> Proposal | None:
        """The next setting of the random order; None after the last."""
        for point in self._untried:
            if point not in self.trials:
                return Proposal(point=point, reason="drawn at random")
        return None
