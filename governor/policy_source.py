"""Where a governor's policies come from: one for each search, told what is known before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from governor.errors import InputError
from governor.roofline.fit import Prior
from governor.roofline.work import Work
from governor.search_worker import SearchWorker
from governor.space import Space
from policies.policy import Policy, PolicyFactory, Problem, check_policy_name, load_policy


class PolicySource:
    """Makes the policy of each search from what the user has given.

    Attributes:
        name: of the policy, for people.
        worker: the child process that policies run in; None: they run in this one.
    """

    def __init__(self, policy: str | Policy | PolicyFactory) -> None:
        """``policy``: a name, a callable that makes one of a Problem, or a policy object.

        Raises:
            InputError: it is none of these.
        """
        self.name = policy if isinstance(policy, str) else _name_of(policy)
        self.worker: SearchWorker | None = None
        self._named = isinstance(policy, str)
        self._is_one_object = _is_object(policy)
        self._make = _factory_of(policy)
        self._prior_in: Callable[[Space], Prior] | None = None

    def in_child(self) -> None:
        """From now on a policy that was given by its name runs in a process of its own."""
        if self._named:
            self.worker = SearchWorker(self.name)
            self._make = self.worker.policy_for

    def seed(self, space: Space, model: Work | str | Path | None, board: str | Path) -> None:
        """From now on a search starts from what the roofline predicts for a model on a board.

        Raises:
            InputError: either cannot be used.
        """
        from governor.roofline.prior import seeding  # only who seeds pays for it

        self._prior_in = seeding(model, board)
        self._prior_in(space)  # now, and not in the control loop

    def start(self) -> None:
        """Searches are about to begin."""
        if self.worker is not None:
            self.worker.start()

    def rest(self) -> None:
        """Nothing is asked for a while; a child that is needed again is started again."""
        if self.worker is not None:
            self.worker.rest()

    def check_may_change(self, what: str) -> None:
        """Whether a search may be for another ``what``, such as a bound, than the one before.

        Raises:
            InputError: the policy is one object, which knows of no problem but its own.
        """
        if self._is_one_object:
            raise InputError(
                f"{what} cannot change under the policy object {self.name}, which would not be "
                "told; give its class, or a callable that makes a policy of a Problem"
            )

    def __call__(self, problem: Problem) -> Policy:
        """The policy for one search."""
        # what earlier trials taught is worth more than what was to be expected
        if self._prior_in is not None and problem.prior.weak:
            problem = replace(problem, prior=self._prior_in(problem.space))
        return self._make(problem)


def _factory_of(policy: str | Policy | PolicyFactory) -> PolicyFactory:
    if isinstance(policy, str):
        check_policy_name(policy)
        return lambda problem: load_policy(policy)(problem)  # imported when it is needed
    if _is_object(policy):
        return lambda _problem: policy
    if not callable(policy):
        raise InputError(f"policy {policy!r} is no name, no policy and no callable")
    return policy


def _is_object(policy: object) -> TypeGuard[Policy]:
    """A class has these methods, too, but is asked for an object first."""
    return hasattr(policy, "ask") and not isinstance(policy, type)


def _name_of(policy: object) -> str:
    return getattr(policy, "__name__", type(policy).__name__)
