"""Power sensors and temperatures of ordinary Linux machines, from ``/sys/class/hwmon``.

Which sensor stands for what is a table here, by the driver's exact name: nothing is guessed
from a label. Units (µW, m°C): the kernel's Documentation/hwmon/sysfs-interface.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from governor.devices.source import Reading
from governor.devices.thermal import plausible
from governor.errors import DeviceError
from governor.lease.kernel_files import read_number, read_text

HWMON = "sys/class/hwmon"
Scope = Literal["machine", "cpu"]

TOTALS: dict[str, tuple[Scope, str, float]] = {
    "power_meter": ("machine", "power1_average", 1.0),
    "fam15h_power": ("cpu", "power1_input", 1.0),
}
"""By driver: what its sensor stands for, its file, and seconds between two readings.

``power_meter`` is the ACPI meter of the whole machine (hwmon/acpi_power_meter.rst, which
leaves the interval to the firmware; 1 s is usual), ``fam15h_power`` an AMD processor.
"""
PROCESSOR_TEMPERATURES = frozenset(("coretemp", "k10temp", "cpu_thermal", "scmi_sensors"))


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """One sensor that stands for the whole machine or for its processors.

    Attributes:
        rail: the driver's name.
        scope: what the sensor stands for.
        watts: the file, in microwatts.
        refresh_s: seconds between two fresh readings.
    """

    rail: str
    scope: Scope
    watts: Path
    refresh_s: float

    @property
    def description(self) -> str:
        """What is counted, and by what."""
        what = "whole machine" if self.scope == "machine" else "processor"
        return f"{what} by hwmon {self.rail}"

    def read(self, now_s: float) -> Reading:
        """Watts now; there is no counter."""
        watts = 1e-6 * read_number(self.watts)
        if not 0.0 <= watts < math.inf:
            raise ValueError(f"{self.watts} tells {watts:g} W")
        return Reading({self.rail: watts}, watts)


def open_hwmon(root: Path) -> PowerSensor:
    """The power sensor that stands for most of this machine.

    Raises:
        DeviceError: there is none; says which others are there.
    """
    drivers = dict(_drivers(root))
    for name, (scope, file, refresh_s) in TOTALS.items():
        if name in drivers:
            sensor = PowerSensor(name, scope, drivers[name] / file, refresh_s)
            try:
                sensor.read(0.0)
            except (OSError, ValueError) as error:
                raise DeviceError(f"{sensor.watts} cannot be read: {error}") from None
            return sensor
    others = f", only {', '.join(drivers)}" if drivers else ""
    raise DeviceError(f"none of {', '.join(TOTALS)} in {root / HWMON}{others}")


def temperature_files(root: Path) -> dict[str, Path]:
    """The files of the processors' temperatures, by zone; where two have one label, apart."""
    files: dict[str, Path] = {}
    for name, folder in _drivers(root):
        if name in PROCESSOR_TEMPERATURES:
            for path in sorted(folder.glob("temp*_input")):
                zone = _label(path, f"{name} {path.name.removesuffix('_input')}")
                files[f"{zone} {folder.name}" if zone in files else zone] = path
    return files


def temperatures(files: dict[str, Path]) -> dict[str, float]:
    """Degrees Celsius by zone; one that is powered off now, or tells none, is absent."""
    degrees: dict[str, float] = {}
    for zone, path in files.items():
        with suppress(OSError, ValueError):
            celsius = 1e-3 * read_number(path)
            if plausible(celsius):
                degrees[zone] = celsius
    return degrees


def _label(path: Path, otherwise: str) -> str:
    try:
        return read_text(path.with_name(path.name.replace("_input", "_label"))) or otherwise
    except OSError:
        return otherwise


def _drivers(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted((root / HWMON).glob("hwmon*")):
        with suppress(OSError):
            yield read_text(folder / "name"), folder
