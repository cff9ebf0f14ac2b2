"""Read quantities as people write them, and write them as people read them.

Inside the program everything is SI base units; only this module, the command
line and the trace files know of milliseconds and megahertz.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from governor.errors import InputError

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?"
_QUANTITY = re.compile(rf"\s*([+-]?){_NUMBER}\s*([A-Za-zµμ%/]*)\s*\Z")

_TIME_UNITS = {
    "s": 1.0,
    "sec": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "min": 60.0,
    "h": 3600.0,
}
_RATE_UNITS = {"fps": 1.0, "hz": 1.0, "/s": 1.0}
_FREQUENCY_UNITS = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
_ENERGY_UNITS = {"j": 1.0, "kj": 1e3, "wh": 3600.0, "mwh": 3.6, "kwh": 3.6e6}
_POWER_UNITS = {"w": 1.0, "mw": 1e-3, "kw": 1e3}
_TEMPERATURE = re.compile(rf"\s*([+-]?{_NUMBER})\s*(?:°\s*)?([A-Za-z]*)\s*\Z")
COLDEST_C, WARMEST_C = -60.0, 150.0
"""What a board or its room may be, in degrees Celsius; silicon works up to 125."""
HOTTEST = ""
"""The zone of a thermal limit that holds for the hottest of all."""

MOST_TIMES, LONGEST_S = 1000.0, 86_400.0
"""The loosest bounds on latency: times that at all-max, and seconds."""

Temperature = str | float | int

Duration = str | float | int | timedelta


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _QUANTITY.match(text)
    if match is None:
        raise InputError(f"{what} {text!r} is not a number with a unit; write it like {example}")
    sign, mantissa, exponent, unit = match.groups()
    return float(f"{sign}{mantissa}e{exponent or 0}"), unit


def _positive(value: float, what: str, given: object, example: str) -> float:
    if not math.isfinite(value) or value <= 0:
        raise InputError(
            f"{what} must be positive and finite, got {given!r}; write it like {example}"
        )
    return value


def parse_duration(value: Duration, what: str = "duration") -> float:
    """Seconds from ``"50ms"``, ``"20fps"`` (one period), ``0.05`` or a ``timedelta``.

    Raises:
        InputError: not positive and finite, or a unit that is not known.

    >>> parse_duration("50ms")
    0.05
    >>> parse_duration("20fps")
    0.05
    """
    example = '"50ms", "0.05s" or "20fps"'
    if isinstance(value, timedelta):
        return _positive(value.total_seconds(), what, value, example)
    if isinstance(value, bool) or not isinstance(value, str | float | int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"{what} {value!r} is not a duration; write it like {example}")
    if isinstance(value, float | int):
        return _positive(float(value), what, value, example)
    number, unit = _split(value, what, example)
    key = unit.lower()
    if key in _TIME_UNITS:
        return _positive(number * _TIME_UNITS[key], what, value, example)
    if key in _RATE_UNITS:
        return 1.0 / _positive(number * _RATE_UNITS[key], what, value, example)
    problem = f"has the unknown unit {unit!r}" if unit else "has no unit"
    raise InputError(f"{what} {value!r} {problem}; write it like {example}")


@dataclass(frozen=True, slots=True)
class Bound:
    """A latency bound: so many seconds, infinitely many, or so many times those at all-max."""

    value: float
    relative: bool

    def seconds(self, all_max_latency_s: float) -> float:
        """The bound in seconds, given the latency at the all-max corner in seconds."""
        return self.value * all_max_latency_s if self.relative else self.value

    def __str__(self) -> str:
        if math.isinf(self.value):
            return "none"
        return f"{self.value:g}x" if self.relative else format_duration(self.value)


def parse_bound(value: Duration, what: str = "latency SLO") -> Bound:
    """A :class:`Bound` from anything :func:`parse_duration` takes, ``"1.3x"`` or ``"none"``.

    >>> parse_bound("1.3x").seconds(0.010)
    0.013000000000000001
    """
    if isinstance(value, str) and value.strip().lower() == "none":
        return Bound(math.inf, relative=False)
    if isinstance(value, str) and value.strip().lower().endswith("x"):
        number, unit = _split(value, what, '"1.3x"')
        if unit.lower() == "x":
            bound = Bound(_positive(number, what, value, '"1.3x"'), relative=True)
            return _at_most(bound, MOST_TIMES, f"{MOST_TIMES:g}x", what, value)
    return _at_most(Bound(parse_duration(value, what), False), LONGEST_S, "a day", what, value)


def _at_most(bound: Bound, most: float, said: str, what: str, given: object) -> Bound:
    if bound.value > most:
        raise InputError(f"{what} {given!r} is more than {said}; write none where any will do")
    return bound


def _parse_scaled(
    value: str | float, units: dict[str, float], what: str, example: str, bare: bool
) -> float:
    if isinstance(value, str):
        number, unit = _split(value, what, example)
        if unit.lower() in units:
            number *= units[unit.lower()]
        elif unit or not bare:
            problem = f"has the unknown unit {unit!r}" if unit else "has no unit"
            raise InputError(f"{what} {value!r} {problem}; write it like {example}")
        return _positive(number, what, value, example)
    return _positive(float(value), what, value, example)


def _check_kind(value: object, what: str, kind: str, example: str) -> None:
    """Only text and numbers can be a quantity; True is neither."""
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        raise InputError(f"{what} {value!r} is not {kind}; write it like {example}")


def parse_energy(value: str | float, what: str = "energy") -> float:
    """Joules from ``"20Wh"``, ``"72kJ"`` or ``72000.0``.

    Raises:
        InputError: not positive and finite, or a unit that is not known.

    >>> parse_energy("20Wh")
    72000.0
    """
    example = '"20Wh" or "72kJ"'
    _check_kind(value, what, "an energy", example)
    return _parse_scaled(value, _ENERGY_UNITS, what, example, bare=False)


def parse_knob_value(knob: str, value: str | float) -> float:
    """A knob's level in base units; the suffix of the knob's name says which unit it has.

    >>> parse_knob_value("gpu_hz", "1.3GHz")
    1300000000.0
    >>> parse_knob_value("batch_size", "8")
    8.0
    """
    if knob.endswith("_hz"):
        return _parse_scaled(value, _FREQUENCY_UNITS, knob, '"1.3GHz" or "918MHz"', bare=False)
    if knob.endswith("_w"):
        return _parse_scaled(value, _POWER_UNITS, knob, '"15W"', bare=False)
    return _parse_scaled(value, {}, knob, '"4"', bare=True)


def parse_power(value: str | float, what: str = "power") -> float:
    """Watts from ``"10W"``, ``"7500mW"`` or ``10.0``.

    Raises:
        InputError: not positive and finite, or a unit that is not known.

    >>> parse_power("7500mW")
    7.5
    """
    example = '"10W" or "7500mW"'
    _check_kind(value, what, "a power", example)
    return _parse_scaled(value, _POWER_UNITS, what, example, bare=False)


def parse_temperature(value: Temperature, what: str = "temperature") -> float:
    """Degrees Celsius from ``"85C"``, ``"85 °C"`` or ``85``.

    Raises:
        InputError: no such number, another unit, or nothing that a board has.

    >>> parse_temperature("85C")
    85.0
    """
    example = '"85C"'
    _check_kind(value, what, "a temperature", example)
    celsius = float(value) if not isinstance(value, str) else _celsius(value, what, example)
    if not COLDEST_C <= celsius <= WARMEST_C:
        raise InputError(
            f"{what} must be from {COLDEST_C:g} to {WARMEST_C:g} °C, got {value!r}; "
            f"write it like {example}"
        )
    return celsius


def _celsius(text: str, what: str, example: str) -> float:
    match = _TEMPERATURE.match(text)
    if match is None or match[4].lower() not in ("", "c"):
        raise InputError(f"{what} {text!r} is not in degrees Celsius; write it like {example}")
    return float(match[1])


ThermalLimit = Temperature | Mapping[str, Temperature]


def parse_thermal_limit(limit: ThermalLimit | None) -> dict[str, float]:
    """Degrees Celsius by zone, :data:`HOTTEST` for that of all zones; None: no limit.

    Raises:
        InputError: it is neither a temperature nor some by zone.

    >>> parse_thermal_limit("85C"), parse_thermal_limit({"gpu-thermal": 80})
    ({'': 85.0}, {'gpu-thermal': 80.0})
    """
    if limit is None:
        return {}
    by_zone = limit if isinstance(limit, Mapping) else {HOTTEST: limit}
    return {
        zone: parse_temperature(each, f"thermal limit{f' of {zone}' if zone else ''}")
        for zone, each in by_zone.items()
    }


def thermal_limits(texts: Iterable[str]) -> dict[str, Temperature] | None:
    """What the command line says: ``85C`` for all, or ``ZONE=85C``; None where it says nothing.

    Raises:
        InputError: a zone has two limits.

    >>> thermal_limits(["85C", "gpu-thermal=80C"])
    {'': '85C', 'gpu-thermal': '80C'}
    """
    limits: dict[str, Temperature] = {}
    for text in texts:
        zone, _, celsius = text.rpartition("=")
        if zone in limits:
            raise InputError(f"--thermal-limit {text!r}: {zone or 'the hottest'} has one already")
        limits[zone] = celsius
    parse_thermal_limit(limits)
    return limits or None


def knob_limits(texts: Iterable[str]) -> dict[str, tuple[str | None, str | None]] | None:
    """What the command line says, ``KNOB=LOWEST:HIGHEST`` with either left out; None: nothing.

    Raises:
        InputError: it is no such thing, or a knob has two limits.

    >>> knob_limits(["gpu_hz=300MHz:", "cpu_cores=2:4"])
    {'gpu_hz': ('300MHz', None), 'cpu_cores': ('2', '4')}
    """
    limits: dict[str, tuple[str | None, str | None]] = {}
    for text in texts:
        knob, _, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        if not knob or not colon or not (low or high):
            raise InputError(f"--limit {text!r} is no limit; write it like gpu_hz=300MHz:900MHz")
        if knob in limits:
            raise InputError(f"--limit {text!r}: {knob} has one already")
        for end in filter(None, (low, high)):
            parse_knob_value(knob, end)
        limits[knob] = (low or None, high or None)
    return limits or None


def format_temperature(celsius: float) -> str:
    """
    >>> format_temperature(85.0), format_temperature(84.72)
    ('85 °C', '84.7 °C')
    """
    return f"{celsius:.1f}".removesuffix(".0") + " °C"


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return f"0 {dict(steps)[1.0]}"
    for factor, unit in steps:
        if abs(value) >= 0.9995 * factor:  # what rounds up to 1000 belongs to the next unit
            return f"{value / factor:.3g} {unit}"
    factor, unit = steps[-1]
    return f"{value / factor:.3g} {unit}"


def format_duration(seconds: float) -> str:
    """
    >>> format_duration(0.0123)
    '12.3 ms'
    """
    if seconds >= 100:
        return f"{seconds:.0f} s"
    return _scaled(seconds, ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")))


def format_energy(joules: float) -> str:
    """
    >>> format_energy(0.461), format_energy(0.0), format_energy(1.234e6)
    ('461 mJ', '0 J', '1.23 MJ')
    """
    return _scaled(joules, ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")))


def format_power(watts: float) -> str:
    """
    >>> format_power(12.34), format_power(1234.0)
    ('12.3 W', '1.23 kW')
    """
    return _scaled(watts, ((1e3, "kW"), (1.0, "W"), (1e-3, "mW")))


def format_knob_value(knob: str, value: float) -> str:
    """A level of a knob for people.

    >>> format_knob_value("gpu_hz", 1300500000.0)
    '1300.5 MHz'
    """
    if knob.endswith("_hz"):
        return f"{value / 1e6:g} MHz"
    if knob.endswith("_w"):
        return f"{value:g} W"
    return f"{value:g}"


def format_knob_name(knob: str) -> str:
    """The knob's name without its unit: ``cpu_hz`` is shown as ``CPU``.

    >>> format_knob_name("emc_hz"), format_knob_name("batch_size")
    ('EMC', 'batch size')
    """
    if knob.endswith("_hz"):
        return knob.removesuffix("_hz").upper()
    return knob.removesuffix("_w").replace("_", " ").replace("cpu", "CPU")


def format_percent(fraction: float, signed: bool = False) -> str:
    """
    >>> format_percent(0.1534), format_percent(-0.02, signed=True), format_percent(-0.0001)
    ('15.3 %', '-2.0 %', '0.0 %')
    """
    percent = round(100 * fraction, 1) + 0.0  # no "-0.0"
    return f"{percent:{'+' if signed else ''}.1f} %"
