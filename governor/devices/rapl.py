"""Energy of x86 processors from the kernel's powercap counters (Intel RAPL, AMD too).

A zone counts microjoules in ``energy_uj`` and starts again at 0 after
``max_energy_range_uj``: Documentation/power/powercap/powercap.rst. Zones overlap: a
package holds its cores and its graphics, the platform (``psys``) holds the package, and one
package may be listed by several drivers. The total here is every package and its memory
(``dram``, which is listed below its package but counted apart); the others are only shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from governor.devices.source import Reading
from governor.errors import DeviceError
from governor.lease.kernel_files import read_text

POWERCAP = "sys/class/powercap"
DRIVERS = ("intel-rapl", "intel-rapl-tpmi", "intel-rapl-mmio")
"""In this order: a zone that a later one lists again under the same name is the same energy."""
REFRESH_S = 1e-3
"""The processor updates its counters about every millisecond (Intel SDM volume 3, RAPL)."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter.

    Attributes:
        rail: the zone's name; those below a package end in its number, as in ``core-0``.
        counter: the file.
        range_uj: the largest value that the counter reaches.
    """

    rail: str
    counter: Path
    range_uj: int

    @property
    def counted(self) -> bool:
        """Whether it is part of the total rather than of another zone."""
        return self.rail.startswith(("package-", "dram-"))

    def read_uj(self) -> int:
        """The counter now."""
        return int(read_text(self.counter))


class Rapl:
    """All counters, unwrapped, from when this object was made.

    Attributes:
        zones: all that can be read.
        description: what the total is made of.
        refresh_s: seconds between two changes of a counter.
    """

    refresh_s = REFRESH_S

    def __init__(self, zones: tuple[Zone, ...]) -> None:
        self.zones = zones
        self._counted = tuple(z for z in zones if z.counted) or zones
        self.description = f"RAPL {' + '.join(zone.rail for zone in self._counted)}"
        self._uj = {zone.rail: zone.read_uj() for zone in zones}
        self._joules = dict.fromkeys(self._uj, 0.0)
        self._before_s: float | None = None
        self._before_j = dict(self._joules)

    def read(self, now_s: float) -> Reading:
        """Joules since the start, and mean watts since the reading before this one.

        Between two readings no counter may pass its range: some 40 minutes at 100 W.
        """
        for zone in self.zones:
            uj = zone.read_uj()
            self._joules[zone.rail] += 1e-6 * grown_uj(self._uj[zone.rail], uj, zone.range_uj)
            self._uj[zone.rail] = uj
        elapsed_s = 0.0 if self._before_s is None else now_s - self._before_s
        watts: dict[str, float] = {}
        if elapsed_s > 0:
            watts = {r: (j - self._before_j[r]) / elapsed_s for r, j in self._joules.items()}
        self._before_s, self._before_j = now_s, dict(self._joules)
        rails = [zone.rail for zone in self._counted]
        return Reading(
            power_w=watts,
            total_w=sum(watts[rail] for rail in rails) if watts else None,
            energy_j=sum(self._joules[rail] for rail in rails),
        )


def open_rapl(root: Path) -> Rapl:
    """The processor's energy counters.

    Raises:
        DeviceError: there are none, they may not be read, or they do not count; says which.
    """
    found = tuple(_zones(root / POWERCAP))
    if not found:
        raise DeviceError(f"no RAPL zone in {root / POWERCAP}")
    locked = [zone.counter for zone in found if not _readable(zone)]
    if locked:
        raise DeviceError(
            f"{locked[0]} is for root only (CVE-2020-8694); run as root, or let the group "
            f"governor read it: {permission_command(locked)}"
        )
    counting = tuple(zone for zone in found if zone.read_uj() > 0)  # 0 in virtual machines
    if not any(zone.counted or zone.rail == "psys" for zone in counting):
        raise DeviceError(
            f"no RAPL zone counts: of {', '.join(zone.rail for zone in found)} in "
            f"{root / POWERCAP} every package reads 0"
        )
    return Rapl(counting)


def permission_command(counters: list[Path]) -> str:
    """The command that opens the counters to the group ``governor`` until the next boot."""
    files = " ".join(map(str, counters))
    return f"sudo chgrp governor {files} && sudo chmod g+r {files}"


def grown_uj(before_uj: int, now_uj: int, range_uj: int) -> int:
    """By how much a counter grew that may have started again at 0 once.

    >>> grown_uj(90, 10, 100)
    21
    """
    return now_uj - before_uj if now_uj >= before_uj else now_uj - before_uj + range_uj + 1


def _readable(zone: Zone) -> bool:
    try:
        zone.read_uj()
    except PermissionError:
        return False
    except (OSError, ValueError) as error:
        raise DeviceError(f"{zone.counter} cannot be read: {error}") from None
    return True


def _zones(folder: Path) -> Iterator[Zone]:
    seen: set[str] = set()
    for driver in DRIVERS:
        for path in sorted(folder.glob(f"{driver}:*")):
            try:
                zone = _zone(path)
            except (OSError, ValueError):  # a zone without a counter only sets limits
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
    if not counter.exists():
        raise FileNotFoundError(counter)
    return Zone(rail, counter, int(read_text(path / "max_energy_range_uj")))
