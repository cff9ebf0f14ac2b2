"""What a trial is worth: chance of keeping the SLO, expected improvement, what it teaches."""

from __future__ import annotations

import numpy as np

from governor.space import FloatArray, IntArray
from policies.surrogate import ENERGY, TIME, Belief

_ALL_BUT_SURE = 1.04
"""Standard deviations: a setting is safe enough to plan with at a probability of 0.85."""

_TINY = 1e-8

# Gauss-Hermite quadrature with three points for each of a trial's two readings.
_NODES = ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6))
_READINGS = [(np.array([a, b]), p * q) for a, p in _NODES for b, q in _NODES]


def normal_cdf(z: FloatArray) -> FloatArray:
    """The standard normal distribution function."""
    from scipy.special import ndtr

    return np.asarray(ndtr(z), dtype=np.float64)


def p_safe(mean: FloatArray, sd: FloatArray, log_slo: FloatArray | float) -> FloatArray:
    """The probability that the log latency is at most ``log_slo``: shape of ``mean``."""
    return normal_cdf((log_slo - mean) / sd)


def expected_improvement(mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """By how much less than ``best`` each setting is expected to take, as a share of it.

    Jones, Schonlau, Welch: Efficient global optimization, J. Global Optimization 13, 1998;
    here on log energy, so that the improvement is relative.
    """
    z = (best - mean) / sd
    return sd * (z * normal_cdf(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def knowledge_gradient(
    belief: Belief,
    settings: IntArray,
    candidates: IntArray,
    noise: FloatArray,
    log_slo: FloatArray | float,
    best: float,
) -> FloatArray:
    """How much better the best safe setting is expected to look after a trial elsewhere.

    What a trial teaches counts here, wherever it was made: of each candidate's possible
    readings of time and energy a few are drawn, and the least energy is looked up that would
    then be believed of a setting that keeps the SLO all but surely
    (Frazier, Powell, Dayanik: The knowledge-gradient policy, INFORMS J. Computing 21, 2009).

    Args:
        belief: before the trial.
        settings: ``m`` rows that could turn out best.
        candidates: ``c`` rows that could be tried.
        noise: shape ``(2,)``: relative variance of a reading of each output.
        log_slo: bound on the log latency; of each of ``settings``, or one for all.
        best: log energy of what would be held now.

    Returns:
        shape ``(c,)``: relative energy.
    """
    own: FloatArray = np.einsum("oqcc->coq", belief.covariance(candidates, candidates))
    root = np.asarray(np.linalg.cholesky(own + np.diag(noise)), dtype=np.float64)
    # What one standard deviation of each independent part of a reading moves: (c, m, 2, 2).
    shared: FloatArray = np.einsum("oqmc->cmqo", belief.covariance(settings, candidates))
    moves = np.asarray(np.linalg.solve(root[:, None], shared), dtype=np.float64)
    moves = np.swapaxes(moves, -1, -2)
    mean, variance = belief.mean[:, settings].T, belief.sd[TIME, settings] ** 2
    left = np.sqrt(np.maximum(variance - np.sum(moves[:, :, TIME] ** 2, axis=-1), _TINY))
    slowest = log_slo - _ALL_BUT_SURE * left
    total = np.zeros(len(candidates))
    for reading, weight in _READINGS:
        after = mean + moves @ reading
        gain = np.where(after[:, :, TIME] <= slowest, best - after[:, :, ENERGY], 0.0)
        total += weight * np.maximum(gain.max(axis=1), 0.0)
    return total
