"""The default policy: constrained Bayesian optimisation seeded by the roofline.

First two trials that tell most about the settings that could be best, both all but surely
within the SLO; then expected improvement in energy times the chance of keeping the SLO. The
chances of missing it are kept within an allowance for the whole search, so that risk is
taken where it pays and given back where it turned out well.
"""

from __future__ import annotations

import math

import numpy as np

from governor.space import BoolArray, FloatArray, IntArray
from governor.trial import Trial
from policies.acquisition import expected_improvement, information, p_safe
from policies.policy import Choice, Problem, Proposal
from policies.surrogate import ENERGY, TIME, Belief, Surrogate

_PROFILE_TRIALS = 2
_PROFILE_RISK = 0.1
"""Chance of missing the SLO that a trial for information alone may run."""
_MATTER = 200
"""Settings that count as candidates for the optimum while profiling."""
_CANDIDATES = 120
"""Settings that are weighed for their information; drawn at random from more."""

_MISS_COST = 0.02
"""A trial that misses the SLO counts as much as so much relative energy."""
_RISK_ALLOWANCE = (1.0, 0.03)
"""Chances of a miss, summed over the trials: at the start, and more with each trial."""
_RISK_RANGE = (0.03, 0.4)
"""The chance of a miss that one trial may run, whatever the allowance."""

_HOLD_SAFE = 0.75
"""The held point keeps the SLO with at least this probability; where several do, ..."""
_HOLD_MISS_COST = 0.2
"""... each per cent of doubt must save so many per cent of energy (here: 0.2)."""


class BayesianPolicy:
    """Asked and told; see :class:`policies.policy.Policy`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._surrogate = Surrogate(problem.space)
        self._log_slo = math.log(problem.slo_s) if math.isfinite(problem.slo_s) else math.inf
        self._random = np.random.default_rng(problem.seed)
        self._belief: Belief | None = None

    def tell(self, trial: Trial) -> None:
        """Learn from a trial."""
        self._surrogate.tell(trial)
        self._belief = None

    def choose(self) -> Choice:
        """The tried point of least expected energy among those that all but surely keep the SLO."""
        belief, safe = self._state()
        row = self._hold(belief, safe)
        feasible = bool(safe[row] >= 0.5)
        return Choice(
            point=self.problem.space.point(row),
            feasible=feasible,
            energy_j=math.exp(belief.mean[ENERGY, row]),
            latency_s=math.exp(belief.mean[TIME, row]),
            reason=f"keeps the SLO with probability {safe[row]:.2f}",
        )

    def ask(self) -> Proposal | None:
        """The untried point that is worth most within the risk allowed."""
        belief, safe = self._state()
        tried = self._tried()
        if np.all(tried):
            return None
        best = float(belief.mean[ENERGY, self._hold(belief, safe)])
        gain = expected_improvement(belief.mean[ENERGY], belief.sd[ENERGY], best)
        if len(self._surrogate.rows) <= _PROFILE_TRIALS:
            candidates = np.flatnonzero(~tried & (safe >= 1 - _PROFILE_RISK))
            if len(candidates):
                row = self._most_informative(belief, safe, best, candidates)
                return self._proposal(belief, safe, gain, row, "tells most about the rest")
        risk = np.where(tried, 1.0, 1 - safe)
        candidates = np.flatnonzero(risk <= self._risk_allowed(safe, tried))
        if not len(candidates):
            # Nothing new is safe enough: look again at the tried point that could still win.
            row = int(np.argmax(np.where(tried, gain * safe, -1)))
            return self._proposal(belief, safe, gain, row, "measured again to be surer of it")
        value = gain * safe - _MISS_COST * (1 - safe)
        row = int(candidates[np.argmax(value[candidates])])
        return self._proposal(belief, safe, gain, row, "most expected improvement")

    def _state(self) -> tuple[Belief, FloatArray]:
        if self._belief is None:
            self._belief = self._surrogate.believe()
        belief = self._belief
        return belief, p_safe(belief.mean[TIME], belief.sd[TIME], self._log_slo)

    def _tried(self) -> BoolArray:
        tried = np.zeros(len(self.problem.space), dtype=np.bool_)
        tried[self._surrogate.rows] = True
        return tried

    def _hold(self, belief: Belief, safe: FloatArray) -> int:
        """The row to hold: tried, safe, and of least expected energy."""
        tried = np.flatnonzero(self._tried())
        sure = tried[safe[tried] >= _HOLD_SAFE]
        if not len(sure):
            return int(tried[np.argmax(safe[tried])])
        cost = belief.mean[ENERGY, sure] + _HOLD_MISS_COST * (1 - safe[sure])
        return int(sure[np.argmin(cost)])

    def _risk_allowed(self, safe: FloatArray, tried: BoolArray) -> float:
        """The chance of a miss that the next trial may run."""
        start, more = _RISK_ALLOWANCE
        left = start + more * len(self._surrogate.rows) - float(np.sum(1 - safe[tried]))
        return min(max(left, _RISK_RANGE[0]), _RISK_RANGE[1])

    def _most_informative(
        self, belief: Belief, safe: FloatArray, best: float, candidates: IntArray
    ) -> int:
        """The candidate that says most about the settings that may turn out best."""
        could_save = np.maximum(best - belief.mean[ENERGY] + belief.sd[ENERGY], 0)
        could_keep = p_safe(belief.mean[TIME] - belief.sd[TIME], belief.sd[TIME], self._log_slo)
        hope = could_save * could_keep
        matter = np.argsort(-hope)[:_MATTER]
        if len(candidates) > _CANDIDATES:
            candidates = self._random.choice(candidates, _CANDIDATES, replace=False)
        gained = information(
            belief.covariance(matter, candidates),
            belief.sd[:, candidates] ** 2,
            self._surrogate.typical_noise(),
        )
        return int(candidates[np.argmax(hope[matter] @ gained)])

    def _proposal(
        self, belief: Belief, safe: FloatArray, gain: FloatArray, row: int, reason: str
    ) -> Proposal:
        profiling = len(self._surrogate.rows) <= _PROFILE_TRIALS
        return Proposal(
            point=self.problem.space.point(row),
            purpose="profile" if profiling else "search",
            expected_energy_j=math.exp(belief.mean[ENERGY, row]),
            expected_latency_s=math.exp(belief.mean[TIME, row]),
            p_safe=float(safe[row]),
            improvement=float(np.max(gain * safe)),
            reason=reason,
        )
