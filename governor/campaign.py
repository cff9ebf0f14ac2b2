"""One search on a live board: what was found out, what is asked next, what is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from governor.errors import PolicyError
from governor.known import Known
from governor.objective import ENERGY, Objective
from governor.roofline.learnt import learnt
from governor.search import Search
from governor.space import OperatingPoint, Space
from governor.trial import Trial
from policies.policy import PolicyFactory, Problem, Proposal

MOST_ROUNDS = 4
"""So many chosen points that fail their second window, and the fastest is held."""
EXTRA_TRIALS = 4
"""What the search may still spend after the guard threw out the point it chose."""
TRIALS_FOR_ANOTHER_BOUND = 8
"""What it may still spend where the bound has changed: of the region that matters now, it may
know nothing yet. It mostly needs half of that."""


class Campaign:
    """A search with what was learnt outside it, too: points since found wanting.

    Attributes:
        fastest: the point to start from.
        known: what was found out so far.
        over: nothing more is asked of the policy but its choice.
    """

    def __init__(
        self,
        space: Space,
        policy_for: PolicyFactory,
        trials: int,
        seed: int,
        objective: Objective = ENERGY,
        fastest: OperatingPoint | None = None,
    ) -> None:
        """``fastest``: where that is not the highest setting of ``space``."""
        self.fastest = fastest or space.point(space.fastest)
        refuge = space.point(space.slowest) if objective.capped else self.fastest
        self.known = Known(refuge, objective=objective, sure=space.has_top)
        self.over = False
        self._space = space
        self._policy_for = policy_for
        self._trials = trials
        self._seed = seed
        self._objective = objective
        self._rounds = 0
        self._search: Search | None = None

    @property
    def begun(self) -> bool:
        """Whether the fastest point is known, so that a policy can be asked."""
        return self._search is not None

    def begin(self, slo_s: float, earlier: Sequence[Trial] = ()) -> None:
        """The fastest point was measured: from now on the bound is known.

        Args:
            earlier: trials of another workload on this board: what they teach of it is used.
        """
        self.known.slo_s = slo_s
        prior = learnt(self._space, earlier)
        problem = Problem(self._space, slo_s, self._seed, prior, self._objective)
        self._search = Search(problem, self._policy_for(problem), self._trials)
        self._search.next()

    def recall(self, trials: Sequence[Trial], more: int = EXTRA_TRIALS) -> None:
        """Learn from trials of an earlier search, and search on for at least so many."""
        for trial in trials:
            if trial.point in self._space:
                self.record(trial)
        if self._search is not None:
            self._search.budget = max(self._search.budget, len(self._search.trials) + more)

    def record(self, trial: Trial) -> None:
        """Learn from a trial."""
        self.known.add(trial)
        if self._search is not None:
            self._search.record(trial)

    def next(self) -> Proposal | None:
        """The next point to try; None when the search is over.

        Raises:
            NotReady: the policy is still thinking.
            PolicyError: it failed; the search is over.
        """
        if self._search is None or self.over:
            return None
        try:
            proposal = self._search.next()
        except PolicyError:
            self.over = True
            raise
        self.over = proposal is None
        return proposal

    def choose(self) -> Proposal:
        """The point to hold, why, and what is expected of it.

        Raises:
            NotReady: the policy is still thinking.
        """
        if self._rounds >= MOST_ROUNDS or self._search is None:
            point = self.known.last_resort()
            return Proposal(point=point, reason="no choice passed its second window")
        try:
            choice = self._search.choose()
        except PolicyError as error:
            return Proposal(point=self.known.best_point(), reason=str(error))
        if not choice.feasible or self.known.rejected(choice.point):
            reason = "nothing measured keeps the SLO"
            if self.known.best() is not None:
                reason = "the best that was measured to keep the SLO"
            return Proposal(point=self.known.best_point(), reason=reason)
        return Proposal(
            point=choice.point,
            expected_energy_j=choice.energy_j,
            reason=choice.reason or "the policy's choice",
        )

    def reject_choice(self, trial: Trial) -> None:
        """The chosen point failed its second window."""
        self.record(trial)
        self.known.reject(trial.point)
        self._rounds += 1

    def extend(self, trial: Trial) -> None:
        """Learn from a trial, and search on for a few more."""
        self.recall([trial])
        self.over = False
        self._rounds = 0
