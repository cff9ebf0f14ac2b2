"""Two Gaussian processes and the hypervolume they promise, as BoFL searches clocks.

BoFL (Guo et al.: BoFL: Bayesian optimized local training pace control for energy efficient
federated learning, Middleware 2022) models time and energy by a Gaussian process each, without
physics. It starts with settings spread over the space, then measures batches of those that
are expected to add most to the hypervolume behind the Pareto front of time and energy. Here
time counts up to the bound only, which serves it better: its own bound is another each round.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from governor.space import BoolArray, FloatArray
from governor.trial import Trial
from policies.acquisition import normal_cdf
from policies.measured import Measured
from policies.policy import Problem, Proposal

_START_SHARE = 0.01
"""Of all settings, tried before the first model, spread by a Sobol sequence."""
_FEWEST_STARTS = 4

_BATCH = 4
"""Settings a batch. BoFL fills one training round with each, and so has no fixed number."""

_STOP_SHARE, _STOP_GROWTH = 0.03, 0.01
"""Once so many of all settings were tried, a batch must let the hypervolume grow by so much.
BoFL's published runs observed 65 to 71 settings of 2,436, and 30 to 60 of 936."""


class GpEhviPolicy(Measured):
    """Holds the best measured."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        levels = [np.unique(column, return_inverse=True)[1] for column in problem.space.settings.T]
        places = np.stack(levels, axis=1).astype(np.float64)
        self._places: FloatArray = places / np.maximum(places.max(axis=0), 1)
        self._readings: list[tuple[int, float, float]] = []
        self._queue = self._starts()
        self._volume = 0.0

    def tell(self, trial: Trial) -> None:
        """Remember the trial."""
        row = self.problem.space.index(self.remember(trial))
        self._readings.append((row, trial.latency_s, trial.energy_j))

    def ask(self) -> Proposal | None:
        """The next of the batch; None once batches add no more."""
        untried = self._untried()
        self._queue = [row for row in self._queue if untried[row]]
        if not self._queue:
            self._queue = self._batch(untried)
        if not self._queue:
            return None
        return Proposal(point=self.problem.space.point(self._queue[0]), reason="one of a batch")

    def _untried(self) -> BoolArray:
        untried = np.ones(len(self._places), dtype=np.bool_)
        untried[[row for row, _, _ in self._readings]] = False
        return untried

    def _starts(self) -> list[int]:
        """The settings nearest to the points of a Sobol sequence."""
        from scipy.stats.qmc import Sobol

        count = max(_FEWEST_STARTS, round(_START_SHARE * len(self._places)))
        # Typed loosely: newer releases of SciPy call the seed rng.
        sobol: Any = Sobol
        sequence = sobol(self._places.shape[1], seed=self.problem.seed)
        with warnings.catch_warnings():
            # It is balanced only at powers of two, which is not what it is used for.
            warnings.simplefilter("ignore")
            spread = np.asarray(sequence.random(count), dtype=np.float64)
        distance = np.abs(self._places[None] - spread[:, None]).sum(axis=2)
        return list(dict.fromkeys(np.argmin(distance, axis=1).tolist()))

    def _batch(self, untried: BoolArray) -> list[int]:
        """The next settings, each chosen as if those before it had come out as expected."""
        rows = [row for row, _, _ in self._readings]
        readings = np.array([reading[1:] for reading in self._readings])
        worst = readings.max(axis=0)
        worst[0] = min(worst[0], self.problem.slo_s)
        volume = hypervolume(readings / worst)
        grown = volume - self._volume
        if len(rows) >= _STOP_SHARE * len(untried) and grown < _STOP_GROWTH * volume:
            return []
        self._volume = volume
        processes = [_process(self._places[rows], column) for column in readings.T]
        chosen: list[int] = []
        while len(chosen) < _BATCH and np.any(untried):
            predicted = [process.predict(self._places, return_std=True) for process in processes]
            mean = np.stack([np.asarray(one[0]) for one in predicted])
            sd = np.stack([np.maximum(np.asarray(one[1]), 1e-12) for one in predicted])
            value = expected_hypervolume_improvement(mean, sd, readings, worst)
            row = int(np.argmax(np.where(untried, value, -1)))
            untried[row] = False
            chosen.append(row)
            rows.append(row)
            readings = np.vstack((readings, mean[:, row]))
            for process, column in zip(processes, readings.T, strict=True):
                _refit(process, self._places[rows], column)
        return chosen


def pareto_front(points: FloatArray) -> FloatArray:
    """Those of the points, shape ``(n, 2)``, that none beats in both; ascending in the first."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    least_before = np.minimum.accumulate(np.append(np.inf, ordered[:, 1]))[:-1]
    return ordered[ordered[:, 1] < least_before]


def hypervolume(points: FloatArray) -> float:
    """The area that points of shape ``(n, 2)``, to be minimised, dominate within (1, 1)."""
    front = pareto_front(points[np.all(points < 1, axis=1)])
    widths = np.diff(np.append(front[:, 0], 1.0))
    return float(widths @ (1.0 - front[:, 1]))


def expected_hypervolume_improvement(
    mean: FloatArray, sd: FloatArray, points: FloatArray, worst: FloatArray
) -> FloatArray:
    """By how much a new point is expected to add to the area that ``points`` dominate. Exact.

    The front cuts the area into strips of the first output; the second one's improvement in
    each is independent of where in it the first one falls
    (Emmerich, Deutz, Klinkenberg: Hypervolume-based expected improvement, CEC 2011).

    Args:
        mean, sd: shape ``(2, n)``, of the two outputs, to be minimised, at ``n`` settings.
        points: shape ``(t, 2)``.
        worst: shape ``(2,)``, the corner up to which area counts.

    Returns:
        shape ``(n,)``.
    """
    front = pareto_front(points[np.all(points < worst, axis=1)])
    rights = np.append(front[:, 0], worst[0])
    ceilings = np.append(worst[1], front[:, 1])
    reached = _expected_shortfall(rights[:, None], mean[0], sd[0])
    widths = np.diff(reached, axis=0, prepend=0.0)
    return np.sum(widths * _expected_shortfall(ceilings[:, None], mean[1], sd[1]), axis=0)


def _expected_shortfall(limit: FloatArray, mean: FloatArray, sd: FloatArray) -> FloatArray:
    """E[max(limit - Y, 0)] of a normal Y."""
    z = (limit - mean) / sd
    return (limit - mean) * normal_cdf(z) + sd * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


def _process(places: FloatArray, values: FloatArray) -> Any:
    """A Gaussian process with a Matern 5/2 kernel, fitted with its hyperparameters."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    columns = places.shape[1]
    matern: Any = Matern
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * matern(np.ones(columns), (0.1, 10.0), nu=2.5)
    process: Any = GaussianProcessRegressor(
        kernel + WhiteKernel(1e-3, (1e-6, 1e-1)), normalize_y=True
    )
    with warnings.catch_warnings():
        # That a length lies at its limit is common with a few points, and no fault.
        warnings.simplefilter("ignore")
        process.fit(places, values)
    return process


def _refit(process: Any, places: FloatArray, values: FloatArray) -> None:
    """Take in new values under the hyperparameters already found."""
    process.set_params(kernel=process.kernel_, optimizer=None)
    process.fit(places, values)
