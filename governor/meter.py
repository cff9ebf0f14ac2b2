"""From readings of the power sensor to mean watts with an honest error.

A sensor refreshes every ``sensor_refresh_s`` (about 0.43 s for an INA3221 averaging 512
samples over three channels), and each value is the average of the time since the one
before. Polled faster, it repeats itself: a repeated value is no new information, and the
first fresh value after a change of clocks still holds some of the time before it.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from governor.devices.device import DeviceInfo, Sample
from governor.slo import Estimate, design_effect
from governor.space import FloatArray
from governor.trial import Trial

PRIOR_SPREAD = 0.015
"""Relative spread between power readings that is assumed before any was seen."""
PRIOR_READINGS = 3.0
"""How many readings that assumption is worth."""
STALE = 0.5
"""Relative error of a reading from before the stretch of time in question."""
RESTS = 3
"""So many readings before, and as many after a burst tell what the board draws at rest."""
LINGER_S = 0.015
"""For so long, give or take, the kernel's governors hold a burst's clocks after its end. Assumed:
they look every 10 to 25 ms or so."""
REMEMBERED_S = 120.0
"""Readings older than this are forgotten."""


def resolved_energy_j(trial: Trial | None) -> float:
    """Joules an item; NaN also where the window ended before its energy could be measured."""
    if trial is None or not trial.energy_se_j < STALE * trial.energy_j:  # NaN too
        return math.nan
    return trial.energy_j


class Meter:
    """Collects samples and states the mean power of any recent stretch of time.

    Attributes:
        total_j: joules on the total rail since the first sample.
        rail_j: the same by rail, added up from their power alone.
        latest: the newest sample, None before the first.
    """

    def __init__(self, info: DeviceInfo) -> None:
        self._rail = info.total_rail
        self._refresh_s = info.sensor_refresh_s
        self._readings: deque[tuple[float, float]] = deque()
        self._counts: deque[tuple[float, float]] = deque()
        self._poll_s = 0.0
        self._since_s: float | None = None
        self.total_j = 0.0
        self.rail_j: dict[str, float] = {}
        self.latest: Sample | None = None

    def add(self, sample: Sample) -> None:
        """Take note of one reading of the sensors, in order of time."""
        self._accumulate(sample)
        power_w = sample.power_w.get(self._rail)
        if power_w is not None and math.isfinite(power_w):
            self._keep_if_fresh(self._readings, sample.time_s, power_w)
        if sample.energy_j is not None:
            self._keep_if_fresh(self._counts, sample.time_s, sample.energy_j)
        self.latest = sample

    def _accumulate(self, sample: Sample) -> None:
        before = self.latest
        if before is None:
            return
        elapsed_s = sample.time_s - before.time_s
        self._poll_s = max(elapsed_s, 0.9 * self._poll_s)  # polls are not even
        if sample.energy_j is not None and before.energy_j is not None:
            self.total_j += max(sample.energy_j - before.energy_j, 0.0)
        else:
            watts = sample.power_w.get(self._rail, before.power_w.get(self._rail, 0.0))
            self.total_j += watts * elapsed_s
        for rail, watts in sample.power_w.items():
            if math.isfinite(watts):
                self.rail_j[rail] = self.rail_j.get(rail, 0.0) + watts * elapsed_s

    def _keep_if_fresh(
        self, series: deque[tuple[float, float]], time_s: float, value: float
    ) -> None:
        repeated = bool(series) and series[-1][1] == value
        if repeated and time_s - series[-1][0] < 1.5 * self._refresh_s:
            return
        series.append((time_s, value))
        while time_s - series[0][0] > REMEMBERED_S:
            series.popleft()

    def has_read_since(self, start_s: float) -> bool:
        """Whether anything fresh was read from the total rail, or its counter, after a time."""
        return any(series and series[-1][0] > start_s for series in (self._readings, self._counts))

    def power(self, start_s: float, end_s: float) -> Estimate:
        """Mean watts between two times.

        The energy counter is used where the device has one, else the power readings. Where
        nothing was read in between, the last reading, with an error of :data:`STALE` of it;
        NaN where there never was one.
        """
        return (
            self._from_counter(start_s, end_s)
            or self._from_readings(start_s, end_s)
            or self._from_before()
        )

    def burst(self, start_s: float, end_s: float) -> Estimate:
        """Joules of a stretch of work with rest before and after it, however short.

        A sensor that averages misses nothing: what its readings that overlap the work hold
        above the rest's power is the work's. The less of it there is against their noise, the
        larger the stated error; :data:`STALE` of the energy and more means: not resolvable.
        So does NaN, where rest was not seen on both sides. Ask two refreshes after the end.
        """
        stretches = self._stretches()
        work = [s for s in stretches if s.end_s > start_s and s.start_s - self._poll_s < end_s]
        before = [s.watts for s in stretches if s.end_s <= start_s][-RESTS:]
        after = [s.watts for s in stretches if s.start_s - self._poll_s >= end_s][:RESTS]
        if not work or not before or not after:
            return Estimate(math.nan, math.inf)
        rest = np.asarray(before + after)
        floor_w, spread_w = float(rest.mean()), _spread(rest)
        joules = np.array([s.watts * (s.end_s - s.start_s) for s in work])
        rest_s = sum(s.end_s - s.start_s for s in work) - (end_s - start_s)
        energy_j = float(joules.sum()) - floor_w * rest_s
        noise_j = spread_w / floor_w * float(np.hypot.reduce(joules))
        floor_j = spread_w / math.sqrt(len(rest)) * rest_s
        linger_j = (energy_j / (end_s - start_s) - floor_w) * LINGER_S
        return Estimate(energy_j, math.hypot(noise_j, floor_j, linger_j))

    def _stretches(self) -> list[_Stretch]:
        """The mean power of consecutive stretches of time, by the counter where there is one."""
        if len(self._counts) > 1:
            return [
                _Stretch(since_s, until_s, max(after_j - before_j, 0.0) / (until_s - since_s))
                for (since_s, before_j), (until_s, after_j) in pairwise(self._counts)
            ]
        return [_Stretch(at_s - self._refresh_s, at_s, watts) for at_s, watts in self._readings]

    def _from_counter(self, start_s: float, end_s: float) -> Estimate | None:
        """Between the first and the last fresh count, each seen some time late.

        That is at most one poll, and at most one refresh of the counter. Of the very first
        count nobody knows how old it is.
        """
        fresh = islice(self._counts, 1, None)
        inside = [(at, joules) for at, joules in fresh if start_s <= at <= end_s]
        if len(inside) < 3:
            return None
        (first_s, first_j), (last_s, last_j) = inside[0], inside[-1]
        covered_s = last_s - first_s
        power_w = (last_j - first_j) / covered_s
        if power_w <= 0:  # the counter was reset
            return None
        late_s = min(self._poll_s, self._refresh_s) / math.sqrt(6.0)  # two ends, uniform
        uncovered = (end_s - start_s - covered_s) / (end_s - start_s)
        return Estimate(
            power_w, power_w * math.hypot(late_s / covered_s, PRIOR_SPREAD * uncovered, 0.001)
        )

    def _from_readings(self, start_s: float, end_s: float) -> Estimate | None:
        """The mean of the fresh readings that lie wholly inside, each seen up to a poll late."""
        first_s = start_s + self._refresh_s + self._poll_s
        inside = [watts for at, watts in self._readings if first_s <= at <= end_s]
        if not inside:
            return None
        values = np.asarray(inside)
        spread = _spread(values)
        return Estimate(
            float(values.mean()), spread * math.sqrt(design_effect(values) / len(values))
        )

    def _from_before(self) -> Estimate:
        """A guess: the last reading holds at least part of another operating point."""
        watts = self._readings[-1][1] if self._readings else math.nan
        return Estimate(watts, STALE * watts)


class _Stretch(NamedTuple):
    """Mean watts between two times; a power reading is known to end up to one poll earlier."""

    start_s: float
    end_s: float
    watts: float


def _spread(values: FloatArray) -> float:
    """The standard deviation of power readings, shape ``(n,)``, given what is usual."""
    mean = float(values.mean())
    squares = float(((values - mean) ** 2).sum())
    squares += PRIOR_READINGS * (PRIOR_SPREAD * mean) ** 2
    return math.sqrt(squares / (len(values) - 1 + PRIOR_READINGS))
