"""For policies without a model: the best setting is the best one that was measured."""

from __future__ import annotations

from governor.errors import PolicyError
from governor.space import OperatingPoint
from governor.trial import Trial
from policies.policy import Choice, Problem


def rank(trial: Trial, problem: Problem) -> tuple[bool, float]:
    """Sorts trials, best first: those that kept the bounds by cost, then by how far they missed."""
    strain = problem.strain(trial)
    return strain > 1.0, strain if strain > 1.0 else problem.cost(trial)


class Measured:
    """What was measured so far, the latest trial of each point.

    Attributes:
        problem: what is searched.
        trials: by their points, in the order of the points' first trials.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.trials: dict[OperatingPoint, Trial] = {}

    def tell(self, trial: Trial) -> None:
        """Remember the trial."""
        self.remember(trial)

    def remember(self, trial: Trial) -> OperatingPoint:
        """Keep the trial; returns its point.

        Raises:
            PolicyError: it has no operating point.
        """
        if trial.point is None:
            raise PolicyError("a policy was told a trial without an operating point")
        self.trials[trial.point] = trial
        return trial.point

    def choose(self) -> Choice:
        """The best measured point. Needs at least one trial."""
        point, best = min(self.trials.items(), key=lambda item: rank(item[1], self.problem))
        return Choice(
            point=point,
            feasible=self.problem.strain(best) <= 1.0,
            energy_j=best.energy_j,
            latency_s=best.latency_s,
            reason="best measured",
        )
