"""What is believed of every setting, in the terms of a problem: its bounds, and its cost.

All of them are linear in log time and log energy, so what is believed of these two says what
is believed of the others, with errors that count how the two go together.
"""

from __future__ import annotations

import math

import numpy as np

from governor.space import FloatArray, IntArray
from policies.policy import Problem
from policies.power import Power
from policies.surrogate import ENERGY, TIME, Belief, Surrogate

_TINY = 1e-12


def normal_cdf(z: FloatArray) -> FloatArray:
    """The standard normal distribution function."""
    from scipy.special import ndtr

    return np.asarray(ndtr(z), dtype=np.float64)


def p_safe(mean: FloatArray, sd: FloatArray, log_limit: FloatArray | float) -> FloatArray:
    """The probability that the log of something is at most ``log_limit``: shape of ``mean``."""
    return normal_cdf((log_limit - mean) / sd)


class Outlook:
    """A belief as the problem has it: log latency, log power where it is capped, log cost.

    Attributes:
        belief: of log time and log energy.
        mean, sd: shape ``(k, n)``: of each bounded quantity, and last of the cost.
        log_limits: shape ``(k - 1, n)``: the bounds.
        safe: shape ``(n,)``: the probability of keeping them all.
    """

    def __init__(self, problem: Problem, belief: Belief, surrogate: Surrogate) -> None:
        """``belief`` is that of ``surrogate``, whose trials tell how power follows from it."""
        count, objective = len(problem.space), problem.objective
        log_slo = math.log(problem.slo_s) if math.isfinite(problem.slo_s) else math.inf
        limits = [belief.filling.log_bound(log_slo)]
        slopes: list[FloatArray] = [np.stack((np.ones(count), np.zeros(count)))]
        offsets: list[FloatArray] = [np.zeros(count)]
        if objective.capped:
            rows = np.array(surrogate.rows)
            power = Power.of(problem.space, surrogate.trials, rows, belief.mean[TIME])
            limits.append(np.full(count, math.log(objective.power_cap_w)))
            slopes.append(power.slopes)
            offsets.append(power.offset)
        slope, offset = _log_latency(belief)
        slopes.append(np.stack((objective.latency * slope, np.full(count, objective.energy))))
        offsets.append(objective.latency * offset)
        self.belief = belief
        self.log_limits: FloatArray = np.stack(limits)
        self._slopes: FloatArray = np.stack(slopes)
        time, energy = self._slopes[:, TIME], self._slopes[:, ENERGY]
        self.mean: FloatArray = time * belief.mean[TIME] + energy * belief.mean[ENERGY] + offsets
        variance = time**2 * belief.variance[TIME] + energy**2 * belief.variance[ENERGY]
        variance += 2.0 * time * energy * belief.shared
        self.sd: FloatArray = np.sqrt(np.maximum(variance, _TINY))
        self.safe = self.p_safe(self.mean)

    @property
    def cost(self) -> FloatArray:
        """Expected log cost, shape ``(n,)``."""
        return self.mean[-1]

    def p_safe(self, mean: FloatArray) -> FloatArray:
        """The probability of keeping all bounds, were ``mean``, ``(k, n)``, what is expected.

        As if one bound knew nothing of the other: seldom are both in doubt at one setting.
        """
        kept = p_safe(mean[:-1], self.sd[:-1], self.log_limits)
        return np.asarray(np.prod(kept, axis=0), dtype=np.float64)

    def in_terms(self, settings: IntArray, moves: FloatArray) -> FloatArray:
        """What moves log time and log energy moves these so much.

        Args:
            settings: ``m`` rows.
            moves: shape ``(..., m, 2, r)``.

        Returns:
            shape ``(..., m, k, r)``.
        """
        slopes = np.moveaxis(self._slopes[:, :, settings], -1, 0)
        return np.asarray(slopes @ moves, dtype=np.float64)


def _log_latency(belief: Belief) -> tuple[FloatArray, FloatArray]:
    """Log latency, the wait for a batch included, to first order in an inference's log time.

    Returns:
        slope and offset, each of shape ``(n,)``.
    """
    alone_s = np.exp(belief.mean[TIME])
    latency_s = alone_s + belief.filling.wait_s
    slope = alone_s / latency_s
    return slope, np.log(latency_s) - slope * belief.mean[TIME]
