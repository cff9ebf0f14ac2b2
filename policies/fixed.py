"""One setting, whatever it costs: what a governed device is compared with."""

from __future__ import annotations

from governor.errors import InputError
from governor.space import OperatingPoint
from policies.measured import Measured
from policies.policy import Choice, Problem, Proposal


class FixedPolicy(Measured):
    """Holds the all-max corner, or the point it is given."""

    def __init__(self, problem: Problem, point: OperatingPoint | None = None) -> None:
        """Hold ``point``; None: the all-max corner.

        Raises:
            InputError: the point is not one of the allowed settings.
        """
        super().__init__(problem)
        self._point = problem.space.point(problem.space.fastest) if point is None else point
        if self._point not in problem.space:
            raise InputError(f"{self._point} is not an allowed setting; choose one that is")

    def ask(self) -> Proposal | None:
        """The fixed point once, so that it is known."""
        if self._point in self.trials:
            return None
        return Proposal(point=self._point, reason="fixed")

    def choose(self) -> Choice:
        """The fixed point; nothing is known of it before its trial."""
        trial = self.trials.get(self._point)
        if trial is None:
            return Choice(
                point=self._point,
                feasible=False,
                energy_j=float("inf"),
                latency_s=float("inf"),
                reason="fixed, not yet measured",
            )
        return Choice(
            point=self._point,
            feasible=self.problem.strain(trial) <= 1.0,
            energy_j=trial.energy_j,
            latency_s=trial.latency_s,
            reason="fixed",
        )
