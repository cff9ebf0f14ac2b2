"""Every setting in turn."""

from __future__ import annotations

from policies.measured import Measured
from policies.policy import Problem, Proposal


class ExhaustivePolicy(Measured):
    """Goes through the lattice in its own order; holds the best measured."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._untried = map(problem.space.point, range(len(problem.space)))

    def ask(self) -> Proposal | None:
        """The next setting of the lattice; None after the last."""
        for point in self._untried:
            if point not in self.trials:
                return Proposal(point=point, reason="next of all settings")
        return None
