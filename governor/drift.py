"""Notice that what is held has changed: a two-sided cumulative sum on relative residuals."""

from __future__ import annotations

import math

from governor.known import ENERGY_TOLERANCE, LATENCY_TOLERANCE, energy_change, latency_change
from governor.trial import Trial
from governor.units import format_percent

SLACK = 1.0
"""Standard deviations a window may be off before it counts (k of the CUSUM)."""
LIMIT = 8.0
"""Sum at which drift is called (h). With k = 1 the mean run to a false alarm is
``exp(2kh) / 2k**2``, about four million windows (Siegmund's approximation)."""
LARGEST = 5.0
"""One window counts for no more than this: drift takes two windows, an outlier is none."""
LEAST_ERROR = 0.005
"""No window is trusted beyond this relative error."""


class Cusum:
    """Page's cumulative sum (Biometrika 41, 1954) of ``ln(now / reference)``.

    Residuals within ``tolerance`` (relative) are none: nothing is gained by searching again
    for a change this small.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.restart()

    def restart(self) -> None:
        """Begin again with a new reference."""
        self._up = 0.0
        self._down = 0.0

    def add(self, residual: float, se: float) -> bool:
        """Take note of one window's residual; returns whether drift is called."""
        excess = max(abs(residual) - self._tolerance, 0.0) / max(se, LEAST_ERROR)
        step = min(excess, LARGEST)
        self._up = max(0.0, self._up + (step if residual > 0 else 0.0) - SLACK)
        self._down = max(0.0, self._down + (step if residual < 0 else 0.0) - SLACK)
        return max(self._up, self._down) >= LIMIT


class DriftWatch:
    """Compares each window of what is held with the one it was held for."""

    def __init__(self) -> None:
        self._reference: Trial | None = None
        self._latency = Cusum(LATENCY_TOLERANCE)
        self._energy = Cusum(ENERGY_TOLERANCE)

    def compare_with(self, reference: Trial | None) -> None:
        """From now on with this trial; None: with nothing, so that nothing drifts."""
        self._reference = reference
        self._latency.restart()
        self._energy.restart()

    def look(self, trial: Trial) -> str:
        """What has drifted, for people; empty: nothing."""
        if self._reference is None:
            return ""
        latency, latency_se = latency_change(trial, self._reference)
        energy, energy_se = energy_change(trial, self._reference)
        slower = self._latency.add(latency, latency_se)
        dearer = self._energy.add(energy, energy_se)
        if slower:
            return f"latency drifted by {format_percent(math.expm1(latency), signed=True)}"
        if dearer:
            return f"energy drifted by {format_percent(math.expm1(energy), signed=True)}"
        return ""
