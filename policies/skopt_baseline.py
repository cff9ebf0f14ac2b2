"""scikit-optimize's own loop, as its users write it: the honest peer of the default policy."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from governor.trial import Trial
from policies.measured import Measured
from policies.policy import Problem, Proposal

_PENALTY = 2.0
"""A missed bound costs this many times what all-max costs, and more the more it is missed."""

_INITIAL = 5
"""Points drawn at random first. Its default, 10, would leave two of 12 trials to the model."""


class SkoptPolicy(Measured):
    """``skopt.Optimizer`` over the knobs' levels, with a penalty for a missed bound.

    Everything but the penalty and the number of first points is scikit-optimize's default:
    Gaussian process, ``gp_hedge``. Both were chosen in its favour, among a few of each. Where
    it asks for a hole of the lattice or for a setting already tried, it gets the nearest other.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        space = problem.space
        # Column by column, the index of each setting's level: shape (n, k).
        self._levels = np.column_stack(
            [
                np.searchsorted(knob.levels, space.settings[:, column])
                for column, knob in enumerate(space.knobs)
            ]
        )
        self._extent = np.maximum(self._levels.max(axis=0), 1)
        self._untried = np.ones(len(space), dtype=np.bool_)
        self._scale: float | None = None
        self._optimizer = _optimizer(self._extent.tolist(), problem.seed)

    def ask(self) -> Proposal | None:
        """The untried setting nearest to what scikit-optimize asks for."""
        if not np.any(self._untried):
            return None
        with _quiet():
            wanted = np.asarray(self._optimizer.ask(), dtype=np.float64)
        distance = np.abs((self._levels - wanted) / self._extent).sum(axis=1)
        row = int(np.argmin(np.where(self._untried, distance, np.inf)))
        return Proposal(point=self.problem.space.point(row), reason="scikit-optimize asked")

    def tell(self, trial: Trial) -> None:
        """Pass the trial on as one number: its cost, or the penalty."""
        row = self.problem.space.index(self.remember(trial))
        self._untried[row] = False
        if self._scale is None:
            self._scale = self.problem.cost(trial)
        strain = self.problem.strain(trial)
        cost = self.problem.cost(trial) / self._scale if strain <= 1 else _PENALTY * strain
        with _quiet():
            self._optimizer.tell(self._levels[row].tolist(), cost)


def _optimizer(highest: list[int], seed: int) -> Any:
    from skopt import Optimizer
    from skopt.space import Integer

    with _quiet():
        return Optimizer(
            [Integer(0, top) for top in highest], random_state=seed, n_initial_points=_INITIAL
        )


@contextmanager
def _quiet() -> Generator[None]:
    """scikit-optimize warns of its own use of numpy and scikit-learn, not of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
