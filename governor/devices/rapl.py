"""Energy of x86 processors from the kernel's powercap counters (Intel RAPL, AMD too).

A zone counts microjoules in ``energy_uj`` and starts again at 0 after
``max_energy_range_uj``: Documentation/power/powercap/powercap.rst. Zones overlap: a
package holds its cores and its graphics, the platform (``psys``) holds the package, and one
package may be listed by several drivers. The total here is every package and its memory
(``dram``, which is listed below its package but counted apart); the others are only shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from governor.devices.source import Reading
from governor.errors import DeviceError
from governor.lease.kernel_files import exists, read_count, read_text

POWERCAP = "sys/class/powercap"
DRIVERS = ("intel-rapl", "intel-rapl-tpmi", "intel-rapl-mmio")
"""In this order: a zone that a later one lists again under the same name is the same energy."""
PLATFORM = "psys"
MOST_W = 10_000.0
"""A counter that seems to have grown by more over a wrap did not wrap: a suspended machine's
begins anew, and root may set it to 0."""
REFRESH_S = 1e-3
"""The processor updates its counters about every millisecond (Intel SDM volume 3, RAPL)."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter.

    Attributes:
        rail: the zone's name; those below a package end in its number, as in ``core-0``.
        counter: the file.
        range_uj: the largest value that the counter reaches; 0: not told.
    """

    rail: str
    counter: Path
    range_uj: int

    @property
    def counted(self) -> bool:
        """Whether it is part of the total rather than of another zone."""
        return self.rail.startswith(("package-", "dram-"))

    def read_uj(self) -> int:
        """The counter now.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no count.
        """
        return read_count(self.counter)


class Rapl:
    """All counters, unwrapped, from when this object was made.

    Attributes:
        zones: all that can be read.
        description: what the total is made of.
        refresh_s: seconds between two changes of a counter.
    """

    refresh_s = REFRESH_S

    def __init__(self, start_uj: Mapping[Zone, int]) -> None:
        """``start_uj``: of each zone what it counts now."""
        self.zones = tuple(start_uj)
        self._counted = tuple(_total(self.zones))
        self.description = f"RAPL {' + '.join(zone.rail for zone in self._counted)}"
        self._seen = {zone: (math.nan, uj) for zone, uj in start_uj.items()}
        self._joules = dict.fromkeys(self.zones, 0.0)

    def read(self, now_s: float) -> Reading:
        """Joules since the start, and mean watts since the reading before this one.

        Between two readings no counter may pass its range: some 40 minutes at 100 W.

        Raises:
            OSError, ValueError: a zone of the total cannot be read. Another one is left out.
        """
        watts: dict[str, float] = {}
        for zone in self.zones:
            if zone in self._counted:
                watts[zone.rail] = self._look(zone, now_s)
                continue
            with suppress(OSError, ValueError):
                watts[zone.rail] = self._look(zone, now_s)
        watts = {rail: value for rail, value in watts.items() if not math.isnan(value)}
        known = [watts[zone.rail] for zone in self._counted if zone.rail in watts]
        return Reading(
            power_w=watts,
            total_w=sum(known) if len(known) == len(self._counted) else None,
            energy_j=sum(self._joules[zone] for zone in self._counted),
        )

    def _look(self, zone: Zone, now_s: float) -> float:
        """Its watts since the look before, NaN at the first."""
        since_s, before_uj = self._seen[zone]
        uj = zone.read_uj()
        self._seen[zone] = now_s, uj
        elapsed_s = now_s - since_s
        joules = 1e-6 * grown_uj(before_uj, uj, zone.range_uj)
        if uj < before_uj and joules > MOST_W * elapsed_s:
            joules = 1e-6 * uj
        self._joules[zone] += joules
        return joules / elapsed_s if elapsed_s > 0 else math.nan


def open_rapl(root: Path) -> Rapl:
    """The processor's energy counters.

    Raises:
        DeviceError: there are none, they may not be read, or they do not count; says which.
    """
    found = tuple(_zones(root / POWERCAP))
    if not found:
        raise DeviceError(f"no RAPL zone in {root / POWERCAP}")
    first = {zone: _first(zone) for zone in found}
    locked = [zone.counter for zone, uj in first.items() if isinstance(uj, PermissionError)]
    for zone in _total(found):
        problem = first[zone]
        if isinstance(problem, PermissionError):
            raise DeviceError(
                f"{zone.counter} is for root only (CVE-2020-8694); run as root, or let the group "
                f"governor read it: {permission_command(locked)}"
            )
        if isinstance(problem, Exception):
            raise DeviceError(f"{zone.counter} cannot be read: {problem}")
    counting = {zone: uj for zone, uj in first.items() if isinstance(uj, int) and uj > 0}
    if not _total(tuple(counting)):
        raise DeviceError(
            f"no RAPL zone counts: of {', '.join(zone.rail for zone in found)} in "
            f"{root / POWERCAP} every package reads 0"
        )
    return Rapl(counting)


def _first(zone: Zone) -> int | OSError | ValueError:
    """What it counts now, 0 in virtual machines; or why that cannot be told."""
    try:
        return zone.read_uj()
    except (OSError, ValueError) as error:
        return error


def _total(zones: Sequence[Zone]) -> list[Zone]:
    """Those that the total is made of: packages and memory, else the platform."""
    counted = [zone for zone in zones if zone.counted]
    return counted or [zone for zone in zones if zone.rail == PLATFORM]


def permission_command(counters: list[Path]) -> str:
    """The command that opens the counters to the group ``governor`` until the next boot."""
    files = " ".join(map(str, counters))
    return f"sudo chgrp governor {files} && sudo chmod g+r {files}"


def grown_uj(before_uj: int, now_uj: int, range_uj: int) -> int:
    """By how much a counter grew that may have started again at 0 once.

    One that was above the range, as it was told, has been set to 0 by someone.

    >>> grown_uj(90, 10, 100)
    21
    """
    if now_uj >= before_uj:
        return now_uj - before_uj
    return now_uj - before_uj + range_uj + 1 if before_uj <= range_uj else now_uj


def _zones(folder: Path) -> Iterator[Zone]:
    seen: set[str] = set()
    for driver in DRIVERS:
        for path in sorted(folder.glob(f"{driver}:*")):
            try:
                zone = _zone(path)
            except OSError:  # a zone without a counter only sets limits
                continue
            if zone.rail not in seen:
                seen.add(zone.rail)
                yield zone


def _zone(path: Path) -> Zone:
    rail = read_text(path / "name")
    _, _, numbers = path.name.partition(":")
    package, below, _ = numbers.partition(":")
    if below:
        rail = f"{rail}-{package}"
    counter = path / "energy_uj"
    if not rail or not exists(counter):
        raise FileNotFoundError(counter)
    range_uj = 0
    with suppress(OSError, ValueError):
        range_uj = read_count(path / "max_energy_range_uj")
    return Zone(rail, counter, range_uj)
