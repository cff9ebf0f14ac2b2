"""What the trials of one workload teach about another one on the same board.

How the voltages rise with the clocks belongs to the board, and so, nearly, does what each clock
costs in power; how much is computed, moved and launched belongs to the workload.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from governor.roofline.energy import ENERGY_PARAMETERS
from governor.roofline.fit import (
    PARAMETERS,
    WEAK,
    Observations,
    Prior,
    fit,
    log_readings,
    relative_noise,
    tangent,
)
from governor.roofline.knobs import PERIOD, model_inputs
from governor.roofline.time import TIME_PARAMETERS
from governor.space import FloatArray, Space
from governor.trial import Trial

FEWEST = 4
"""Trials; from fewer nothing is learnt that the weak prior does not know."""
MISFIT = (0.02, 0.035)
"""What the roofline misses at a setting, relative, of time and of energy: scatter and bend."""

VOLTAGES = ("emc_exponent", "gpu_floor", "gpu_voltage", "cpu_floor", "cpu_voltage")
"""Coefficients that belong to the board, whatever it runs."""
_MOVES = {
    **dict.fromkeys(TIME_PARAMETERS, 0.7),
    **dict.fromkeys(ENERGY_PARAMETERS, 0.4),
    **dict.fromkeys(VOLTAGES, 0.2),
}
"""By how much a coefficient moves from one workload to the next, in standard deviations of the
weak prior. One that is not named, a scale, is measured anew by the first trial."""


def learnt(space: Space, trials: Sequence[Trial]) -> Prior:
    """A prior for the next workload, from trials of an earlier one on the same board.

    Its means are the earlier workload's; its deviations are what was left open there, and how
    far coefficients move between workloads.

    Args:
        space: that is searched next.
        trials: the fastest point's first, whatever its space was; those outside are left out.
    """
    found = fitted(space, trials)
    if found is None:
        return WEAK
    moves = np.array([_MOVES.get(name, np.inf) for name in PARAMETERS])
    sd = np.minimum(np.hypot(found.sd, moves * WEAK.sd), WEAK.sd)
    known = np.isfinite(moves)
    return Prior(mean=np.where(known, found.mean, WEAK.mean), sd=sd)


def observed(inputs: FloatArray, trials: Sequence[Trial]) -> Observations:
    """Trials of one workload as a fit sees them: against the first, at the fastest setting.

    Args:
        inputs: of the trials, shape ``(t, 6)``, but for the period of their input, which the
            trials tell.
        trials: ``t`` of them.
    """
    inputs = inputs.copy()
    inputs[:, PERIOD] = _period(trials)
    logs = np.array([log_readings(trial) for trial in trials]).T
    variance = np.array([relative_noise(trial) for trial in trials]).T ** 2
    variance += np.square(MISFIT)[:, None]
    return Observations(inputs, logs - logs[:, :1], np.eye(len(trials)) * variance[:, None])


def fitted(space: Space, trials: Sequence[Trial]) -> Prior | None:
    """The coefficients that trials leave, and their deviations; None: there are too few.

    Args:
        space: of the trials.
        trials: the fastest point's first; those outside ``space`` are left out.
    """
    by_row = {
        space.index(trial.point): trial
        for trial in trials
        if trial.point is not None and trial.point in space
    }
    if len(by_row) < FEWEST or space.fastest not in by_row:
        return None
    rows = sorted(by_row, key=lambda row: row != space.fastest)  # the unit comes first
    seen = observed(model_inputs(space)[rows], [by_row[row] for row in rows])
    mean = fit(seen)
    return Prior(mean, WEAK.sd * np.sqrt(_left_open(mean, seen)))


def _left_open(mean: FloatArray, seen: Observations) -> FloatArray:
    """Posterior variances in units of the weak prior's, shape ``(p,)``, to first order."""
    _, slopes = tangent(mean, seen.inputs)
    sd = np.sqrt(np.diagonal(seen.covariance, axis1=1, axis2=2))
    white = (slopes / sd[..., None]).reshape(-1, len(mean))
    information = white.T @ white + np.eye(len(mean))
    return np.asarray(np.diagonal(np.linalg.inv(information)), dtype=np.float64)


def _period(trials: Sequence[Trial]) -> float:
    """Between two inputs that had to be waited for, over the latency at all-max; else 0."""
    waited_s = [trial.interval_s for trial in trials if trial.waited]
    return min(waited_s, default=0.0) / trials[0].mean_latency_s
