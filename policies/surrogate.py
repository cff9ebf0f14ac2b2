"""The model of time and energy over the whole lattice: a roofline, and a Gaussian process.

The roofline says how time and energy follow from the clocks; a Gaussian process (by
scikit-optimize) holds both what is still uncertain in its coefficients, to first order
around the best fit, and what the physics misses. Everything is in logs, so that errors are
relative and the noise of a trial is its own relative standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from governor.errors import PolicyError
from governor.roofline.fit import (
    WEAK,
    Observations,
    Prior,
    fit,
    relative_noise,
    tangent,
)
from governor.roofline.knobs import BATCH, PERIOD, model_inputs, other_knobs
from governor.space import BoolArray, FloatArray, IntArray, Space
from governor.trial import Trial
from policies.arrivals import Filling, Readings, items, period_s
from policies.background import Background
from policies.transfer import transferred

with warnings.catch_warnings():
    # scikit-optimize's own imports warn on recent numpy and scikit-learn.
    warnings.simplefilter("ignore")
    from skopt.learning import GaussianProcessRegressor
    from skopt.learning.gaussian_process.kernels import Kernel, Matern

TIME, ENERGY = 0, 1
"""The two outputs: the first axis of every array that holds both."""

_TINY = 1e-12

# What the physics misses, in relative standard deviations of time and of energy: a smooth
# error along each clock (a voltage or bandwidth table that is no straight line), a smooth
# error of their interplay, and a scatter from setting to setting. One entry a knob of
# `model_inputs`; lengths are in units of the largest clock.
_ALONG_SD = np.array([[0.006, 0.012, 0.012, 0.004, 0.05], [0.006, 0.014, 0.03, 0.004, 0.05]])
_ALONG_LENGTH = (0.15, 0.12, 0.3, 0.3, 2.0)
_JOINT_SD = (0.012, 0.012)
_JOINT_LENGTH = (0.8, 0.12, 0.25, 0.6, 2.0)
_SCATTER_SD = (0.017, 0.03)
# A knob that the roofline has no formula for is left to the Gaussian process alone.
_OTHER_SD = 0.3
_OTHER_LENGTH = 0.5

# Boards and workloads differ in how well the physics holds: both errors are scaled by what
# the trials make likely, with a log-normal prior around 1.
_SCALES = np.array([(a, b) for a in (0.25, 0.5, 1, 2) for b in (0.1, 0.3, 0.7, 1.4, 2.8)])
_LOG_SCALE_PRIOR = -0.5 * np.sum((np.log(_SCALES) / (0.5, 0.9)) ** 2, axis=1)

# Now and then a reading says nothing of other settings: something else ran meanwhile, or a clock
# was not what it was set to. Such a setting has an error of its own besides, so large that its
# neighbours learn nothing of it.
_ODD_SD = 0.5
_LOG_ODD = float(np.log(0.05))
_SUSPICIOUS = 10.0
"""Squared standard errors, less those expected, between a setting and what all others say of it."""
_MOST_ODD = 1 / 3
"""Of the trials; were more of them odd, it is the model that is."""


class Errors:
    """Prior covariance of what the physics misses, between settings of a space."""

    def __init__(self, space: Space) -> None:
        self._features = np.hstack((model_inputs(space)[:, : BATCH + 1], other_knobs(space)))
        columns = self._features.shape[1]
        varies = np.ptp(self._features, axis=0) > 0
        others = dict.fromkeys(range(BATCH + 1, columns), _OTHER_LENGTH)
        self._smooth = [(_JOINT_SD, _matern(columns, dict(enumerate(_JOINT_LENGTH))))]
        self._smooth += [
            (_ALONG_SD[:, column], _matern(columns, {column: length}))
            for column, length in enumerate(_ALONG_LENGTH)
            if varies[column]
        ]
        if others:
            self._smooth.append(((_OTHER_SD, _OTHER_SD), _matern(columns, others)))

    def smooth(self, rows: IntArray, at: IntArray) -> FloatArray:
        """Along the clocks, shape ``(2, len(rows), len(at))``: by output."""
        a, b = self._features[rows], self._features[at]
        total = np.zeros((2, len(a), len(b)))
        for sd, kernel in self._smooth:
            covariance = kernel(a, b)
            for output in (TIME, ENERGY):
                total[output] += sd[output] ** 2 * covariance
        return total

    def scatter(self, rows: IntArray, at: IntArray) -> FloatArray:
        """From setting to setting, shape ``(2, len(rows), len(at))``: by output."""
        same = (rows[:, None] == at).astype(np.float64)
        return np.square(_SCATTER_SD)[:, None, None] * same

    def variance(self) -> FloatArray:
        """Of both errors at any one setting, shape ``(2, 2)``: smooth and scatter, by output."""
        smooth = sum((np.square(sd) for sd, _ in self._smooth), np.zeros(2))
        return np.stack((smooth, np.square(_SCATTER_SD)))


def _matern(columns: int, lengths: dict[int, float]) -> Kernel:
    """A Matern 3/2 kernel over some of the columns; the others have no say."""
    scale = np.full(columns, np.inf)
    scale[list(lengths)] = list(lengths.values())
    return Matern(length_scale=scale, nu=1.5)


class RooflineKernel(Kernel):
    """Covariance of log time and log energy between settings, for scikit-optimize's GP.

    Its input names each setting twice, for either output: shape ``(2 t, 1)``, ``t`` rows of
    the space and the same ``t`` rows again (see :func:`_twice`).

    Attributes:
        slopes: shape ``(2, n, p)``: the roofline's derivatives per prior standard deviation.
        errors: what the physics misses.
        scales: standard deviations of the smooth errors and of the scatter over their prior.
        odd: rows of settings with a large error of their own.
    """

    def __init__(
        self, slopes: FloatArray, errors: Errors, scales: FloatArray, odd: IntArray
    ) -> None:
        self.slopes = slopes
        self.errors = errors
        self.scales = scales
        self.odd = odd

    def __deepcopy__(self, memo: dict[int, Any]) -> RooflineKernel:
        return RooflineKernel(self.slopes, self.errors, self.scales, self.odd)

    def __call__(self, X: FloatArray, Y: FloatArray | None = None) -> FloatArray:  # noqa: N803
        """Covariances, shape ``(len(X), len(Y))``."""
        return self.between(_once(X), _once(X if Y is None else Y))

    def between(self, rows: IntArray, at: IntArray) -> FloatArray:
        """Covariances of both outputs, shape ``(2 len(rows), 2 len(at))``, time's first."""
        parameters = self.slopes.shape[-1]
        a = self.slopes[:, rows].reshape(-1, parameters)
        b = self.slopes[:, at].reshape(-1, parameters)
        smooth, scatter = self.scales**2
        errors = smooth * self.errors.smooth(rows, at) + scatter * self.errors.scatter(rows, at)
        errors += _own_errors(rows, at, np.isin(rows, self.odd))
        covariance = a @ b.T
        covariance[: len(rows), : len(at)] += errors[TIME]
        covariance[len(rows) :, len(at) :] += errors[ENERGY]
        return covariance

    def diag(self, X: FloatArray) -> FloatArray:  # noqa: N803
        """The variances alone, shape ``(len(X),)``."""
        return self.variance(_once(X)).ravel()

    def variance(self, rows: IntArray) -> FloatArray:
        """The variances of both outputs, shape ``(2, len(rows))``."""
        errors = self.scales**2 @ self.errors.variance()
        own = _ODD_SD**2 * np.isin(rows, self.odd)
        return np.sum(self.slopes[:, rows] ** 2, axis=-1) + errors[:, None] + own

    def shared(self, rows: IntArray) -> FloatArray:
        """The covariance of the two outputs at each setting, shape ``(len(rows),)``."""
        time, energy = self.slopes[:, rows]
        return np.einsum("np,np->n", time, energy)

    def is_stationary(self) -> bool:
        """Covariance depends on more than the distance between settings."""
        return False


def _own_errors(rows: IntArray, at: IntArray, odd: BoolArray) -> FloatArray:
    """Covariance of what odd settings have for themselves: ``(len(rows), len(at))``.

    Args:
        rows, at: settings.
        odd: shape ``(len(rows),)``: which of ``rows`` are odd.
    """
    return _ODD_SD**2 * (odd[:, None] & (rows[:, None] == at))


def _twice(rows: IntArray) -> FloatArray:
    """The kernel's input for both outputs of some settings: shape ``(2 len(rows), 1)``."""
    return np.tile(rows, 2)[:, None].astype(np.float64)


def _once(inputs: FloatArray) -> IntArray:
    """The settings of a kernel's input, shape ``(len(inputs) / 2,)``."""
    return inputs[: len(inputs) // 2, 0].astype(np.intp)


class Belief:
    """What is believed of every setting after some trials.

    Attributes:
        mean: shape ``(2, n)``, log seconds of an inference at the SLO's percentile and log
            joules an item.
        sd: shape ``(2, n)``, relative standard deviations.
        variance, shared: their squares, and the covariance of the two, shape ``(n,)``.
        filling: what latency is besides the inference.
    """

    def __init__(
        self,
        centre: FloatArray,
        rows: IntArray,
        gp: GaussianProcessRegressor,
        kernel: RooflineKernel,
        filling: Filling,
    ) -> None:
        """Take the posterior of a process fitted to ``rows`` around ``centre``, ``(2, n)``.

        It comes from the process's own Cholesky factor: what ``predict`` would give, but
        for a whole lattice in a tenth of the time, and with covariances.
        """
        self.filling = filling
        self._kernel = kernel
        self._rows = rows
        self._whiten = np.linalg.inv(gp.L_)
        settings = np.arange(centre.shape[1], dtype=np.intp)
        prior = kernel.between(settings, rows)
        self.mean = centre + (prior @ gp.alpha_).reshape(2, -1)
        told = prior @ self._whiten.T
        known = np.sum(told**2, axis=1).reshape(2, -1)
        self.variance = np.maximum(kernel.variance(settings) - known, _TINY)
        self.sd: FloatArray = np.sqrt(self.variance)
        time, energy = np.split(told, 2)
        self.shared = kernel.shared(settings) - np.einsum("nt,nt->n", time, energy)

    def latency_s(self, row: int) -> float:
        """Expected at the SLO's percentile, with the wait for a batch where that counts."""
        return float(np.exp(self.mean[TIME, row]) + self.filling.wait_s[row])

    def covariance(self, rows: IntArray, at: IntArray) -> FloatArray:
        """Posterior covariance, shape ``(2, 2, len(rows), len(at))``: by outputs and settings."""
        a = self._kernel.between(rows, self._rows) @ self._whiten.T
        b = self._kernel.between(at, self._rows) @ self._whiten.T
        covariance = self._kernel.between(rows, at) - a @ b.T
        return covariance.reshape(2, len(rows), 2, len(at)).swapaxes(1, 2)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The roofline as some trials have it, ``t`` of them.

    Attributes:
        parameters: the most probable ones, shape ``(p,)``.
        centre: shape ``(2, n)``: the roofline at the prior's mean, as its tangent at the best
            fit has it.
        slopes: shape ``(2, n, p)``: its derivatives per prior standard deviation.
        scales: of the errors, see :class:`RooflineKernel`.
        odd: shape ``(t,)``: which trials are of settings with a large error of their own.
        log_evidence: how likely the prior made the readings, up to a constant that all share.
        suspect: the trial that all others contradict most, where they do so plainly.
    """

    parameters: FloatArray
    centre: FloatArray
    slopes: FloatArray
    scales: FloatArray
    odd: BoolArray
    log_evidence: float
    suspect: int | None


class _View:
    """The roofline as one prior has it, fitted to the trials.

    Attributes:
        fills: whether latency is taken to begin when the oldest item of a batch arrives.
    """

    def __init__(self, prior: Prior, bend: FloatArray | float, fills: bool) -> None:
        """``bend``: what the roofline is expected to miss, shape ``(2, n)``, or nothing."""
        self.fills = fills
        self._bend = bend
        self._prior = prior
        self._last: _Fit | None = None

    def look(
        self, rows: IntArray, readings: Readings, errors: FloatArray, inputs: FloatArray
    ) -> _Fit:
        """Refit; a setting is taken for odd where that makes all readings likelier.

        Args:
            rows: shape ``(t,)``, the settings tried.
            readings: of ``t`` trials.
            errors: shape ``(2, 2, t, t)``: smooth errors and scatter, each by output.
            inputs: shape ``(n, 6)``, of every setting.
        """
        odd = np.zeros(len(rows), dtype=np.bool_)
        best = self._last = self._fit(rows, readings, errors, inputs, odd)
        while best.suspect is not None:
            odd = best.odd | (rows == rows[best.suspect])
            if odd.sum() > _MOST_ODD * len(rows):
                break
            doubted = self._fit(rows, readings, errors, inputs, odd)
            if doubted.log_evidence <= best.log_evidence:
                break
            best = self._last = doubted
        return best

    def _fit(
        self,
        rows: IntArray,
        readings: Readings,
        errors: FloatArray,
        inputs: FloatArray,
        odd: BoolArray,
    ) -> _Fit:
        # The first trial, at all-max, is the unit of time and of energy.
        prior, logs, last = self._prior, readings.logs, self._last
        unit = logs[:, :1]
        fixed = np.eye(len(rows)) * readings.noise[:, None] + _own_errors(rows, rows, odd)
        scales = np.ones(2) if last is None else last.scales
        bend = np.broadcast_to(self._bend, (2, len(inputs)))
        observed = Observations(
            inputs[rows],
            logs - unit - bend[:, rows],
            np.tensordot(scales**2, errors, 1) + fixed,
        )
        parameters = fit(observed, None if last is None else last.parameters, prior)
        values, slopes = tangent(parameters, inputs, prior)
        back = np.linalg.solve(prior.spread, prior.mean - parameters)
        centre = values + slopes @ back + bend + unit
        missed = (logs - centre[:, rows]).ravel()
        tangents = slopes[:, rows].reshape(len(missed), -1)
        known, unknown = tangents @ tangents.T + _blocks(fixed), _blocks(errors)
        scales, likely = _likely_scales(known, unknown, missed)
        covariance = known + np.tensordot(scales**2, unknown, 1)
        return _Fit(
            parameters=parameters,
            centre=centre,
            slopes=slopes,
            scales=scales,
            odd=odd,
            log_evidence=likely + readings.log_density + _LOG_ODD * len(np.unique(rows[odd])),
            suspect=_suspect(covariance, missed, rows, odd),
        )


def _suspect(
    covariance: FloatArray, missed: FloatArray, rows: IntArray, odd: BoolArray
) -> int | None:
    """The first trial of the setting that fits worst to what all others say of it.

    Args:
        covariance: of the ``2 t`` readings.
        missed: readings less what was expected of them, shape ``(2 t,)``.
        rows: shape ``(t,)``, the settings tried.
        odd: shape ``(t,)``: those known to fit badly.

    Returns:
        None: all fit; the first trial, which is the unit of all others, is not asked.
    """
    inverse = np.linalg.inv(covariance)
    pull = inverse @ missed
    worst, suspect = _SUSPICIOUS, None
    for row in np.unique(rows[~odd & (rows != rows[0])]):
        trials = np.flatnonzero(rows == row)
        both = np.append(trials, trials + len(rows))
        # Leave-one-out residuals: Rasmussen, Williams, Gaussian Processes, 2006, section 5.4.2.
        squared = pull[both] @ np.linalg.solve(inverse[np.ix_(both, both)], pull[both])
        if squared - len(both) > worst:
            worst, suspect = squared - len(both), int(trials[0])
    return suspect


class Surrogate:
    """Roofline and Gaussian process over a space, updated by trials.

    Attributes:
        rows: the settings tried, in order, as rows of the space.
        trials: what they gave.
    """

    def __init__(
        self, space: Space, prior: Prior = WEAK, background: Background | None = None
    ) -> None:
        """What the trials contradict, of what was known before, is dropped.

        Args:
            prior: of the roofline's coefficients.
            background: trials of other workloads, or on other boards.
        """
        self.space = space
        self.rows: list[int] = []
        self.trials: list[Trial] = []
        self._inputs = model_inputs(space)
        self._items = items(space)
        self._errors = Errors(space)
        taught = background and transferred(space, background, self._errors)
        beliefs: list[tuple[Prior, FloatArray | float]] = [(WEAK, 0.0)]
        if not prior.weak:
            beliefs.insert(0, (prior, 0.0))
        if taught:
            beliefs.insert(0, (taught.prior, taught.bend))
        self._views = [_View(*one, fills) for fills in (False, True) for one in beliefs]

    def tell(self, trial: Trial) -> None:
        """Add a trial.

        Raises:
            InputError: its point is not in the space.
            PolicyError: it has no point.
        """
        if trial.point is None:
            raise PolicyError("a policy was told a trial without an operating point")
        self.rows.append(self.space.index(trial.point))
        self.trials.append(trial)

    def typical_noise(self) -> FloatArray:
        """Variance of a reading of each output, relative: shape ``(2,)``."""
        return np.median([relative_noise(trial) for trial in self.trials], axis=0) ** 2

    def believe(self) -> Belief:
        """Refit to all trials; needs at least one."""
        rows = np.array(self.rows)
        period = period_s(self.trials, self._items[rows])
        unit_s = self.trials[0].mean_latency_s
        self._inputs[:, PERIOD] = period * self._items.min() / unit_s
        errors = np.stack((self._errors.smooth(rows, rows), self._errors.scatter(rows, rows)))
        seen: list[tuple[_Fit, Readings, Filling]] = []
        for view, filling in self._fillings(period):
            if (readings := filling.readings(self.trials, rows)) is not None:
                seen.append((view.look(rows, readings, errors, self._inputs), readings, filling))
        best, readings, filling = max(seen, key=lambda one: one[0].log_evidence)
        kernel = RooflineKernel(best.slopes, self._errors, best.scales, np.unique(rows[best.odd]))
        gp = GaussianProcessRegressor(kernel, alpha=readings.noise.ravel(), optimizer=None)
        gp.fit(_twice(rows), (readings.logs - best.centre[:, rows]).ravel())
        return Belief(best.centre, rows, gp, kernel, filling)

    def _fillings(self, period_s: float) -> Iterator[tuple[_View, Filling]]:
        """Each view with what it takes latency to be, where that can make a difference."""
        for view in self._views:
            if not view.fills:
                yield view, Filling.none(len(self._items))
            elif period_s and np.ptp(self._items) > 0:
                yield view, Filling.of(self._items, period_s)


def _blocks(by_output: FloatArray) -> FloatArray:
    """Of matrices by output, shape ``(..., 2, t, t)``, those of both: ``(..., 2 t, 2 t)``."""
    count = by_output.shape[-1]
    blocks = np.zeros((*by_output.shape[:-3], 2 * count, 2 * count))
    blocks[..., :count, :count] = by_output[..., TIME, :, :]
    blocks[..., count:, count:] = by_output[..., ENERGY, :, :]
    return blocks


def _likely_scales(
    known: FloatArray, errors: FloatArray, missed: FloatArray
) -> tuple[FloatArray, float]:
    """The scales of both errors, averaged over how likely they make the ``2 t`` readings.

    And the log of how likely the readings are over all scales, up to a constant.

    Args:
        known: covariance of the readings without both errors, shape ``(2 t, 2 t)``.
        errors: shape ``(2, 2 t, 2 t)``: of smooth errors and scatter.
        missed: readings less the roofline at the prior's mean, shape ``(2 t,)``.
    """
    covariance = known + np.tensordot(_SCALES**2, errors, 1)
    roots = np.linalg.cholesky(covariance)
    white = np.linalg.solve(roots, np.broadcast_to(missed[:, None], (len(_SCALES), len(missed), 1)))
    log_determinants = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    log_likely = _LOG_SCALE_PRIOR - 0.5 * np.sum(white**2, axis=(1, 2)) - log_determinants
    weights = np.exp(log_likely - log_likely.max())
    likely = float(log_likely.max()) + float(np.log(weights.sum()))
    return np.sqrt(weights @ _SCALES**2 / weights.sum()), likely
