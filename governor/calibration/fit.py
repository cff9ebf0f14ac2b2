"""Peaks, bandwidths, energies and standing power from runs of kernels of known work.

Rates give the peaks a clock and the two limits of bandwidth, the lower of which holds. Power is
a sum of terms with non-negative coefficients, once the voltage curves are given: a constant, one
a memory clock, ``f V^2`` of the CPU and of the GPU, their leakage ``V^2 exp(c (T - 50 degrees))``,
joules a FLOP times ``V^2``, and joules a byte with and without it. They are fitted by non-negative
least squares (Lawson and Hanson, scipy's ``nnls``) inside a search for the curves, each a floor
and a straight rise, and for how leakage grows. What the runs cannot tell apart is taken as known.

Intervals come from the scatter around the fit, misfit included, with all constants uncertain at
once. Each is of 99.8 % confidence, so that the 25 or so of a board hold together with 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from governor.calibration.measure import Run
from governor.errors import GovernorError
from governor.roofline.board import Voltage
from governor.space import BoolArray, FloatArray

Curves = tuple[Voltage, Voltage]
"""Of the GPU (or whatever unit computes), and of the CPU."""

_CONFIDENCE = 0.998
_ROUNDS = 20
_LARGEST_RISE = 1.5
"""Of a voltage over its floor, less 1: 2.5 times, beyond any part's range."""
_FLOORS = (0.2, 0.95)
"""A floor ends between these shares of the highest clock."""
REFERENCE_C = 50.0
"""Leakage is stated at this temperature."""
_USUAL_GROWTH, _GROWTH_SPREAD, _FASTEST_GROWTH = 0.02, 0.01, 0.06
"""Of leakage, a degree: it doubles every 35, within 23 and 70 for two parts in three (assumed: all
that keeps it in reason where a board hardly leaks), and every 12 at most."""
_LEAST_SPAN_C = 5.0
"""Temperatures closer together than this do not tell how leakage grows."""
_STEP = 1e-4
"""Of the shape, for its slopes."""
_TOLD_APART = 0.01
"""A term that is a sum of the others to within this share of itself cannot be told from them."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A constant in SI units and the interval it lies in; None: its ends are not known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A voltage over its floor: 1 up to ``floor_hz``, then straight to ``top`` at ``top_hz``."""

    floor_hz: Fitted
    top_hz: float
    top: Fitted


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the times tell.

    Attributes:
        flop_per_clock: by (unit, precision).
        bytes_per_clock: without an end above where the memory's clock limits everywhere; None
            where the unit's clock did not vary.
        bytes_per_s: by memory clock (0 where that is no knob); without an end above where the
            other clock limits everywhere: then it is the highest rate that was seen.
        worst: largest relative distance of a stream from the fitted limits.
    """

    flop_per_clock: Mapping[tuple[str, str], Fitted]
    bytes_per_clock: Fitted | None
    bytes_per_s: Mapping[float, Fitted]
    worst: float


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the sensors tell; every figure at the floor of the voltage.

    Attributes:
        terms: joules a FLOP by ``flop PRECISION``; joules a byte in the GPU ``gpu byte`` and
            in the memory ``memory byte``; watts ``base``, and ``memory HZ`` above the lowest
            memory clock's; watts a hertz ``gpu clock``, ``gpu idle``, ``cpu busy``, ``cpu core``,
            ``cpu load``; watts ``gpu leakage`` and ``cpu leakage`` at :data:`REFERENCE_C`, and
            their relative ``growth`` a degree.
        gpu, cpu: the voltage curves; None: the clock hardly varied, the given one was taken.
        error: root mean square of the relative distance of the runs from the fit.
    """

    terms: Mapping[str, Fitted]
    gpu: Curve | None
    cpu: Curve | None
    error: float


def fit_rates(runs: Sequence[Run], clock: str) -> Rates:
    """Peaks and bandwidths.

    Args:
        runs: of all kernels.
        clock: the knob of the unit that ran them; 1 Hz is taken where it is not known.
    """
    peaks: dict[tuple[str, str], list[float]] = {}
    streams: list[tuple[float, float, float]] = []
    for run in runs:
        if run.kernel is None:
            continue
        hz = run.hz.get(clock, 1.0)
        if run.kernel.purpose == "compute":
            peaks.setdefault((run.kernel.unit, run.kernel.precision), []).append(run.flop_rate / hz)
        elif run.kernel.purpose in ("read", "write"):
            streams.append((hz, run.hz.get("emc_hz", 0.0), run.byte_rate))
    by_clock, by_memory, worst = _limits(streams)
    return Rates(
        flop_per_clock={key: _mean(values) for key, values in peaks.items()},
        bytes_per_clock=by_clock,
        bytes_per_s=by_memory,
        worst=worst,
    )


def _limits(
    streams: Sequence[tuple[float, float, float]],
) -> tuple[Fitted | None, dict[float, Fitted], float]:
    """The bandwidth's limits by the unit's clock and by the memory's.

    Each stream is given to the limit that is lower there, and the limits are the means of what
    they were given, until nothing moves.
    """
    if not streams:
        return None, {}, 0.0
    hz, emc, rate = (np.array([one[axis] for one in streams]) for axis in range(3))
    levels = np.unique(emc)
    per_clock = float(np.max(rate / hz))
    per_level = {level: float(rate[emc == level].max()) for level in levels}
    if len(np.unique(hz)) == 1:
        return None, {float(level): _mean(rate[emc == level]) for level in levels}, 0.0
    by_clock = np.zeros(len(rate), dtype=np.bool_)
    for _ in range(_ROUNDS):
        by_level = np.array([per_level[level] for level in emc])
        before, by_clock = by_clock, per_clock * hz < by_level
        if by_clock.any():
            per_clock = float(np.mean((rate / hz)[by_clock]))
        for level in levels:
            mine = (emc == level) & ~by_clock
            if np.any(mine):
                per_level[level] = float(rate[mine].mean())
        if np.array_equal(before, by_clock):
            break
    expected = np.minimum(per_clock * hz, [per_level[level] for level in emc])
    off = rate / expected - 1
    told = [by_clock, *((emc == level) & ~by_clock for level in levels)]
    freedom = len(rate) - sum(bool(some.any()) for some in told)
    scatter = math.sqrt(float(off @ off) / max(freedom, 1))

    def limit(value: float, some: BoolArray) -> Fitted:
        if not some.any():
            return Fitted(value, value, math.inf)
        if freedom < 2:
            return Fitted(value)
        half = _quantile(freedom) * scatter * value / math.sqrt(float(some.sum()))
        return Fitted(value, value - half, value + half)

    limits = {
        float(level): limit(per_level[level], some)
        for level, some in zip(levels, told[1:], strict=True)
    }
    return limit(per_clock, by_clock), limits, float(np.abs(off).max())


def _mean(values: Sequence[float] | FloatArray) -> Fitted:
    """The mean, with its interval; that of one or two values is unknown."""
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 3:
        return Fitted(mean)
    half = _quantile(len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Fitted(mean, mean - half, mean + half)


def _quantile(freedom: int) -> float:
    """Two-sided, of Student's t, at the confidence of all intervals."""
    special: Any = import_module("scipy.special")
    return float(special.stdtrit(max(freedom, 1), (1 + _CONFIDENCE) / 2))


def fit_power(
    runs: Sequence[Run], clock: str, cores: int, curves: Curves, known: Mapping[str, float]
) -> Power:
    """Energies and standing power.

    Args:
        runs: of all kernels, and of none, with power.
        clock: the knob of the unit that ran them.
        cores: of the CPU, where that is no knob.
        curves: the voltages of GPU and CPU, for a clock that hardly varied.
        known: coefficients of the terms that these runs cannot tell from the others.

    Raises:
        GovernorError: there are fewer runs than constants.
    """
    return _PowerFit(runs, clock, cores, curves, known).solve()


class _PowerFit:
    """The terms of power over all runs, and the search for the voltage curves."""

    def __init__(
        self,
        runs: Sequence[Run],
        clock: str,
        cores: int,
        curves: Curves,
        known: Mapping[str, float],
    ) -> None:
        gpu, cpu = curves
        self._power_w = np.array([run.power_w for run in runs])
        kinds = [run.kernel.purpose if run.kernel is not None else "" for run in runs]
        self._busy = np.array([kind not in ("", "cores") for kind in kinds], dtype=np.float64)
        self._loaded = np.array([run.kernel.cores if run.kernel else 0 for run in runs])
        self._gpu_hz = np.array([run.hz.get(clock, gpu.hz[-1]) for run in runs])
        self._cpu_hz = np.array([run.hz.get("cpu_hz", cpu.hz[-1]) for run in runs])
        self._emc_hz = np.array([run.hz.get("emc_hz", 0.0) for run in runs])
        self._cores = np.array([run.cores or cores for run in runs], dtype=np.float64)
        self._byte_rate = np.array([run.byte_rate for run in runs])
        done = [_precision(run) for run in runs]
        self._flop_rate = {
            each: np.array([run.flop_rate * (_precision(run) == each) for run in runs])
            for each in dict.fromkeys(done)
            if each
        }
        celsius = np.array([run.celsius for run in runs])
        self._warmer_c = np.nan_to_num(celsius - REFERENCE_C)
        self._cpu_is_unit = clock == "cpu_hz"
        self._given = curves
        self._known = known
        self._free = [
            len(np.unique(self._gpu_hz)) >= 4,
            len(np.unique(self._cpu_hz)) >= 4 and not self._cpu_is_unit,
        ]
        errors = np.array([run.power_se_w for run in runs]) / self._power_w
        self._noise = float(np.sqrt(np.mean(errors**2)))
        self._grows = any(self._free) and bool(np.ptp(self._warmer_c) >= _LEAST_SPAN_C)
        self._told = self._told_apart()

    def solve(self) -> Power:
        """The curves and growth of least misfit, and the terms there."""
        optimize: Any = import_module("scipy.optimize")
        shape = self._start()
        if len(shape):
            bends = sum(self._free)
            low = [_FLOORS[0], 0.0] * bends + [0.0] * self._grows
            high = [_FLOORS[1], _LARGEST_RISE] * bends + [_FASTEST_GROWTH] * self._grows
            found: list[Any] = [  # a floor may be caught at a measured clock, where the curve bends
                optimize.least_squares(self._residuals, one, bounds=(low, high), diff_step=1e-3)
                for one in (shape, self._start(0.8, 0.2), self._start(0.45, 0.3))
            ]
            costs = [float(one.cost) for one in found]
            shape = np.asarray(found[int(np.argmin(costs))].x, dtype=np.float64)
        coefficients = self._coefficients(shape)
        missed = self._relative(shape, coefficients) - 1
        half = self._halves(shape, coefficients)
        terms = {
            name: Fitted(value, max(value - reach, 0.0), value + reach)
            for name, value, reach in zip(
                [*self._told, *["growth"] * self._grows],
                [*coefficients.tolist(), *shape[len(shape) - self._grows :].tolist()],
                [*half[: len(coefficients)].tolist(), *half[len(half) - self._grows :].tolist()],
                strict=True,
            )
        }
        bends = shape[: 2 * sum(self._free)].reshape(-1, 2)
        reaches = half[len(coefficients) :][: bends.size].reshape(-1, 2)
        fitted = iter(zip(bends.tolist(), reaches.tolist(), strict=True))
        curves = [
            _curve(float(hz.max()), *next(fitted)) if free else None
            for free, hz in zip(self._free, (self._gpu_hz, self._cpu_hz), strict=True)
        ]
        return Power(
            terms=terms, gpu=curves[0], cpu=curves[1], error=float(np.sqrt(np.mean(missed**2)))
        )

    def _told_apart(self) -> list[str]:
        """The terms that are no sum of others: joules first, so that watts give way to them."""
        terms = self._terms(self._start())
        basis: list[FloatArray] = []
        told: list[str] = []
        for name, term in terms.items():
            if name.endswith("leakage") and not self._grows:
                continue  # at one temperature it is part of the other watts
            weighted = term / self._power_w
            left = weighted - sum((b * (b @ weighted) for b in basis), np.zeros(len(weighted)))
            if np.linalg.norm(left) > _TOLD_APART * np.linalg.norm(weighted):
                basis.append(left / np.linalg.norm(left))
                told.append(name)
        if len(told) >= len(self._power_w):
            raise GovernorError(
                f"{len(self._power_w)} runs cannot tell {len(told)} constants of power; "
                "measure at more --points"
            )
        return told

    def _start(self, floor: float = 0.55, rise: float = 0.4) -> FloatArray:
        return np.array([floor, rise] * sum(self._free) + [_USUAL_GROWTH] * self._grows)

    def _curves(self, shape: FloatArray) -> Curves:
        """The curves: pairs of (floor's share of the highest clock, rise) for the free ones."""
        curves = list(self._given)
        pairs = iter(shape[: 2 * sum(self._free)].reshape(-1, 2).tolist())
        for index, hz in enumerate((self._gpu_hz, self._cpu_hz)):
            if self._free[index]:
                floor, rise = next(pairs)
                top = float(hz.max())
                curves[index] = Voltage((floor * top, top), (1.0, 1.0 + rise))
        return curves[0], curves[1]

    def _terms(self, shape: FloatArray) -> dict[str, FloatArray]:
        """Watts of each term by run for a coefficient of 1, shape ``(n,)``."""
        gpu_v2, cpu_v2 = (
            curve.squared(hz)
            for curve, hz in zip(self._curves(shape), (self._gpu_hz, self._cpu_hz), strict=True)
        )
        growth = np.exp(self._growth(shape) * self._warmer_c)
        terms = {f"flop {each}": rate * gpu_v2 for each, rate in self._flop_rate.items()}
        terms["memory byte"] = self._byte_rate
        terms["gpu byte"] = self._byte_rate * gpu_v2
        terms["base"] = np.ones(len(self._power_w))
        for level in np.unique(self._emc_hz)[1:]:
            terms[f"memory {level:.0f}"] = (self._emc_hz == level).astype(np.float64)
        terms["gpu clock"] = self._busy * self._gpu_hz * gpu_v2
        terms["gpu idle"] = (1 - self._busy) * self._gpu_hz * gpu_v2
        if not self._cpu_is_unit:
            terms["cpu core"] = self._cores * self._cpu_hz * cpu_v2
            terms["cpu busy"] = self._busy * self._cpu_hz * cpu_v2
            terms["cpu leakage"] = growth * cpu_v2
        terms["gpu leakage"] = growth * gpu_v2
        terms["cpu load"] = self._loaded * self._cpu_hz * cpu_v2
        return {name: term for name, term in terms.items() if np.any(term)}

    def _growth(self, shape: FloatArray) -> float:
        return float(shape[-1]) if self._grows else 0.0

    def _coefficients(self, shape: FloatArray) -> FloatArray:
        """Of the terms told apart: non-negative, of least relative misfit."""
        optimize: Any = import_module("scipy.optimize")
        matrix, rest = self._weighted(shape)
        scale = np.abs(matrix).max(axis=0)
        return np.asarray(optimize.nnls(matrix / scale, 1 - rest)[0] / scale, dtype=np.float64)

    def _weighted(self, shape: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The terms told apart over the power, ``(n, m)``, and the sum of all others, ``(n,)``."""
        terms = {name: term / self._power_w for name, term in self._terms(shape).items()}
        rest = sum(
            (self._known.get(name, 0.0) * term for name, term in terms.items()
             if name not in self._told),
            np.zeros(len(self._power_w)),
        )  # fmt: skip
        return np.column_stack([terms[name] for name in self._told]), rest

    def _relative(self, shape: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Fitted over measured power."""
        matrix, rest = self._weighted(shape)
        return matrix @ coefficients + rest

    def _residuals(self, shape: FloatArray) -> FloatArray:
        off = self._relative(shape, self._coefficients(shape)) - 1
        if not self._grows:
            return off
        return np.append(off, (shape[-1] - _USUAL_GROWTH) * self._noise / _GROWTH_SPREAD)

    def _halves(self, shape: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Half of each interval: of the coefficients, then of the shape."""
        matrix, rest = self._weighted(shape)
        base = matrix @ coefficients + rest
        moved = [
            (self._relative(shape + step, coefficients) - base) / _STEP
            for step in np.eye(len(shape)) * _STEP
        ]
        jacobian = np.column_stack([matrix, *moved])
        if self._grows:
            jacobian = np.vstack([jacobian, np.zeros(jacobian.shape[1])])
            jacobian[-1, -1] = self._noise / _GROWTH_SPREAD
        size = np.linalg.norm(jacobian, axis=0)
        seen = size > 0  # a floor below all levels changes nothing
        freedom = max(len(base) - int(seen.sum()), 1)
        scaled = jacobian[:, seen] / size[seen]
        inner = np.asarray(np.linalg.pinv(scaled.T @ scaled), dtype=np.float64)
        variance = float(np.sum((base - 1) ** 2)) / freedom
        half = np.full(len(size), math.inf)
        half[seen] = np.sqrt(variance * np.maximum(np.diagonal(inner), 0.0)) / size[seen]
        return _quantile(freedom) * half


def _curve(top_hz: float, bend: Sequence[float], reach: Sequence[float]) -> Curve:
    """Of (floor's share of the highest clock, rise), each with half of its interval."""
    (share, rise), (share_reach, rise_reach) = bend, reach
    return Curve(
        Fitted(
            share * top_hz,
            max(share - share_reach, 0.0) * top_hz,
            min(share + share_reach, 1.0) * top_hz,
        ),
        top_hz,
        Fitted(1 + rise, 1 + max(rise - rise_reach, 0.0), 1 + rise + rise_reach),
    )


def _precision(run: Run) -> str:
    """Of the arithmetic that it did, if it did any."""
    return run.kernel.precision if run.kernel is not None and run.flop_rate > 0 else ""
