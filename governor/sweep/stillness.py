"""Whether the power sensor still moves, or says the same whatever is set."""

from __future__ import annotations

import math

from governor.devices.device import Sample
from governor.space import OperatingPoint

REFRESHES = 15.0
SETTINGS = 2
"""A sensor that said the same for so many refreshes, on every rail, while so many different
settings were set, counts for nothing. An INA3221 steps by up to 0.4 W and averages, so one
setting alone may well read the same for minutes; two settings, in random order, seldom do, and
what is thrown away then is only measured again. The system's own governors are not counted: under
load they may hold what the fastest setting holds. Sooner than a Jetson's own check of 20 refreshes
and 4 settings, so that nothing is kept which that would have refused."""


class Stillness:
    """How long no rail has changed, and at how many settings.

    Attributes:
        changed_s: when a reading differed from the one before, or the first was read.
    """

    def __init__(self, refresh_s: float) -> None:
        self.changed_s = -math.inf
        self._longest_s = REFRESHES * refresh_s
        self._latest: Sample | None = None
        self._settings: set[OperatingPoint] = set()

    def set(self, point: OperatingPoint) -> None:
        """These clocks are set now."""
        self._settings.add(point)

    def read(self, sample: Sample) -> bool:
        """Take note of a reading; returns whether it ends a time in which the sensor was stale."""
        before, self._latest = self._latest, sample
        if before is not None and _same(before, sample):
            return False
        stale = before is not None and self._is_stale(sample.time_s)
        self.changed_s = sample.time_s
        self._settings.clear()
        return stale

    @property
    def problem(self) -> str:
        """What is wrong with the sensor now; empty: nothing."""
        if self._latest is None or not self._is_stale(self._latest.time_s):
            return ""
        return (
            "the power sensor is stale: no rail has changed for "
            f"{self._latest.time_s - self.changed_s:.0f} s, at {len(self._settings)} settings"
        )

    def _is_stale(self, at_s: float) -> bool:
        return at_s - self.changed_s > self._longest_s and len(self._settings) >= SETTINGS


def _same(one: Sample, other: Sample) -> bool:
    return one.power_w == other.power_w and one.energy_j == other.energy_j
