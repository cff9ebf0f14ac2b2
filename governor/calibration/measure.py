"""Runs kernels of known work at several operating points, and reads the sensors meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from governor.calibration.bench import Bench, Kernel, Ran
from governor.devices.device import Device
from governor.errors import DeviceError
from governor.meter import Meter
from governor.space import OperatingPoint, Space

READINGS = 6
"""Fresh sensor readings of each kernel at each point; the first of a window is thrown away."""
QUICK_READINGS = 3
CPU_LEVELS = 6
"""A voltage curve with a floor takes so many clocks to see."""
EMC_LEVELS = 6
LEAST_S = 0.2
"""Of each look at a kernel, where the sensors are faster than that, or absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One kernel at one operating point.

    Attributes:
        hz: clock by knob, as read back, of the knobs that there are; and of the bench's own
            clock where it can tell.
        cores: CPU cores online, where that is a knob.
        kernel: None: nothing ran.
        flop_rate, byte_rate: a second; 0 while nothing ran.
        power_w, power_se_w: on the total rail, and its standard error; NaN without sensors.
    """

    hz: dict[str, float]
    cores: int | None
    kernel: Kernel | None
    flop_rate: float
    byte_rate: float
    power_w: float
    power_se_w: float


@dataclass(frozen=True, slots=True)
class Look:
    """A kernel to run at a point; None: nothing, and wherever the clocks are now."""

    point: OperatingPoint | None
    kernel: Kernel | None


def plan(space: Space | None, kernels: Sequence[Kernel], clock: str, points: int) -> list[Look]:
    """What to run where.

    Every kernel along the computing unit's clock and streams along the memory's, with the
    other clocks at their highest: so they show the limits. A stream and nothing at all along
    the clocks of memory and CPU with the others at their lowest: so their watts stand out.

    Args:
        space: None: nothing can be set, so all at the present clocks.
        kernels: that there are.
        clock: the knob of the unit that runs them.
        points: how many levels of that clock.
    """
    if space is None:
        return [Look(None, kernel) for kernel in (None, *kernels)]
    streams = [kernel for kernel in kernels if kernel.purpose != "compute"]
    top = space.point(space.fastest)
    lowest = {knob.name: knob.levels[0] for knob in space.knobs if knob.name != "cpu_cores"}
    bottom = OperatingPoint({**top, **lowest})
    looks: dict[Look, None] = {}
    for knob, levels, base, some in (
        (clock, points, top, [None, *kernels]),
        ("emc_hz", EMC_LEVELS, top, streams),
        ("emc_hz", EMC_LEVELS, bottom, [None, *streams[:1]]),
        ("cpu_hz", CPU_LEVELS, bottom, [None, *streams[:1]]),
    ):
        for point in _along(space, base, knob, levels):
            looks |= dict.fromkeys(Look(point, kernel) for kernel in some)
    return list(looks)


def _along(space: Space, base: OperatingPoint, knob: str, count: int) -> Iterator[OperatingPoint]:
    """Points of the space with one knob from its highest to its lowest level."""
    if knob not in space.names:
        return
    levels = space.knobs[space.names.index(knob)].levels
    last = len(levels) - 1
    steps = max(min(count, len(levels)) - 1, 1)
    for index in sorted({round(step * last / steps) for step in range(steps + 1)}, reverse=True):
        point = OperatingPoint({**base, knob: levels[index]})
        if point in space:
            yield point


class Session:
    """Runs a plan on a device, and puts everything back.

    Attributes:
        dropped: looks that could not be used, by why.
    """

    def __init__(self, device: Device | None, bench: Bench, *, quick: bool = False) -> None:
        """``device`` None: only times are measured, at the present clocks."""
        self._device = device
        self._bench = bench
        self._readings = QUICK_READINGS if quick else READINGS
        self.dropped: dict[str, int] = {}

    def run(self, looks: Sequence[Look], step: Callable[[Look], None]) -> list[Run]:
        """The runs, in order; ``step`` is told of each look before it begins.

        Whatever ends it, the device is released.

        Raises:
            DeviceError: the clocks cannot be set, or no sensor can be read.
        """
        runs: list[Run] = []
        try:
            for look in looks:
                step(look)
                found = self._look(look)
                if isinstance(found, Run):
                    runs.append(found)
                else:
                    self.dropped[found] = self.dropped.get(found, 0) + 1
        finally:
            if self._device is not None:
                self._device.release()
        return runs

    def _look(self, look: Look) -> Run | str:
        """One run; or why there is none."""
        device = self._device
        if device is None:
            ran = self._work(look.kernel, LEAST_S)
            ran = self._work(look.kernel, 3 * LEAST_S)
            return self._summed(look, {}, [ran], math.nan, math.nan)
        if look.point is not None:
            device.apply(look.point)
        refresh_s = max(device.info.sensor_refresh_s, LEAST_S)
        # What follows the change of clocks and kernels is no part of the measurement.
        self._work(look.kernel, device.info.settle_s + refresh_s)
        meter, rans = Meter(device.info), list[Ran]()
        before = device.sample()
        began_s = device.clock.now()
        while len(rans) <= self._readings:
            rans.append(self._work(look.kernel, refresh_s))
            sample = device.sample()
            meter.add(sample)
            if sample.throttle_events != before.throttle_events:
                return "throttled"
        read = device.read()
        if look.point is not None and read != look.point:
            return "not at the clocks asked for"
        power = meter.power(began_s, device.clock.now())
        if not math.isfinite(power.value):
            raise DeviceError(
                f"no power on the rail {device.info.total_rail!r} of {device.info.name}"
            )
        return self._summed(look, dict(read), rans, power.value, power.se)

    def _work(self, kernel: Kernel | None, seconds: float) -> Ran:
        if kernel is not None:
            return self._bench.run(kernel, seconds)
        if self._device is not None:
            self._device.clock.sleep(seconds)
        return Ran(0.0, 0.0, seconds)

    def _summed(
        self, look: Look, hz: dict[str, float], rans: Sequence[Ran], power_w: float, se_w: float
    ) -> Run:
        seconds = sum(ran.seconds for ran in rans)
        cores = hz.pop("cpu_cores", None)
        present = self._bench.present_hz() if self._bench.clock not in hz else None
        if present is not None:
            hz[self._bench.clock] = present
        return Run(
            hz=hz,
            cores=None if cores is None else int(cores),
            kernel=look.kernel,
            flop_rate=sum(ran.flop for ran in rans) / seconds,
            byte_rate=sum(ran.bytes for ran in rans) / seconds,
            power_w=power_w,
            power_se_w=se_w,
        )
