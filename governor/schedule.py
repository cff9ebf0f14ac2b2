"""Objectives that change with time: a battery that must last, energy that is dearer at some hours.

Neither needs a new search when it changes: what was measured stays true, and is only weighed
anew (see :meth:`governor.controller.Controller.aim`).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Protocol

from governor.devices.device import Clock
from governor.errors import InputError, problem_of, unknown_name
from governor.objective import OBJECTIVES, Objective
from governor.units import parse_duration, parse_energy, parse_power

LEAST_CHANGE = 0.05
"""Relative. Weights and caps that change by less are not worth choosing anew."""
LEAST_CAP_W = 1e-3
"""What an empty battery allows: nothing keeps it, so the setting of least power is held."""

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a schedule is asked.

    Attributes:
        time: local; of an emulated board its virtual time, that began at midnight.
        spent_j: by the device, on its total rail, since the start.
    """

    time: datetime
    spent_j: float


class Schedule(Protocol):
    """Says what the objective is, whenever it is asked: once a minute."""

    def objective(self, moment: Moment) -> Objective:
        """What counts now. Called from the governor's thread; what it raises is logged."""
        ...


class Battery:
    """The lowest latency at which a battery lasts until a deadline.

    The cap on power is the energy left over the time left, so what was saved earlier may be
    spent later. After the deadline there is no cap.
    """

    def __init__(
        self, energy: str | float | Callable[[], float], until: str | datetime | timedelta
    ) -> None:
        """
        Args:
            energy: in the battery at the start, ``"20Wh"`` or J, less what the device's own
                sensors say it took since; or a callable that returns the J left, such as
                :class:`PowerSupply`, which counts whatever else the battery feeds.
            until: local time ``"18:00"``, a time from the start ``"6h"``, or when.

        Raises:
            InputError: an argument cannot be used.
        """
        self._left_j = energy if callable(energy) else None
        self._full_j = 0.0 if callable(energy) else parse_energy(energy, "battery energy")
        self._until = until if isinstance(until, datetime | timedelta) else _parse_until(until)
        self._deadline: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Battery:
        """From ``"20Wh until 18:00"``, or ``"BAT0 until 6h"`` where Linux shows the battery.

        Raises:
            InputError: it is neither.
        """
        energy, _, until = (part.strip() for part in text.partition(" until "))
        supply = PowerSupply.named(energy)
        return cls(energy if supply is None else supply, until)

    def objective(self, moment: Moment) -> Objective:
        """Latency under the cap that the energy left allows."""
        if self._deadline is None:
            self._deadline = _deadline(self._until, moment.time)
        left_s = (self._deadline - moment.time).total_seconds()
        if left_s <= 0:
            return Objective(0.0, 1.0)
        left_j = self._full_j - moment.spent_j if self._left_j is None else self._left_j()
        return Objective(0.0, 1.0, max(left_j / left_s, LEAST_CAP_W))


def _parse_until(text: str) -> time | timedelta:
    if match := _CLOCK.fullmatch(text.strip()):
        return time(int(match[1]), int(match[2]))
    try:
        return timedelta(seconds=parse_duration(text, "deadline"))
    except InputError as error:
        raise InputError(f'deadline {text!r} is no time; write it like "18:00" or "6h"') from error


def _deadline(until: datetime | time | timedelta, now: datetime) -> datetime:
    if isinstance(until, datetime):
        return until if until.tzinfo is None else until.astimezone().replace(tzinfo=None)
    if isinstance(until, timedelta):
        return now + until
    today = datetime.combine(now.date(), until)
    return today if today > now else today + timedelta(days=1)


class PowerSupply:
    """Reads the energy left from Linux's ``power_supply`` class: J, when called."""

    ROOT = Path("/sys/class/power_supply")

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError when the folder tells no energy."""
        self._folder = Path(folder)
        self()

    @classmethod
    def named(cls, name: str) -> PowerSupply | None:
        """That of this name; None: there is none."""
        known = [path.name for path in cls.ROOT.glob("*")] if cls.ROOT.is_dir() else []
        return cls(cls.ROOT / name) if name in known else None

    def __call__(self) -> float:
        """The energy left; files are in µWh, or in µAh and µV."""
        try:
            energy = self._folder / "energy_now"
            if energy.exists():
                return 3600e-6 * float(energy.read_text())
            charge, volts = (
                1e-6 * float((self._folder / name).read_text())
                for name in ("charge_now", "voltage_now")
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self._folder} tells no energy ({error}); it takes energy_now, or charge_now "
                "and voltage_now"
            ) from error
        return 3600.0 * charge * volts


class Tariff:
    """Energy weighed by its price, or its carbon, at the hour of the day.

    At the mean price one per cent of energy is worth one per cent of latency; in dear hours
    more, in cheap ones less. So the same work is done with less energy when that is dear and
    sooner when it is cheap, always within the latency bound. (Were energy all that counts,
    the price would change nothing: the setting of least energy is the cheapest at any.)
    """

    def __init__(
        self,
        prices: Mapping[int, float] | Callable[[datetime], float],
        power_cap_w: float = math.inf,
    ) -> None:
        """
        Args:
            prices: from each hour of the day on, 0 among them, in any unit; or a callable that
                returns the price over its usual mean. Below 0 counts as 0.
            power_cap_w: watts, at any hour.

        Raises:
            InputError: not prices for a day.
        """
        self._power_cap_w = power_cap_w
        self._relative = None if callable(prices) else _relative(prices)
        self._asked = prices if callable(prices) else None

    @classmethod
    def read(cls, path: str | Path, power_cap_w: float = math.inf) -> Tariff:
        """From a CSV file: a header, then the hour (0 to 23) and its price in each line.

        Raises:
            InputError: the file cannot be read or is no such table, with its line.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({problem_of(error)})") from error
        prices: dict[int, float] = {}
        lines = csv.reader(io.StringIO(text))
        next(lines, None)
        for cells in filter(None, lines):
            where = f"{path}, line {lines.line_num}"
            try:
                hour, price = int(cells[0]), float(cells[1])
            except (ValueError, IndexError) as error:
                raise InputError(
                    f'{where}: expected an hour and a price such as "7,0.31"'
                ) from error
            if hour in prices:
                raise InputError(f"{where}: hour {hour} is there twice; drop one")
            prices[hour] = price
        try:
            return cls(prices, power_cap_w)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def objective(self, moment: Moment) -> Objective:
        """Energy to the power of its relative price, times latency."""
        if self._relative is not None:
            weight = self._relative[moment.time.hour]
        else:
            weight = 1.0 if self._asked is None else max(self._asked(moment.time), 0.0)
        return Objective(weight, 1.0, self._power_cap_w)


def _relative(prices: Mapping[int, float]) -> list[float]:
    """The price of each hour over the day's mean."""
    for hour, price in prices.items():
        if hour not in range(24) or not math.isfinite(price):
            raise InputError(f"hours are 0 to 23 and prices finite, got {hour} and {price!r}")
    if 0 not in prices:
        raise InputError("a day begins at hour 0, which has no price; add one")
    day: list[float] = []
    for hour in range(24):
        day.append(max(prices[hour], 0.0) if hour in prices else day[-1])
    mean = sum(day) / 24
    if mean <= 0:
        raise InputError("no hour has a price above 0; there is nothing to weigh")
    return [price / mean for price in day]


def parse_objective(text: str, power_cap: str | float | None = None) -> Objective | Schedule:
    """From ``"energy"``, ``"20Wh until 18:00"`` or the path of a tariff, ``"prices.csv"``.

    Raises:
        InputError: it is none of these, or does not go with a power cap.
    """
    if " until " in text:
        if power_cap is not None:
            raise InputError("a battery sets the power cap by itself; drop the one that is given")
        return Battery.parse(text)
    if text.lower().endswith(".csv"):
        return Tariff.read(
            text, math.inf if power_cap is None else parse_power(power_cap, "power cap")
        )
    if text not in OBJECTIVES:
        others = 'a battery ("20Wh until 18:00") or a tariff (prices.csv)'
        raise unknown_name("objective", text, OBJECTIVES, others)
    return Objective.parse(text, power_cap)


def differs(objective: Objective, held: Objective) -> bool:
    """Whether it is so far from what is held that choosing anew may pay."""
    if objective.capped != held.capped:
        return True
    if objective.capped and abs(objective.power_cap_w / held.power_cap_w - 1.0) > LEAST_CHANGE:
        return True
    shares = [one.energy / (one.energy + one.latency) for one in (objective, held)]
    return abs(shares[0] - shares[1]) > LEAST_CHANGE / 2


class Follower:
    """Asks a schedule from time to time.

    Attributes:
        objective: what is aimed at now.
    """

    EVERY_S = 60.0

    def __init__(self, schedule: Schedule, clock: Clock, spent_j: float = 0.0) -> None:
        """
        Args:
            clock: the device's; a virtual one began at midnight.
            spent_j: by the device since the start.
        """
        self._schedule = schedule
        self._clock = clock
        self._next_s = -math.inf
        self.objective = schedule.objective(self._moment(spent_j))

    def look(self, now_s: float, spent_j: float) -> Objective | None:
        """Another objective, where it has changed; ``now_s`` is on the device's clock."""
        if now_s < self._next_s:
            return None
        self._next_s = now_s + self.EVERY_S
        objective = self._schedule.objective(self._moment(spent_j))
        if not differs(objective, self.objective):
            return None
        self.objective = objective
        return objective

    def _moment(self, spent_j: float) -> Moment:
        now = datetime.now()
        if self._clock.virtual:
            now = datetime.combine(now.date(), time()) + timedelta(seconds=self._clock.now())
        return Moment(now, spent_j)
