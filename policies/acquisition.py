"""What a trial is worth: chance of keeping a bound, expected improvement, what it teaches."""

from __future__ import annotations

import numpy as np

from governor.space import FloatArray, IntArray
from policies.outlook import Outlook, normal_cdf

_ALL_BUT_SURE = 1.04
"""Standard deviations: a setting is safe enough to plan with at a probability of 0.85."""

_TINY = 1e-8

# Gauss-Hermite quadrature with three points for each of a trial's two readings.
_NODES = ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6))
_READINGS = [(np.array([a, b]), p * q) for a, p in _NODES for b, q in _NODES]


def expected_improvement(mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """By how much less than ``best`` each setting is expected to take, as a share of it.

    Jones, Schonlau, Welch: Efficient global optimization, J. Global Optimization 13, 1998;
    here on log cost, so that the improvement is relative.
    """
    z = (best - mean) / sd
    return sd * (z * normal_cdf(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def knowledge_gradient(
    outlook: Outlook,
    settings: IntArray,
    candidates: IntArray,
    noise: FloatArray,
    best: float,
) -> FloatArray:
    """How much better the best safe setting is expected to look after a trial elsewhere.

    What a trial teaches counts here, wherever it was made: of each candidate's possible
    readings of time and energy a few are drawn, and the least cost is looked up that would
    then be believed of a setting that keeps the bounds all but surely
    (Frazier, Powell, Dayanik: The knowledge-gradient policy, INFORMS J. Computing 21, 2009).

    Args:
        outlook: before the trial.
        settings: ``m`` rows that could turn out best.
        candidates: ``c`` rows that could be tried.
        noise: shape ``(2,)``: relative variance of a reading of each output.
        best: log cost of what would be held now.

    Returns:
        shape ``(c,)``: relative cost.
    """
    belief = outlook.belief
    own: FloatArray = np.einsum("oqcc->coq", belief.covariance(candidates, candidates))
    root = np.asarray(np.linalg.cholesky(own + np.diag(noise)), dtype=np.float64)
    # What one standard deviation of each independent part of a reading moves: (c, m, 2, 2).
    shared: FloatArray = np.einsum("oqmc->cmqo", belief.covariance(settings, candidates))
    moves = np.asarray(np.linalg.solve(root[:, None], shared), dtype=np.float64)
    moves = outlook.in_terms(settings, np.swapaxes(moves, -1, -2))
    mean, variance = outlook.mean[:, settings].T, outlook.sd[:-1, settings].T ** 2
    left = np.sqrt(np.maximum(variance - np.sum(moves[:, :, :-1] ** 2, axis=-1), _TINY))
    highest = outlook.log_limits[:, settings].T - _ALL_BUT_SURE * left
    total = np.zeros(len(candidates))
    for reading, weight in _READINGS:
        after = mean + moves @ reading
        keeps = np.all(after[:, :, :-1] <= highest, axis=-1)
        gain = np.where(keeps, best - after[:, :, -1], 0.0)
        total += weight * np.maximum(gain.max(axis=1), 0.0)
    return total
