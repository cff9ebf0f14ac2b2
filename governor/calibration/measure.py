"""Runs kernels of known work at several operating points, and reads the sensors meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from governor.calibration.bench import Bench, Kernel, Ran
from governor.devices.device import Device
from governor.errors import DeviceError
from governor.meter import Meter
from governor.slo import Estimate
from governor.space import OperatingPoint, Space

READINGS = 8
"""Fresh sensor readings of each kernel at each point; the first of a window is thrown away."""
QUICK_READINGS = 3
CPU_LEVELS = 8
"""A voltage curve with a floor takes so many clocks to see."""
EMC_LEVELS = 10
"""All that a Jetson has."""
CPU_SHARE = 1 / 3
"""Of its highest clock: low enough for the CPU's lowest voltage, fast enough to launch kernels."""
COOLING, HEATING = 8, 20
"""Looks while the heat sink cools down and warms up, half a minute and one and a half."""
IDLES = 6
"""Looks at nothing running at each corner, cold and again warm: the difference is leakage."""
PATIENCE = 10
"""So many refreshes a throttled board may take to come back."""
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
        celsius: mean temperature of the hottest zone meanwhile; NaN where none is known.
    """

    hz: dict[str, float]
    cores: int | None
    kernel: Kernel | None
    flop_rate: float
    byte_rate: float
    power_w: float
    power_se_w: float
    celsius: float = math.nan


@dataclass(frozen=True, slots=True)
class Look:
    """A kernel to run at a point; None: nothing, and wherever the clocks are now."""

    point: OperatingPoint | None
    kernel: Kernel | None


def plan(
    space: Space | None,
    kernels: Sequence[Kernel],
    clock: str,
    points: int,
    *,
    warm: bool = True,
) -> list[Look]:
    """What to run where.

    Each clock is varied while the others are low, so that its watts stand out: the computing
    unit's under every kernel (under streams with the memory's at its highest), the memory's under
    streams, the CPU's under nothing, load and a stream. Before that the board is cold, with
    nothing running at the corners of the clocks; after it, it is warmed up and the same is seen
    again.

    Args:
        space: None: nothing can be set, so all at the present clocks.
        kernels: that there are.
        clock: the knob of the unit that runs them.
        points: how many levels of that clock.
        warm: whether to compare cold and warm, which takes long.
    """
    work = [kernel for kernel in kernels if kernel.purpose != "cores"]
    if space is None:
        return [Look(None, kernel) for kernel in (None, *work)]
    loads = [kernel for kernel in kernels if kernel.purpose == "cores"]
    streams = [kernel for kernel in work if kernel.purpose != "compute"]
    top = space.point(space.fastest)
    bottom = _bottom(space, clock)
    streaming = OperatingPoint({**bottom, **{k: top[k] for k in ("emc_hz",) if k in top}})
    fast = OperatingPoint({**bottom, clock: top[clock]})
    looks: dict[Look, None] = {}
    for knob, levels, base, some in (
        ("cpu_hz", CPU_LEVELS, bottom, [None, *loads, *streams[:1]]),
        ("emc_hz", EMC_LEVELS, bottom, [None, *streams[:1]]),
        (clock, points, bottom, [None, *(each for each in work if each not in streams)]),
        (clock, points, streaming, streams),
        ("emc_hz", EMC_LEVELS, fast, streams),
    ):
        for point in _along(space, base, knob, levels):
            looks |= dict.fromkeys(Look(point, kernel) for kernel in some)
    if not warm or not streams:
        return list(looks)
    corners = [
        Look(OperatingPoint({**bottom, **dict(zip(ends, clocks, strict=True))}), None)
        for ends in [list(dict.fromkeys(each for each in ("cpu_hz", clock) if each in top))]
        for clocks in product(*((bottom[knob], top[knob]) for knob in ends))
    ] * IDLES
    heat = Look(top, streams[0])
    cold = [Look(bottom, None)] * COOLING + corners
    return cold + list(looks) + [heat] * HEATING + [one for idle in corners for one in (heat, idle)]


def _bottom(space: Space, clock: str) -> OperatingPoint:
    """All clocks at their lowest, but the CPU's where it only launches the work."""
    low = {knob.name: knob.levels[0] for knob in space.knobs if knob.name != "cpu_cores"}
    if clock != "cpu_hz" and "cpu_hz" in low:
        levels = space.knobs[space.names.index("cpu_hz")].levels
        low["cpu_hz"] = max(hz for hz in levels if hz <= max(CPU_SHARE * levels[-1], levels[0]))
    return OperatingPoint({**space.point(space.fastest), **low})


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
        self._unmetered_s = LEAST_S if quick else 3 * LEAST_S
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
            self._work(look.kernel, self._unmetered_s / 3)
            ran = self._work(look.kernel, self._unmetered_s)
            return self._summed(look, {}, [ran], Estimate(math.nan, math.nan), [])
        refresh_s = max(device.info.sensor_refresh_s, LEAST_S)
        if look.point is not None:
            device.apply(look.point)
            for _ in range(PATIENCE):
                if device.read() == look.point:
                    break
                self._work(None, refresh_s)
        # What follows the change of clocks and kernels is no part of the measurement.
        self._work(look.kernel, device.info.settle_s + refresh_s)
        meter, rans, celsius = Meter(device.info), list[Ran](), list[float]()
        before = device.sample()
        began_s, read = device.clock.now(), device.read()
        while len(rans) <= self._readings:
            rans.append(self._work(look.kernel, refresh_s))
            sample = device.sample()
            meter.add(sample)
            if sample.temperature_c:
                celsius.append(max(sample.temperature_c.values()))
            read = device.read()
            if sample.throttle_events != before.throttle_events:
                return "throttled"
            if look.point is not None and read != look.point:
                return "not at the clocks asked for"
        power = meter.power(began_s, device.clock.now())
        if not math.isfinite(power.value):
            raise DeviceError(
                f"no power on the rail {device.info.total_rail!r} of {device.info.name}"
            )
        return self._summed(look, dict(read), rans, power, celsius)

    def _work(self, kernel: Kernel | None, seconds: float) -> Ran:
        if kernel is not None:
            return self._bench.run(kernel, seconds)
        if self._device is not None:
            self._device.clock.sleep(seconds)
        return Ran(0.0, 0.0, seconds)

    def _summed(
        self,
        look: Look,
        hz: dict[str, float],
        rans: Sequence[Ran],
        power: Estimate,
        celsius: Sequence[float],
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
            power_w=power.value,
            power_se_w=power.se,
            celsius=sum(celsius) / len(celsius) if celsius else math.nan,
        )
