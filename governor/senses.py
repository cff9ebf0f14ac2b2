"""Reads a device's sensors and knobs, counts what fails, and keeps the latest for who asks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from governor.devices.device import Device, Sample
from governor.errors import DeviceError
from governor.space import OperatingPoint

logger = logging.getLogger("governor")


@dataclass(frozen=True, slots=True)
class Reading:
    """One look; None: it could not be read, or was not asked for.

    Attributes:
        epoch: how many changes of the knobs had been made when the look began.
    """

    epoch: int
    sample: Sample | None
    set_point: OperatingPoint | None


class Senses:
    """What a device says of itself.

    In real time, :meth:`look` runs in a thread of its own: a kernel file may take seconds to
    answer, and the SLO is guarded meanwhile.

    Attributes:
        errors: by what could not be read, ``power`` or ``knobs``.
    """

    def __init__(self, device: Device | None, knobs_wanted: Callable[[], bool]) -> None:
        """``knobs_wanted``: whether there is a setting of ours to compare with."""
        self.errors: Counter[str] = Counter()
        self._device = device
        self._knobs_wanted = knobs_wanted
        self._failing: set[str] = set()
        self._epoch = 0
        self._latest: Reading | None = None

    def look(self) -> None:
        """Read everything, however long that takes."""
        if self._device is not None:
            epoch = self._epoch
            self._latest = Reading(epoch, self._sample(self._device), self._knobs(self._device))

    def changed(self) -> None:
        """The knobs were set: what a look that has begun before says of them counts no more."""
        self._epoch += 1

    def take(self) -> tuple[Sample | None, OperatingPoint | None]:
        """The latest look's sample and knobs, once."""
        latest, self._latest = self._latest, None
        if latest is None:
            return None, None
        return latest.sample, latest.set_point if latest.epoch == self._epoch else None

    def _sample(self, device: Device) -> Sample | None:
        try:
            sample = device.sample()
        except DeviceError as error:
            self._failed("power", str(error))
            return None
        if device.info.total_rail not in sample.power_w and sample.energy_j is None:
            self._failed("power", f"no {device.info.total_rail} reading")
        else:
            self._failing.discard("power")
        return sample

    def _knobs(self, device: Device) -> OperatingPoint | None:
        if not self._knobs_wanted():
            return None
        try:
            point = device.read()
        except DeviceError as error:
            self._failed("knobs", str(error))
            return None
        self._failing.discard("knobs")
        return point

    def _failed(self, sensor: str, problem: str) -> None:
        self.errors[sensor] += 1
        if sensor not in self._failing:
            self._failing.add(sensor)
            logger.warning("cannot read %s: %s", sensor, problem)
