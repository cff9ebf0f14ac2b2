"""What a trial is worth: expected improvement, the chance of keeping the SLO, information."""

from __future__ import annotations

import numpy as np

from governor.space import FloatArray


def normal_cdf(z: FloatArray) -> FloatArray:
    """The standard normal distribution function."""
    from scipy.special import ndtr

    return np.asarray(ndtr(z), dtype=np.float64)


def p_safe(mean: FloatArray, sd: FloatArray, log_slo: float) -> FloatArray:
    """The probability that the log latency is at most ``log_slo``: shape of ``mean``."""
    return normal_cdf((log_slo - mean) / sd)


def expected_improvement(mean: FloatArray, sd: FloatArray, best: float) -> FloatArray:
    """By how much less than ``best`` each setting is expected to take, as a share of it.

    Jones, Schonlau, Welch: Efficient global optimization, J. Global Optimization 13, 1998;
    here on log energy, so that the improvement is relative.
    """
    z = (best - mean) / sd
    return sd * (z * normal_cdf(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def information(covariance: FloatArray, variance: FloatArray, noise: FloatArray) -> FloatArray:
    """How much variance a trial at each candidate takes off what matters.

    Both readings of a trial, time and energy, count, each on its own
    (Cohn, Ghahramani, Jordan: Active learning with statistical models, JAIR 4, 1996).

    Args:
        covariance: shape ``(2, 2, m, c)``: of the ``m`` settings that matter with the ``c``
            candidates, by output of either.
        variance: shape ``(2, c)``: of the candidates' outputs.
        noise: shape ``(2,)``: variance of a reading of each output.

    Returns:
        shape ``(m, c)``: the reduction, time's and energy's summed.
    """
    return np.sum(covariance**2 / (variance + noise[:, None])[None, :, None, :], axis=(0, 1))
