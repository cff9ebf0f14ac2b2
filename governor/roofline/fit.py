"""Fits the time and energy roofline to trials: a Bayesian fit of non-negative coefficients.

Coefficients are positive by being logs. Their prior is weak and holds for any board and
network, unless the board or the network is known; a trial at the all-max corner sets the
scale of both time and energy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from governor.roofline.energy import ENERGY_PARAMETERS, log_energy
from governor.roofline.time import TIME_PARAMETERS, batch_growth, log_time
from governor.space import FloatArray
from governor.trial import Trial

PARAMETERS = (*TIME_PARAMETERS, *ENERGY_PARAMETERS, "time_scale", "energy_scale")

# Mean and standard deviation, board-wide and weak: a factor of two either way for most.
# Where the floor ends and how far voltage rises follow the public tables and curves of
# Jetson Nano and TX2 (published-figures: floor at 56 to 58 % of the largest clock).
_WEAK: dict[str, tuple[float, float]] = {
    "compute": (-1.4, 0.9),
    "launch": (-1.1, 1.0),
    "memory": (-1.0, 1.0),
    "fixed": (-2.3, 0.8),
    "overlap": (-0.2, 1.0),
    "gpu_bandwidth": (0.2, 0.3),
    "per_batch": (-1.5, 2.0),
    "static": (-1.6, 0.5),
    "emc_power": (-2.4, 0.6),
    "emc_exponent": (1.1, 0.8),
    "core_power": (-4.5, 1.0),
    "cpu_power": (-3.3, 0.9),
    "gpu_power": (-2.4, 0.8),
    "gpu_work": (-0.2, 0.5),
    "cpu_work": (-3.0, 0.9),
    "gpu_floor": (0.0, 0.5),
    "gpu_voltage": (-1.7, 0.5),
    "cpu_floor": (0.0, 0.7),
    "cpu_voltage": (-1.0, 0.6),
    "idle_clocks": (-1.0, 1.0),
    "time_scale": (0.0, 1.0),
    "energy_scale": (0.0, 3.0),
}


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed of the coefficients before any trial.

    Attributes:
        mean, sd: shape ``(p,)``, in the order of ``PARAMETERS``.
        root: shape ``(p, p)``: of their covariance, which is ``root @ root.T``; None: each is
            believed for itself.
    """

    mean: FloatArray
    sd: FloatArray
    root: FloatArray | None = None

    @property
    def spread(self) -> FloatArray:
        """What independent deviations of one each add up to, shape ``(p, p)``."""
        return np.diag(self.sd) if self.root is None else self.root

    @property
    def weak(self) -> bool:
        """Whether it is no other than :data:`WEAK`, or a copy from another process."""
        same = np.array_equal(self.mean, WEAK.mean) and np.array_equal(self.sd, WEAK.sd)
        return same and self.root is None


WEAK = Prior(
    mean=np.array([_WEAK[name][0] for name in PARAMETERS]),
    sd=np.array([_WEAK[name][1] for name in PARAMETERS]),
)
"""Where neither the board nor the network is known."""

_MIN_NOISE = 1e-3
"""Relative. No trial is taken for more exact than this: no two windows are the same."""

_N_TIME = len(TIME_PARAMETERS)
_N_ENERGY = len(ENERGY_PARAMETERS)
_ITERATIONS = 30
_LARGEST_STEP = 1.5
_TOLERANCE = 1e-3
_DAMPING_STEPS: FloatArray = np.array([0.25, 1.0, 4.0, 16.0, 64.0, 256.0])

_Residuals = Callable[[FloatArray], FloatArray]


def log_readings(trial: Trial) -> tuple[float, float]:
    """A trial as the model sees it: log seconds at the SLO's percentile, log joules an item."""
    return float(np.log(trial.latency_s)), float(np.log(trial.energy_j))


def relative_noise(trial: Trial) -> tuple[float, float]:
    """One standard error of each of :func:`log_readings`."""
    return (
        max(trial.latency_se_s / trial.latency_s, _MIN_NOISE),
        max(trial.energy_se_j / trial.energy_j, _MIN_NOISE),
    )


def predict(parameters: FloatArray, inputs: FloatArray) -> FloatArray:
    """Log time and log energy of the roofline.

    Args:
        parameters: shape ``(k, p)``, in the order of ``PARAMETERS``.
        inputs: shape ``(n, 6)``, from :func:`governor.roofline.knobs.model_inputs`.

    Returns:
        shape ``(k, 2, n)``: first time, then energy, in the logs of the trials' units.
    """
    # Most parameter vectors of a derivative share their time: each time is computed once.
    distinct, which = np.unique(parameters[:, :_N_TIME], axis=0, return_inverse=True)
    time = log_time(distinct, inputs)[which.ravel()]
    growth = batch_growth(parameters[:, :_N_TIME], inputs)
    energy = log_energy(parameters[:, _N_TIME : _N_TIME + _N_ENERGY], time, growth, inputs)
    scales = parameters[:, _N_TIME + _N_ENERGY :, None]
    return np.stack((time, energy), axis=1) + scales


def tangent(
    parameters: FloatArray, inputs: FloatArray, prior: Prior = WEAK
) -> tuple[FloatArray, FloatArray]:
    """The prediction at one parameter vector and its derivatives there.

    Args:
        parameters: shape ``(p,)``: where.
        inputs: shape ``(n, 6)``.

    Returns:
        shapes ``(2, n)`` and ``(2, n, p)``; derivatives are per standard deviation of the
        prior, along the columns of its ``spread``.
    """
    step = 1e-3
    moved = np.vstack((parameters, parameters + step * prior.spread.T))
    values = predict(moved, inputs)
    return values[0], np.moveaxis(values[1:] - values[0], 0, -1) / step


@dataclass(frozen=True, slots=True)
class Observations:
    """Trials as the fit sees them, ``n`` of them.

    Attributes:
        inputs: shape ``(n, 6)``.
        log_values: shape ``(2, n)``: log time and log energy.
        covariance: shape ``(2, n, n)``: of what is measured around the roofline, that is
            measurement noise and what the physics misses.
    """

    inputs: FloatArray
    log_values: FloatArray
    covariance: FloatArray


def fit(
    observations: Observations, start: FloatArray | None = None, prior: Prior = WEAK
) -> FloatArray:
    """The most probable parameters, shape ``(p,)``: Levenberg-Marquardt on the log posterior.

    Args:
        observations: what was measured.
        start: where to begin besides the prior's mean, such as the last fit.
        prior: what was believed before.
    """
    whiten = np.linalg.inv(np.linalg.cholesky(observations.covariance))
    scale = np.linalg.inv(prior.spread).T

    def residuals(parameters: FloatArray) -> FloatArray:
        missed = predict(parameters, observations.inputs) - observations.log_values
        data = (whiten @ missed[..., None]).reshape(len(parameters), -1)
        return np.hstack((data, (parameters - prior.mean) @ scale))

    starts = [prior.mean] if start is None else [start, prior.mean]
    fits = [_minimise(residuals, start) for start in starts]
    return min(fits, key=lambda found: found[0])[1]


def _solve(matrices: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.solve(matrices, right), dtype=np.float64)


def _minimise(residuals: _Residuals, start: FloatArray) -> tuple[float, FloatArray]:
    """The least sum of squares found from ``start``, and where."""
    parameters, damping = start, 1e-2
    value = residuals(parameters[None])[0]
    cost = float(value @ value)
    identity: FloatArray = np.eye(len(parameters))
    step = 1e-4 * identity
    for _ in range(_ITERATIONS):
        jacobian = ((residuals(parameters + step) - value) / 1e-4).T
        hessian, gradient = jacobian.T @ jacobian, jacobian.T @ value
        dampings = damping * _DAMPING_STEPS
        damped: FloatArray = hessian + dampings[:, None, None] * (hessian * identity)
        moves = _solve(damped, -gradient[:, None])
        tries = parameters + np.clip(moves[..., 0], -_LARGEST_STEP, _LARGEST_STEP)
        values = residuals(tries)
        costs = np.einsum("ki,ki->k", values, values)
        best = int(np.argmin(costs))
        if not costs[best] < cost:
            break
        gain = cost - float(costs[best])
        parameters, value, cost = tries[best], values[best], float(costs[best])
        damping = max(float(dampings[best]) / 2, 1e-7)
        if gain < _TOLERANCE:
            break
    return cost, parameters
