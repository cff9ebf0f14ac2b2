"""The ridge point as a sweep of intensities shows it, not as the quotient of two kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from governor.calibration.measure import Run
from governor.space import FloatArray

_SHARPEST = 20.0
"""Exponent with which moving and computing overlap: 1 their sum, infinity the longer one."""
_LEAST = 4
"""Fewer intensities show no bend."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """Where a sweep bends.

    Attributes:
        flop_per_s, bytes_per_s: of its two ends, extended.
        reached: whether the sweep goes on past the bend; if not, it is at least where it ends.
        worst: largest relative distance of the sweep from the fit.
    """

    flop_per_s: float
    bytes_per_s: float
    reached: bool
    worst: float

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.flop_per_s / self.bytes_per_s


def fit_ridge(runs: Sequence[Run]) -> Ridge | None:
    """The bend of the sweep at the highest clocks that have one; None: too few intensities.

    ``1/rate^p = 1/peak^p + 1/(intensity bandwidth)^p``, fitted to the logarithms.
    """
    sweeps: dict[tuple[tuple[str, float], ...], list[Run]] = {}
    for run in runs:
        if run.kernel is not None and run.kernel.purpose == "mix":
            sweeps.setdefault(tuple(sorted(run.hz.items())), []).append(run)
    whole = [clocks for clocks, sweep in sweeps.items() if len(sweep) >= _LEAST]
    return _bend(sweeps[max(whole)]) if whole else None


def _bend(sweep: Sequence[Run]) -> Ridge:
    flop = np.array([run.flop_rate for run in sweep])
    intensity = flop / np.array([run.byte_rate for run in sweep])

    def residuals(parameters: FloatArray) -> FloatArray:
        peak, bandwidth, sharpness = np.exp(parameters)
        slower = -sharpness * np.log(peak), -sharpness * np.log(bandwidth * intensity)
        return -np.logaddexp(*slower) / sharpness - np.log(flop)

    optimize: Any = import_module("scipy.optimize")
    start = np.log([flop.max(), (flop / intensity).max(), 3.0])
    reach = np.array([3.0, 3.0, math.log(_SHARPEST / 3)])
    found: Any = optimize.least_squares(residuals, start, bounds=(start - reach, start + reach))
    peak, bandwidth, _ = np.exp(found.x).tolist()
    return Ridge(
        flop_per_s=peak,
        bytes_per_s=bandwidth,
        reached=bool(intensity.max() > peak / bandwidth),
        worst=float(np.abs(np.expm1(found.fun)).max()),
    )
