"""A Jetson's temperatures, and what makes it lower its own clocks.

Zones answer EAGAIN while the block they watch is powered off: they are absent then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from governor.devices.polled_file import PolledFile
from governor.lease.kernel_files import exists, text_if_there

THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon"
OVER_CURRENT = "sys/devices/platform/soctherm-oc-event/hwmon"

ZONE_PERIOD_S = 1.0
"""Heat moves slowly, and a zone costs 80 us to read on an AGX Orin."""
EVENT_PERIOD_S = 0.5
"""The over-current counters of Orin are published about every 2 s."""

LOWEST_C, HIGHEST_C = -100.0, 250.0
"""Well beyond what silicon works at."""
CONSTANT_ZONES = frozenset(("PMIC-Die",))
"""Always 100 degrees, on every board that has it."""
CAUSES = {1: "under_voltage", 2: "average_over_current", 3: "over_current"}
"""What the counters ``oc1`` to ``oc3`` of ``soctherm_oc`` count."""
_LOWERS_CLOCKS = re.compile("cpu|gpu|devfreq|throttle", re.IGNORECASE)
"""Cooling devices that lower a clock; the others are fans and alerts."""

THROTTLING = (
    "the board is too hot and holds its own clocks down: a limit may read lower than it was set, "
    "no higher clock is tried meanwhile, and that lower limit is what is put back"
)
"""The kernel does not say what the limit was: it gives the lower of a user's and its own."""


def plausible(celsius: float) -> bool:
    """Whether a chip can have this temperature.

    A sensor that is off or broken may tell -274 (``THERMAL_TEMP_INVALID`` of the kernel's
    thermal framework) or the largest number that there is.
    """
    return LOWEST_C <= celsius <= HIGHEST_C


class Temperatures:
    """Degrees Celsius by zone, read afresh once in :data:`ZONE_PERIOD_S`."""

    def __init__(self, root: Path) -> None:
        self._zones = dict(_zones(root))
        self._due_s = float("-inf")
        self._celsius: dict[str, float] = {}

    def read(self, now_s: float) -> dict[str, float]:
        """All zones that answer."""
        if now_s >= self._due_s:
            self._due_s = now_s + ZONE_PERIOD_S
            readings = {zone: file.read_if_there() for zone, file in self._zones.items()}
            self._celsius = {
                zone: c for zone, c in readings.items() if c is not None and plausible(c)
            }
        return self._celsius

    def close(self) -> None:
        """Let go of all files."""
        for file in self._zones.values():
            file.close()


def trip_c(root: Path) -> float:
    """The lowest temperature at which the kernel lowers a clock for heat, in °C; NaN: not told.

    That is a zone's ``passive`` trip point; ``active`` ones start a fan.
    """
    trips: list[float] = []
    for folder in (root / THERMAL).glob("thermal_zone*"):
        if _type(folder) in CONSTANT_ZONES:
            continue
        for kind in folder.glob("trip_point_*_type"):
            if text_if_there(kind) == "passive":
                celsius = text_if_there(kind.with_name(kind.name.replace("_type", "_temp")))
                trips += [int(celsius) / 1e3] if celsius.isdecimal() else []
    return min((each for each in trips if each > 0), default=math.nan)


class Throttling:
    """Counts how often the board lowered its own clocks, by cause.

    ``thermal`` grows at every look at which a cooling device holds a clock down, so that it
    keeps growing for as long as that lasts; the others are the hardware's own counters.
    """

    def __init__(self, root: Path) -> None:
        self._cooling = tuple(_cooling(root))
        self._counters = dict(_counters(root))
        self._due_s = float("-inf")
        self._events: dict[str, int] = {"thermal": 0} if self._cooling else {}

    def read(self, now_s: float) -> dict[str, int]:
        """Events so far; a counter that cannot be read keeps its value."""
        if now_s >= self._due_s:
            self._due_s = now_s + EVENT_PERIOD_S
            self._events = {**self._events, **self._look()}
        return self._events

    def _look(self) -> dict[str, int]:
        seen = {cause: file.read_if_there() for cause, file in self._counters.items()}
        events = {cause: int(count) for cause, count in seen.items() if count is not None}
        if any((file.read_if_there() or 0) > 0 for file in self._cooling):
            events["thermal"] = self._events["thermal"] + 1
        return events

    def close(self) -> None:
        """Let go of all files."""
        for file in (*self._cooling, *self._counters.values()):
            file.close()


def _zones(root: Path) -> Iterator[tuple[str, PolledFile]]:
    seen: set[str] = set()
    for folder in sorted((root / THERMAL).glob("thermal_zone*")):
        zone = _type(folder)
        if zone and zone not in CONSTANT_ZONES:
            name = f"{zone} {folder.name}" if zone in seen else zone
            seen.add(zone)
            yield name, PolledFile(folder / "temp", 1e-3)


def _cooling(root: Path) -> Iterator[PolledFile]:
    for folder in sorted((root / THERMAL).glob("cooling_device*")):
        if _LOWERS_CLOCKS.search(_type(folder)):
            yield PolledFile(folder / "cur_state")


def _counters(root: Path) -> Iterator[tuple[str, PolledFile]]:
    folders = [*(root / OVER_CURRENT).glob("hwmon*"), *(root / HWMON).glob("hwmon*")]
    named = [folder for folder in folders if text_if_there(folder / "name") == "soctherm_oc"]
    for folder in sorted(named)[:1]:
        for number, cause in CAUSES.items():
            path = folder / f"oc{number}_event_cnt"
            if exists(path):
                yield cause, PolledFile(path)


def _type(folder: Path) -> str:
    return text_if_there(folder / "type")
