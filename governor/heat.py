"""What heat allows, and what it costs: the limits of temperature, and leakage.

Which steady power ends up at which temperature is :mod:`governor.thermal_model`'s to know; here it
is held against the limits, and what was measured on a board that is still warming up or cooling
down is put to what it comes to once settled, so that trials compare whenever they were taken.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from governor.devices.device import Sample
from governor.thermal_model import ThermalModel
from governor.trial import Trial
from governor.tried import Tried
from governor.units import HOTTEST, format_temperature

TRIP_MARGIN_C = 0.5
"""The kernel lowers clocks at the trip itself: so far below is the limit."""
NEAR_C = 0.5
"""So near below a limit, a point that still warms is left at once."""
SOON_S = 30.0
"""What would pass a limit by then is left now."""
SLACK_C = 3.0
"""A search among hotter points begins at least so far below a limit."""
RELIEF_C = 4.0
"""A board that throttles lets go some degrees below its trip: it must first get so far below."""
RELIEF = 0.8
"""Of the power that may be kept: at so much, what is too warm already cools, in due time."""
READING_S = 1.0
"""Zones are read this often; see :data:`governor.devices.thermal.ZONE_PERIOD_S`."""
TRIAL_S = 5.0
"""A trial lasts about so long: what is too hot by then is not even tried."""
PATIENCE_S = 10.0
"""A temperature that was not read for so long is missing."""
LOWER = 0.95
"""Of the power of what proved too hot: what is allowed after it, at most."""
SURE_C = 5.0
"""Standard error of a settled temperature at which a correction counts half."""
LEAKAGE_PER_C, LEAKAGE_SPREAD = 0.001, 0.0007
"""Energy an item, relative, for each degree: leakage is 5 to 15 % of a busy board's power and
doubles about every 40 degrees. Learnt from there on."""
MOST_LEAKAGE = 0.005
LEARN_C = 3.0
"""Degrees between two windows at one point that say something of leakage."""
SAME_WORK = 0.03
"""Relative change of latency above which they were not of the same work."""


class Heat:
    """Watches the temperatures of one board.

    Attributes:
        limits_c: by zone, in °C; under :data:`HOTTEST` that of the hottest, the board's own trip
            point included.
        tried: what was measured at the points so far.
    """

    def __init__(
        self, limits_c: Mapping[str, float] | None = None, trip_c: float = math.nan
    ) -> None:
        """
        Args:
            limits_c: that the user has set, by zone or :data:`HOTTEST`.
            trip_c: at which the board lowers its own clocks; NaN: not known.
        """
        self._wanted = dict(limits_c or {})
        self.limits_c = dict(self._wanted)
        trip_limit_c = math.inf if math.isnan(trip_c) else trip_c - TRIP_MARGIN_C
        self.limits_c[HOTTEST] = min(self._wanted.get(HOTTEST, math.inf), trip_limit_c)
        self._models = {zone: ThermalModel() for zone in self.limits_c}
        self._seen_s = dict.fromkeys(self.limits_c, math.nan)
        self._began_s = self._time_s = math.nan
        self._total_j = 0.0
        self._power_w = math.nan
        self._throttles, self._throttled_s = 0, -math.inf
        self._recent: dict[str, deque[float]] = {zone: deque(maxlen=4) for zone in self.limits_c}
        self._leakage = Leakage()
        self._said = False
        self.tried = Tried()

    # What comes in -----------------------------------------------------------------------

    def read(self, sample: Sample, total_j: float) -> None:
        """Take note of a reading; ``total_j``: spent up to it, since any start."""
        if math.isnan(self._time_s):
            self._began_s = self._time_s = sample.time_s
            self._total_j = total_j
            return
        seconds = sample.time_s - self._time_s
        if seconds < READING_S:
            return
        throttles = sample.throttle_events.get("thermal", 0)
        if throttles > self._throttles:
            self._throttled_s = sample.time_s
        self._throttles = throttles
        power_w = (total_j - self._total_j) / seconds
        self._time_s, self._total_j = sample.time_s, total_j
        if not power_w > 0:  # NaN too: no power reading
            return
        self._power_w = power_w
        for zone, model in self._models.items():
            celsius = _of(sample.temperature_c, zone)
            if math.isfinite(celsius):
                model.add(sample.time_s, celsius, power_w)
                self._recent[zone].append(celsius)
                self._seen_s[zone] = sample.time_s

    def changed(self) -> None:
        """Another point is in force: how the temperature moved before says nothing of it."""
        for recent in self._recent.values():
            recent.clear()

    def problem(self) -> str:
        """Said once: which limit cannot be kept as its temperature is not read; else empty."""
        if self._said or not self._time_s - self._began_s >= PATIENCE_S:
            return ""
        missing = [
            f"{'any zone' if zone == HOTTEST else zone} to {format_temperature(self._wanted[zone])}"
            for zone in self._wanted
            if not self._time_s - self._seen_s[zone] < PATIENCE_S
        ]
        if not missing:
            return ""
        self._said = True
        return f"no temperature is read to keep {', '.join(missing)} by; carrying on without"

    # Limits ------------------------------------------------------------------------------

    @property
    def known_limits_c(self) -> dict[str, float]:
        """The limits that there are, by zone; that of all zones under ``hottest``."""
        return {
            zone or "hottest": limit_c
            for zone, limit_c in self.limits_c.items()
            if math.isfinite(limit_c)
        }

    @property
    def headroom_c(self) -> float:
        """Degrees left below the nearest limit; NaN where there is none, or no temperature."""
        left = [
            limit_c - self._models[zone].temperature_c
            for zone, limit_c in self.limits_c.items()
            if math.isfinite(limit_c) and self._models[zone].readings
        ]
        return min(left, default=math.nan)

    @property
    def cap_w(self) -> float:
        """The highest steady power that stays below every limit; infinite where nothing says so."""
        return min((self._steady_cap_w(zone) for zone in self._known()), default=math.inf)

    @property
    def trial_cap_w(self) -> float:
        """The highest power that may be tried now, even if only for a trial."""
        return min([self.cap_w, *map(self._brief_cap_w, self._known())])

    @property
    def spare_w(self) -> float:
        """As :attr:`trial_cap_w`, for a search among hotter points; 0 so near below a limit that
        the first of them would pass it."""
        return 0.0 if self.headroom_c < SLACK_C else self.trial_cap_w

    def too_hot(self, power_w: float) -> str:
        """Why this power cannot be kept for long, for people; empty: it can.

        Only what is more than one standard error too hot is called so.
        """
        for zone in self._known():
            at = self._models[zone].settles_at(power_w)
            if at.value - at.se > self.limits_c[zone]:
                return (
                    f"would settle at {format_temperature(at.value)}, above {self._limit_of(zone)}"
                )
        return ""

    def overheating(self) -> str:
        """Why what is set now must be left at once, for people; empty: it need not."""
        for zone in self._known():
            model, limit_c = self._models[zone], self.limits_c[zone]
            recent = self._recent[zone]
            if len(recent) < 2 or model.temperature_c < limit_c - NEAR_C:
                continue
            if recent[-1] > recent[0] and model.after(SOON_S, self._power_w) > limit_c:
                now = format_temperature(model.temperature_c)
                return f"{now} and rising, at {self._limit_of(zone)}"
        return ""

    @property
    def power_w(self) -> float:
        """Mean power between the last two readings; NaN before."""
        return self._power_w

    def _known(self) -> list[str]:
        """The zones with a limit whose temperature is read."""
        return [
            zone
            for zone, limit_c in self.limits_c.items()
            if math.isfinite(limit_c) and self._time_s - self._seen_s[zone] < PATIENCE_S
        ]

    def _steady_cap_w(self, zone: str) -> float:
        """Where the expected temperature, less what it may be wrong by, is the limit."""
        model, limit_c = self._models[zone], self.limits_c[zone]
        cap_w = model.power_for(limit_c - NEAR_C)
        doubt_c = max(model.settles_at(cap_w).se - NEAR_C, 0.0)
        return cap_w + doubt_c / model.rise_c_per_w

    def _brief_cap_w(self, zone: str) -> float:
        model, limit_c = self._models[zone], self.limits_c[zone]
        idle_c, watt_c = model.after(TRIAL_S, 0.0), model.after(TRIAL_S, 1.0)
        below_c = RELIEF_C if self._time_s - self._throttled_s < TRIAL_S else NEAR_C
        cap_w = (limit_c - below_c - idle_c) / max(watt_c - idle_c, 1e-6)
        return max(cap_w, RELIEF * model.power_for(limit_c))

    def _limit_of(self, zone: str) -> str:
        limit = format_temperature(self.limits_c[zone])
        if zone != HOTTEST:
            return f"the limit of {limit} for {zone}"
        wanted_c = self._wanted.get(HOTTEST, math.inf)
        return f"the limit of {limit}" if self.limits_c[zone] == wanted_c else "the board's trip"

    # Leakage -----------------------------------------------------------------------------

    def settled(self, trial: Trial) -> Trial:
        """The trial, as its energy and power come to once temperatures have settled.

        The less sure the settled temperature, the less is corrected. What the correction itself
        may be wrong by is much the same for all trials of a search, so it is not added to theirs.
        """
        model = self._models[HOTTEST]
        if not model.readings or not trial.power_w > 0 or trial.warming:
            return trial
        at = model.settles_at(trial.power_w)
        change_c = (at.value - model.temperature_c) / (1.0 + (at.se / SURE_C) ** 2)
        warming = math.expm1(self._leakage.per_c * change_c)
        return replace(
            trial,
            energy_j=trial.energy_j * (1.0 + warming),
            power_w=trial.power_w * (1.0 + warming),
            warming=warming,
        )

    def learn(self, trial: Trial) -> None:
        """Take note of what a point draws, as measured."""
        if trial.point is None or not trial.power_w > 0 or not trial.clean:
            return
        self.tried.add(trial)
        if self._models[HOTTEST].readings:
            self._leakage.add(trial, self._models[HOTTEST].temperature_c)


def _of(temperature_c: Mapping[str, float], zone: str) -> float:
    if zone == HOTTEST:
        return max(temperature_c.values(), default=math.nan)
    return temperature_c.get(zone, math.nan)


class Leakage:
    """How energy an item follows temperature, learnt from windows at one point.

    Attributes:
        per_c: relative change of energy for each degree.
    """

    def __init__(self) -> None:
        self.per_c = LEAKAGE_PER_C
        self._variance = LEAKAGE_SPREAD**2
        self._last: tuple[Trial, float] | None = None

    def add(self, trial: Trial, temperature_c: float) -> None:
        """Compare with the window at the same point when it was so much warmer or cooler."""
        if self._last is None or self._last[0].point != trial.point:
            self._last = (trial, temperature_c)
            return
        before, before_c = self._last
        warmer_c = temperature_c - before_c
        if abs(warmer_c) < LEARN_C:
            return
        self._last = (trial, temperature_c)
        if abs(trial.mean_latency_s / before.mean_latency_s - 1.0) > SAME_WORK:
            return
        slope = math.log(trial.energy_j / before.energy_j) / warmer_c
        error = math.hypot(
            trial.energy_se_j / trial.energy_j, before.energy_se_j / before.energy_j
        ) / abs(warmer_c)
        gain = self._variance / (self._variance + error**2)
        self.per_c = min(max(self.per_c + gain * (slope - self.per_c), 0.0), MOST_LEAKAGE)
        self._variance *= 1.0 - gain
