"""The default policy: constrained Bayesian optimisation seeded by the roofline.

A trial is worth what it is expected to gain itself (expected improvement in cost times the
chance of keeping the bounds) and what it teaches about all other settings (knowledge gradient).
The chances of missing a bound are kept within an allowance for the whole search, so that
risk is taken where it pays and given back where it turned out well.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from governor.space import BoolArray, FloatArray, IntArray, Space
from governor.trial import Trial
from policies.acquisition import expected_improvement, knowledge_gradient
from policies.arrivals import BATCH_SIZE
from policies.outlook import Outlook
from policies.policy import STOP_BELOW, Choice, Problem, Proposal
from policies.surrogate import ENERGY, Surrogate

_PROFILE_TRIALS = 2
"""After all-max; so many trials are there to learn the coefficients, and run less risk."""
_PROFILE_RISK = 0.1

_LESSON_WEIGHT = 0.25
"""What a trial teaches counts less than what it gains: only a later trial can cash it in."""
_CONTENDERS = 200
"""Settings whose chance to turn out best is weighed."""
_CANDIDATES = 60
"""Trials whose lesson is weighed: half of them of highest gain, half drawn at random."""

_MISS_COST = 0.02
"""A trial that misses a bound counts as much as so much relative cost."""
_RISK_ALLOWANCE = (1.0, 0.03)
"""Chances of a miss, summed over the trials: at the start, and more with each trial."""
_RISK_RANGE = (0.03, 0.4)
"""The chance of a miss that one trial may run, whatever the allowance."""
_BEYOND_RISK = 0.8
"""The same below everything tried, where the model has only the physics' word for it; each
knob is asked once a level, at the very end of a search, and a miss is left at once."""

_HOLD_SAFE = 0.75
"""The held point keeps the bounds with at least this probability; where several do, ..."""
_HOLD_SAFE_CAPPED = 0.85
"""The same under a power cap: there the best points crowd at the bound, and the one that looks
best of several is likelier to be past it."""
_HOPELESS = 0.05
"""Nothing tried keeps the SLO, and nothing else will, if all do with less probability."""
_FAIR = 0.5
"""Under a power cap a new point that keeps the bounds with this probability is worth a trial."""
_LEAST_GAIN = 0.02
"""Relative cost. A knob alone is gone on with while it promises so much."""
_HOLD_MISS_COST = 0.2
"""... each per cent of doubt must save so many per cent of the cost (here: 0.2)."""

_LOOKS = 3
"""At one setting, before a new one that is almost as safe as can be is tried instead."""

_COARSE_STEP = 0.03
"""Levels of a knob that lie closer, relatively, wait until the wider lattice is searched."""
_COARSE_GAIN = STOP_BELOW / 10
"""Until it promises less than that."""


def coarse_lattice(space: Space) -> BoolArray:
    """Which settings to search first: of a fine grid of clocks, levels well apart.

    What a level deviates from the model by, its neighbours all but share: on a grid of
    1 % steps a search that took each for a chance of its own would try one after the other.
    Most steps of Jetson's clocks are wider, and all of those levels are kept.

    Returns:
        shape ``(n,)``; the highest level of each knob is always among them.
    """
    coarse = np.ones(len(space), dtype=np.bool_)
    for column in space.settings.T:
        levels = np.unique(column)[::-1]
        kept = [levels[0]]
        for level in levels[1:]:
            if level <= (1 - _COARSE_STEP) * kept[-1]:
                kept.append(level)
        coarse &= np.isin(column, kept)
    return coarse


class BayesianPolicy:
    """Asked and told; see :class:`policies.policy.Policy`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._surrogate = Surrogate(problem.space, problem.prior, problem.background)
        self._random = np.random.default_rng(problem.seed)
        self._outlook: Outlook | None = None
        columns = [np.unique(values, return_inverse=True)[1] for values in problem.space.settings.T]
        self._levels: IntArray = np.stack(columns, axis=1)
        self._coarse = coarse_lattice(problem.space)

    def tell(self, trial: Trial) -> None:
        """Learn from a trial."""
        self._surrogate.tell(trial)
        self._outlook = None

    def choose(self) -> Choice:
        """The tried point of least expected cost of those that all but surely keep the bounds."""
        outlook = self._look()
        row, belief = self._hold(outlook), outlook.belief
        p_safe = float(outlook.safe[row])
        bounds = "SLO and power cap" if self.problem.objective.capped else "the SLO"
        return Choice(
            point=self.problem.space.point(row),
            feasible=p_safe >= 0.5,
            energy_j=math.exp(belief.mean[ENERGY, row]),
            latency_s=belief.latency_s(row),
            reason=f"keeps {bounds} with probability {p_safe:.2f}",
        )

    def ask(self) -> Proposal | None:
        """The point whose trial is worth most within the risk allowed."""
        outlook, tried = self._look(), self._tried()
        safe = outlook.safe
        if np.all(tried):
            return None
        if (larger := self._larger_batch(safe, tried)) is not None:
            return self._proposal(outlook, larger, math.inf, "what a larger batch costs")
        hold, capped = self._hold(outlook), self.problem.objective.capped
        if capped and (row := self._one_knob_alone(outlook, tried, hold)) is not None:
            return self._proposal(outlook, row, math.inf, "one knob alone, for the power cap")
        if safe[hold] < 0.5 and (capped or not self.problem.space.has_top):
            row = self._within_bounds(outlook, tried)
            reason = "to come under the power cap" if capped else "to come within the SLO"
            hopeless = safe[row] < _HOPELESS and not capped
            return None if hopeless else self._proposal(outlook, row, math.inf, reason)
        best = float(outlook.cost[hold])
        gain = safe * expected_improvement(outlook.cost, outlook.sd[-1], best)
        allowed = ~tried & (1 - safe <= self._risk_allowed(safe))
        wide = allowed & self._coarse
        promising = np.max(gain, initial=0.0, where=wide) >= _COARSE_GAIN
        candidates = np.flatnonzero(wide if promising else allowed)
        if not len(candidates) and capped:
            candidates = np.flatnonzero(~tried & (safe >= _FAIR))
        if not len(candidates):
            candidates = np.flatnonzero(~tried & (1 - safe <= _PROFILE_RISK))
            looks = _LOOKS if len(candidates) else None
            if (again := self._another_look(outlook, tried, gain, hold, looks)) is not None:
                return again
        proposal = self._worthiest(outlook, candidates, best, gain)
        if proposal.improvement >= STOP_BELOW:
            return proposal
        # Before the search ends: where a clock was never below the one to hold, all that is
        # known of lower ones is the roofline's extrapolation, and that errs by several of its
        # own standard deviations where a network is bound by less than its prior says.
        beyond = np.flatnonzero(self._beyond(hold, tried) & (1 - safe <= _BEYOND_RISK))
        if not len(beyond):
            return proposal
        proposal = self._worthiest(outlook, beyond, best, gain)
        return replace(proposal, improvement=math.inf, reason="lower than was ever tried")

    def _another_look(
        self, outlook: Outlook, tried: BoolArray, gain: FloatArray, hold: int, looks: int | None
    ) -> Proposal | None:
        """Where nothing new is safe enough: at what could still win, or is held in doubt.

        At the very bound no look settles it, and one new setting at a little risk is better
        than a fourth: None, where ``looks`` each are enough and have been taken.
        """
        worth = np.where(tried, gain, 0.0)
        worth[hold] += _HOLD_MISS_COST * (1 - outlook.safe[hold])
        if looks is not None:
            worth[np.bincount(self._surrogate.rows, minlength=len(tried)) >= looks] = 0.0
            if worth.max() < STOP_BELOW:
                return None
        # Each look earns allowance: what that may come to allow is worth going on for.
        later = np.max(gain, where=1 - outlook.safe <= _RISK_RANGE[1], initial=0.0)
        improvement = max(float(worth.max()), float(later))
        return self._proposal(outlook, int(np.argmax(worth)), improvement, "to be surer of it")

    def _worthiest(
        self, outlook: Outlook, rows: IntArray, best: float, gain: FloatArray
    ) -> Proposal:
        """Of these rows the one whose trial is worth most."""
        candidates = self._shortlist(rows, gain)
        lesson = knowledge_gradient(
            outlook,
            self._contenders(outlook, best),
            candidates,
            self._surrogate.typical_noise(),
            best,
        )
        risk = _MISS_COST * (1 - outlook.safe[candidates])
        worth = gain[candidates] + _LESSON_WEIGHT * lesson - risk
        chosen = int(np.argmax(worth))
        row, taught = int(candidates[chosen]), float(lesson[chosen])
        reason = "for what it teaches" if taught > gain[row] else "for what it may save"
        improvement = max(float(gain.max()), float(lesson.max()))
        return self._proposal(outlook, row, improvement, reason)

    def _one_knob_alone(self, outlook: Outlook, tried: BoolArray, hold: int) -> int | None:
        """The best of what differs from all-max in one knob, that which saves power cheapest.

        Only as the first trials under a cap, and of the same knob. What lies far from all-max
        in every knob looks better, and is where the model errs most: a sweep in which some
        clocks do not do what they say misleads it there for the whole search.
        """
        lowered = self._levels != self._levels[self.problem.space.fastest]
        so_far = lowered[tried].any(axis=0)
        if so_far.sum() > 1:
            return None
        alone = lowered.sum(axis=1) == 1
        if so_far.any():
            alone &= lowered[:, so_far].any(axis=1)
        kept = outlook.safe[hold] >= _FAIR
        worth = float(outlook.cost[hold]) - _LEAST_GAIN if kept else math.inf
        fair = ~tried & (outlook.safe >= _FAIR) & (outlook.cost < worth)
        rows = np.flatnonzero(alone & fair)
        return int(rows[np.argmin(outlook.cost[rows])]) if len(rows) else None

    def _within_bounds(self, outlook: Outlook, tried: BoolArray) -> int:
        """The best that is as good as sure to keep the bounds; the surest, where none is.

        A search begins at the fastest setting, whatever power that takes; where none has every
        clock at its highest, at a guess of the fastest.
        """
        other = ~tried
        if self.problem.objective.capped:
            far = other & ~self._near_misses(outlook.safe)
            other = far if np.any(far) else other
        sure = np.flatnonzero(other & (1 - outlook.safe <= _PROFILE_RISK))
        if not len(sure):
            return int(np.argmax(np.where(other, outlook.safe, -1)))
        return int(sure[np.argmin(outlook.cost[sure])])

    def _near_misses(self, safe: FloatArray) -> BoolArray:
        """The settings that differ in one knob only from one that was tried and missed a bound.

        Where two knobs together do not do what each says, the model, which has a term for each,
        would find the next best there again and again. All-max misses a power cap by design.
        """
        rows = np.array(self._surrogate.rows[1:], dtype=np.intp)
        missed = self._levels[rows[safe[rows] < 0.5]]
        common = (self._levels[:, None] == missed).sum(axis=-1)
        return np.any(common >= self._levels.shape[1] - 1, axis=1)

    def _larger_batch(self, safe: FloatArray, tried: BoolArray) -> int | None:
        """The next batch size at the fastest clocks, where only trying it tells what it costs.

        Where launches dominate, 64 items take as long as one, and no trial of smaller batches
        shows it. Within a narrow bound such a batch never looks safe enough, and the knowledge
        is worth the one trial that at the worst misses the SLO.
        """
        space = self.problem.space
        if BATCH_SIZE not in space.names or not self.problem.objective.energy:
            return None
        column = space.names.index(BATCH_SIZE)
        largest = int(self._levels[tried, column].max())
        here = self._at_fastest_clocks(column, largest)
        there = self._at_fastest_clocks(column, largest + 1)
        if here is None or there is None or not tried[here] or safe[here] < _HOLD_SAFE:
            return None
        return there if safe[there] < 1.0 - _RISK_RANGE[1] else None

    def _at_fastest_clocks(self, column: int, level: int) -> int | None:
        """The row with this level of one knob, and of all others those of the fastest setting."""
        wanted = self._levels[self.problem.space.fastest].copy()
        wanted[column] = level
        rows = np.flatnonzero((self._levels == wanted).all(axis=1))
        return int(rows[0]) if len(rows) else None

    def _beyond(self, hold: int, tried: BoolArray) -> BoolArray:
        """The settings one level below all that was tried of a knob, where ``hold`` is lowest."""
        lowest = self._levels[tried].min(axis=0)
        untested = self._levels[hold] == lowest
        return np.any(untested & (self._levels == lowest - 1), axis=1)

    def _look(self) -> Outlook:
        if self._outlook is None:
            belief = self._surrogate.believe()
            self._outlook = Outlook(self.problem, belief, self._surrogate)
        return self._outlook

    def _tried(self) -> BoolArray:
        tried = np.zeros(len(self.problem.space), dtype=np.bool_)
        tried[self._surrogate.rows] = True
        return tried

    def _hold(self, outlook: Outlook) -> int:
        """The row to hold: tried, safe, and of least expected cost."""
        tried, safe = np.flatnonzero(self._tried()), outlook.safe
        enough = _HOLD_SAFE_CAPPED if self.problem.objective.capped else _HOLD_SAFE
        sure = tried[safe[tried] >= enough]
        if not len(sure):
            return int(tried[np.argmax(safe[tried])])
        cost = outlook.cost[sure] + _HOLD_MISS_COST * (1 - safe[sure])
        return int(sure[np.argmin(cost)])

    def _risk_allowed(self, safe: FloatArray) -> float:
        """The chance of a miss that the next trial may run."""
        if self._profiling:
            return _PROFILE_RISK
        start, more = _RISK_ALLOWANCE
        rows = self._surrogate.rows
        # All-max may miss a power cap, and so may what comes before the first that keeps it.
        first = next((k for k, row in enumerate(rows) if safe[row] >= 0.5), 0)
        left = start + more * len(rows) - float(np.sum(1 - safe[np.unique(rows[first:])]))
        return min(max(left, _RISK_RANGE[0]), _RISK_RANGE[1])

    @property
    def _profiling(self) -> bool:
        return len(self._surrogate.rows) <= _PROFILE_TRIALS

    def _shortlist(self, candidates: IntArray, gain: FloatArray) -> IntArray:
        """Few enough candidates to weigh what each one teaches."""
        if len(candidates) <= _CANDIDATES:
            return candidates
        ranked = candidates[np.argsort(-gain[candidates])]
        best, rest = np.split(ranked, [_CANDIDATES // 2])
        return np.append(best, self._random.choice(rest, _CANDIDATES // 2, replace=False))

    def _contenders(self, outlook: Outlook, best: float) -> IntArray:
        """The settings that may turn out best, seen one standard deviation on the bright side."""
        bright = outlook.mean - outlook.sd
        hope = np.maximum(best - bright[-1], 0) * outlook.p_safe(bright)
        return np.argsort(-hope)[:_CONTENDERS]

    def _proposal(self, outlook: Outlook, row: int, improvement: float, reason: str) -> Proposal:
        belief = outlook.belief
        return Proposal(
            point=self.problem.space.point(row),
            purpose="profile" if self._profiling else "search",
            expected_energy_j=math.exp(belief.mean[ENERGY, row]),
            expected_latency_s=belief.latency_s(row),
            p_safe=float(outlook.safe[row]),
            improvement=improvement,
            reason=reason,
        )
