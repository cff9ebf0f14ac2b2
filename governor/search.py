"""One search: the all-max corner first, then what the policy asks for, until it is enough."""

from __future__ import annotations

from governor.errors import PolicyError
from governor.trial import Trial
from policies.policy import STOP_BELOW, Choice, Policy, Problem, Proposal


class Search:
    """Drives a policy through its trial budget. No I/O, no clock.

    Attributes:
        trials: what was recorded so far, in order.
    """

    def __init__(self, problem: Problem, policy: Policy, budget: int = 12) -> None:
        self.problem = problem
        self.budget = budget
        self.trials: list[Trial] = []
        self._policy = policy

    def next(self) -> Proposal | None:
        """The next point to try; None when the search is over.

        Raises:
            PolicyError: the policy asked for a point that is not in the space.
        """
        space = self.problem.space
        if len(self.trials) >= self.budget:
            return None
        if not self.trials:
            return Proposal(
                point=space.point(space.fastest), purpose="profile", reason="all-max corner first"
            )
        proposal = self._policy.ask()
        if proposal is None or proposal.improvement < STOP_BELOW:
            return None
        if proposal.point not in space:
            raise PolicyError(f"the policy asked for {proposal.point}, which is not allowed here")
        return proposal

    def record(self, trial: Trial) -> None:
        """Learn from a trial at a point of the space."""
        self.trials.append(trial)
        self._policy.tell(trial)

    def choose(self) -> Choice:
        """The point to hold with what is known now."""
        return self._policy.choose()
