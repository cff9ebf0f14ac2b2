"""What trials of other workloads, and on other boards, teach of the one that is searched next.

The roofline's coefficients of each board and workload are taken for a sum: what holds
everywhere, what belongs to the board (how its voltages rise with its clocks), what belongs to
the workload (how much is computed, moved and launched), and what is of just this pair. Each part
has its share of the weak prior's variance. What the roofline misses belongs mostly to the board.
Everything being Gaussian, to first order around each donor's own fit, the donors' trials leave
a mean and a covariance of the coefficients sought, and a bend of the roofline. Clocks are relative
to each space's largest, so boards need not have the same.
(Bonilla, Chai, Williams: Multi-task Gaussian process prediction, NIPS 2007.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from governor.roofline.energy import ENERGY_PARAMETERS
from governor.roofline.fit import (
    PARAMETERS,
    WEAK,
    Prior,
    fit,
    relative_noise,
    tangent,
)
from governor.roofline.knobs import model_inputs
from governor.roofline.learnt import MISFIT, VOLTAGES, observed
from governor.roofline.time import TIME_PARAMETERS
from governor.space import FloatArray, IntArray, Space
from governor.trial import Trial
from policies.background import Background, Donor

FEWEST = 3
"""Trials; a donor with fewer teaches nothing."""

# Shares of the weak prior's variance: what holds everywhere, what is the board's, what is the
# workload's; the rest is the pair's own. The scales are told by the first trial.
_SHARES = {
    **dict.fromkeys(TIME_PARAMETERS, (0.15, 0.15, 0.40)),
    **dict.fromkeys(ENERGY_PARAMETERS, (0.20, 0.45, 0.15)),
    **dict.fromkeys(VOLTAGES, (0.15, 0.75, 0.05)),
    **dict.fromkeys(("gpu_work", "cpu_work"), (0.20, 0.30, 0.30)),
    **dict.fromkeys(("time_scale", "energy_scale"), (0.0, 0.0, 0.0)),
}
_EVERYWHERE, _BOARD, _WORKLOAD = np.array([_SHARES[name] for name in PARAMETERS]).T
_SAME = 0.95
"""Of the same pair on another day, where anything is shared."""
_ERRORS_OF_BOARD = 0.6
_ERRORS_OF_PAIR = 0.85
"""Shares of what the roofline misses."""
_TINY = 1e-9


class Errors(Protocol):
    """Covariances of what the roofline misses, see :class:`policies.surrogate.Errors`."""

    def smooth(self, rows: IntArray, at: IntArray) -> FloatArray:
        """Along the clocks, shape ``(2, len(rows), len(at))``."""
        ...

    def scatter(self, rows: IntArray, at: IntArray) -> FloatArray:
        """From setting to setting, of the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Taught:
    """What the donors leave.

    Attributes:
        prior: of the coefficients.
        bend: shape ``(2, n)``: what the roofline is expected to miss at each setting.
    """

    prior: Prior
    bend: FloatArray


@dataclass(frozen=True, slots=True)
class _Lesson:
    """A donor's trials, ``t`` of them.

    Attributes:
        rows: of the space that is searched now, -1 outside it.
        slopes: shape ``(2, t, p)``: per standard deviation of the weak prior.
        told: shape ``(2, t)``: what ``slopes`` times the coefficients, from the weak prior's mean,
            and the errors come to.
        noise: variances, shape ``(2, t)``.
    """

    pair: tuple[str, str]
    rows: IntArray
    slopes: FloatArray
    told: FloatArray
    noise: FloatArray


def transferred(space: Space, background: Background, errors: Errors) -> Taught | None:
    """What the donors teach of ``space``; None: nothing.

    Args:
        errors: between settings of ``space``.
    """
    lessons = [one for donor in background.donors if (one := _lesson(space, donor)) is not None]
    if not lessons:
        return None
    here = (background.board, background.workload)
    covariance = np.block([[_between(one, other, errors) for other in lessons] for one in lessons])
    told = np.concatenate([one.told.ravel() for one in lessons])
    noise = np.concatenate([one.noise.ravel() for one in lessons])
    covariance += np.diag(noise)
    cross = np.hstack([_shared(here, one.pair)[:, None] * _flat(one.slopes).T for one in lessons])
    gain = np.linalg.solve(covariance, np.column_stack((cross.T, told)))
    weights = np.asarray(gain[:, -1], dtype=np.float64)
    left = np.eye(len(cross)) - cross @ gain[:, :-1]
    left = (left + left.T) / 2 + _TINY * np.eye(len(left))
    sd = np.sqrt(np.diagonal(left))
    prior = Prior(
        WEAK.mean + WEAK.sd * (cross @ weights),
        WEAK.sd * sd,
        WEAK.sd[:, None] * np.asarray(np.linalg.cholesky(left)),
    )
    return Taught(prior, _bend(space, here, lessons, weights, errors))


def _bend(
    space: Space,
    here: tuple[str, str],
    lessons: Sequence[_Lesson],
    weights: FloatArray,
    errors: Errors,
) -> FloatArray:
    every = np.arange(len(space), dtype=np.intp)
    bend = np.zeros((2, len(space)))
    start = 0
    for one in lessons:
        mine = weights[start : start + one.told.size].reshape(one.told.shape)
        start += one.told.size
        inside = one.rows >= 0
        share = _errors_shared(here, one.pair)
        if share and np.any(inside):
            rows = one.rows[inside]
            covariance = errors.smooth(every, rows) + errors.scatter(every, rows)
            bend += share * np.einsum("onr,or->on", covariance, mine[:, inside])
    return bend


def _between(one: _Lesson, other: _Lesson, errors: Errors) -> FloatArray:
    """Covariance of two donors' readings, shape ``(2 t, 2 u)``, without noise."""
    shared = np.ones(len(PARAMETERS)) if one is other else _shared(one.pair, other.pair)
    covariance = (_flat(one.slopes) * shared) @ _flat(other.slopes).T
    t, u = len(one.rows), len(other.rows)
    share = 1.0 if one is other else _errors_shared(one.pair, other.pair)
    missed = np.zeros((2, t, u))
    a, b = np.flatnonzero(one.rows >= 0), np.flatnonzero(other.rows >= 0)
    if share and len(a) and len(b):
        rows, at = one.rows[a], other.rows[b]
        known = errors.smooth(rows, at) + errors.scatter(rows, at)
        missed[:, a[:, None], b] = share * known
    if one is other:
        outside = np.flatnonzero(one.rows < 0)
        missed[:, outside, outside] = np.square(MISFIT)[:, None]
    covariance[:t, :u] += missed[0]
    covariance[t:, u:] += missed[1]
    return covariance


def _flat(slopes: FloatArray) -> FloatArray:
    return slopes.reshape(-1, slopes.shape[-1])


def _shared(one: tuple[str, str], other: tuple[str, str]) -> FloatArray:
    """The share of each coefficient's variance that two pairs have in common, shape ``(p,)``."""
    board, workload = one[0] == other[0], one[1] == other[1]
    if board and workload:
        return np.where(_EVERYWHERE > 0, _SAME, 0.0)
    return _EVERYWHERE + board * _BOARD + workload * _WORKLOAD


def _errors_shared(one: tuple[str, str], other: tuple[str, str]) -> float:
    if one[0] != other[0]:
        return 0.0
    return _ERRORS_OF_PAIR if one[1] == other[1] else _ERRORS_OF_BOARD


def _lesson(space: Space, donor: Donor) -> _Lesson | None:
    used = _latest(donor.trials)
    if len(used) < FEWEST:
        return None
    seen = observed(model_inputs(_settings(used)), used)
    mean = fit(seen)
    predicted, slopes = tangent(mean, seen.inputs)
    told = seen.log_values - predicted + slopes @ ((mean - WEAK.mean) / WEAK.sd)
    noise = np.array([relative_noise(trial) for trial in used]).T ** 2
    rows = [_row(space, trial) for trial in used]
    return _Lesson((donor.board, donor.workload), np.array(rows), slopes, told, noise)


def _row(space: Space, trial: Trial) -> int:
    return space.index(trial.point) if trial.point is not None and trial.point in space else -1


def _latest(trials: Iterable[Trial]) -> list[Trial]:
    """The latest trial of each setting of the same knobs, the first one's first."""
    latest = {trial.point: trial for trial in trials if trial.point is not None}
    names = [set(point) for point in latest]
    return [trial for trial, each in zip(latest.values(), names, strict=True) if each == names[0]]


def _settings(trials: Sequence[Trial]) -> Space:
    """Just these settings: with the fastest among them, the clocks are relative to that."""
    points = [trial.point for trial in trials if trial.point is not None]
    names = list(points[0])
    return Space.of_settings(names, np.array([[point[name] for name in names] for point in points]))
