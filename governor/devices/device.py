"""What a backend offers: the one interface that everything above it knows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from governor.space import OperatingPoint, Space


class Clock(Protocol):
    """Seconds that only grow. Virtual clocks move when something is emulated on them."""

    @property
    def virtual(self) -> bool:
        """Whether time is emulated: then nothing may wait for it in another thread."""
        ...

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        ...


class MonotonicClock:
    """The machine's own clock: ``time.perf_counter``."""

    virtual = False

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of every sensor.

    Attributes:
        time_s: when, on the device's clock.
        power_w: watts by rail, the total rail included; a failed rail is absent.
        temperature_c: degrees Celsius by zone.
        throttle_events: events so far by cause, such as ``thermal`` or ``over_current``.
        energy_j: the total-energy counter, where the device has one: joules since any start.
    """

    time_s: float
    power_w: Mapping[str, float]
    temperature_c: Mapping[str, float] = field(default_factory=dict[str, float])
    throttle_events: Mapping[str, int] = field(default_factory=dict[str, int])
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is.

    Attributes:
        name: short, such as ``agx-orin``.
        description: for people, such as ``Jetson AGX Orin 64 GB (emulated)``.
        emulated: no figure from this device is a measurement of hardware.
        total_rail: the key of ``Sample.power_w`` that is the whole of what is charged.
        sensor_refresh_s: seconds between two fresh sensor readings.
        settle_s: seconds from a write until the new point is in force.
        trip_c: degrees Celsius at which the board lowers its own clocks; NaN: not known.
        workload: what an emulated board runs; empty where only the application knows.
        facts: for people, by name, what figures from here must be told with: ``JetPack``,
            ``power mode``; empty where nothing is known.
    """

    name: str
    description: str
    emulated: bool
    total_rail: str
    sensor_refresh_s: float
    settle_s: float
    trip_c: float = math.nan
    workload: str = ""
    facts: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


class Device(Protocol):
    """A board that can be read and set.

    A device changes nothing until the first :meth:`apply`. :meth:`release` puts back what
    was found before it, and may be called any number of times. A knob that someone else has
    set since is theirs: :meth:`release` leaves it. In real time one thread reads (:meth:`read`,
    :meth:`sample`) while another sets.
    """

    @property
    def info(self) -> DeviceInfo:
        """What this device is."""
        ...

    @property
    def space(self) -> Space:
        """All settings allowed now."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that spans and samples are stamped with."""
        ...

    def read(self) -> OperatingPoint:
        """What is really set now, knob by knob.

        Raises:
            DeviceError: it cannot be read.
        """
        ...

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        """Set every knob of ``point`` in the right order; returns what was read back.

        Raises:
            InputError: the point is not in :attr:`space`; nothing was written.
            DeviceError: a write failed.
        """
        ...

    def release(self) -> None:
        """Put back every knob as it was found, the system's own governors included.

        A knob that no longer has the value that was last applied is left as it is: somebody
        else has set it, and an old value must not overwrite a newer one.
        """
        ...

    def sample(self) -> Sample:
        """Read the sensors. Cheap; values change only every ``info.sensor_refresh_s``.

        Raises:
            DeviceError: no rail could be read.
        """
        ...

    def close(self) -> None:
        """:meth:`release`, then let go of files and sockets."""
        ...


@runtime_checkable
class ExtensibleDevice(Protocol):
    """A device with knobs that are left alone unless the user asks for them."""

    @property
    def optional(self) -> tuple[str, ...]:
        """Their names."""
        ...

    def include(self, knob: str) -> None:
        """Make one of them part of :attr:`Device.space`."""
        ...


@runtime_checkable
class ChangingDevice(Protocol):
    """A device whose space others may change meanwhile, as by choosing another power mode."""

    def take_change(self) -> str:
        """Why :attr:`Device.space` is not what may be set any more, for people, once; empty: it is.

        Cheap: it was noticed by :meth:`Device.sample`. Whoever takes it calls :meth:`renew`.
        """
        ...

    def renew(self) -> None:
        """:meth:`Device.release`, then be as opened now: :attr:`Device.space`, :attr:`Device.info`.

        Raises:
            DeviceError: it cannot be opened; the space is as before, and it may be tried again.
        """
        ...


def include_named(device: Device, knobs: Iterable[str]) -> tuple[str, ...]:
    """Make those knobs part of the device's space that it leaves alone unless asked for.

    Returns:
        Such knobs of the device that are not named and stay left alone.
    """
    if not isinstance(device, ExtensibleDevice):
        return ()
    for knob in knobs:
        if knob in device.optional:
            device.include(knob)
    return device.optional


@runtime_checkable
class ShadowDevice(Protocol):
    """An emulated device that follows real inferences in real time (shadow mode)."""

    def follow(self, start_s: float, end_s: float, items: int) -> float:
        """Account one real inference as if it had run on the emulated board.

        Returns:
            seconds by which this inference must still be stretched (slept) so that it lasts
            as long as the physics say it does at the clocks now set, against all-max.
        """
        ...
