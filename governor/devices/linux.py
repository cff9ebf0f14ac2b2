"""An ordinary Linux machine, x86 or ARM, with or without NVIDIA GPUs, as one device.

It governs with what there is: of ``cpu_hz``, ``gpu_hz``, ``emc_hz`` (the GPU's memory clock)
and ``power_limit_w``, those that can be set *and* whose energy is seen. A knob whose energy
nobody counts would only ever be turned up, so it is left alone.

GPUs that this process may use are set alike. Their power limit is a knob only where their
clock cannot be locked: both do the same, and a limit would undo a lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from governor.devices.cpufreq import SETTLE_S as CPU_SETTLE_S
from governor.devices.cpufreq import Cpu, open_cpu
from governor.devices.device import Clock, DeviceInfo, MonotonicClock, Sample
from governor.devices.hwmon import PowerSensor, open_hwmon, temperature_files, temperatures
from governor.devices.nvml import Gpus, open_gpus
from governor.devices.rapl import Rapl, open_rapl
from governor.devices.source import Reading, Source
from governor.errors import DeviceError, InputError, NoDeviceError
from governor.lease.client import Lease
from governor.lease.control import Control
from governor.lease.nvml_controls import SETTLE_S as GPU_SETTLE_S
from governor.space import Knob, OperatingPoint, Space

TOTAL = "total"


@dataclass(frozen=True)
class SharedKnob:
    """One knob of the device, and the lease keeper's controls that it sets alike.

    Attributes:
        name: of the knob.
        controls: at least one.
    """

    name: str
    controls: tuple[Control, ...]

    def levels(self, levels: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
        """Those that every control has, ascending, given those of each control by its name."""
        first, *others = (levels[control.name] for control in self.controls)
        return tuple(sorted(set(first).intersection(*others)))

    def spread(self, level: float) -> dict[str, float]:
        """What to ask of each control."""
        return {control.name: level for control in self.controls}

    def gather(self, levels: Mapping[str, float], target: float | None) -> float:
        """The one level of all controls; where one is not at ``target``, that one's."""
        values = [levels[control.name] for control in self.controls]
        return next((value for value in values if value != target), values[0])


@dataclass(frozen=True)
class Parts:
    """What was found on a machine, and why the rest was not.

    Attributes:
        cpu, gpus, rapl, sensor: None where refused; ``sensor`` also where there is ``rapl``.
        temperatures: files by zone.
        refusals: reasons by backend.
    """

    cpu: Cpu | None
    gpus: Gpus | None
    rapl: Rapl | None
    sensor: PowerSensor | None
    temperatures: dict[str, Path]
    refusals: dict[str, str]

    @property
    def whole(self) -> bool:
        """Whether one sensor stands for the whole machine."""
        return self.sensor is not None and self.sensor.scope == "machine"

    @property
    def sources(self) -> tuple[Source, ...]:
        """What is summed up to the total; no joule is in two of them."""
        if self.sensor is not None and self.whole:
            return (self.sensor,)
        gpus = None if self.gpus is None or self.gpus.unmeasured else self.gpus
        return tuple(part for part in (gpus, self.rapl or self.sensor) if part is not None)

    @property
    def knobs(self) -> tuple[SharedKnob, ...]:
        """What can be set of that whose energy is in the total."""
        knobs: list[SharedKnob] = []
        if self.cpu is not None and (self.rapl or self.sensor):
            knobs.append(SharedKnob("cpu_hz", (self.cpu.control,)))
        if self.gpus is not None and (self.whole or not self.gpus.unmeasured):
            clock = _of_all_gpus("gpu_hz", self.gpus)
            knobs += clock + _of_all_gpus("emc_hz", self.gpus)
            knobs += [] if clock else _of_all_gpus("power_limit_w", self.gpus)
        return tuple(knobs)

    @property
    def info(self) -> DeviceInfo:
        """What this machine is; needs at least one source."""
        names = [gpu.name.lower() for gpu in self.gpus.gpus[:1]] if self.gpus else []
        what = [source.description for source in self.sources]
        if self.cpu is not None:
            names.append(self.cpu.name)
            what.insert(0, self.cpu.description)
        on_gpu = any(knob.name != "cpu_hz" for knob in self.knobs)
        return DeviceInfo(
            name="+".join("-".join(name.split()) for name in names),
            description=", ".join(what),
            emulated=False,
            total_rail=TOTAL,
            sensor_refresh_s=max(source.refresh_s for source in self.sources),
            settle_s=GPU_SETTLE_S if on_gpu else CPU_SETTLE_S,
        )

    def sample(self, now_s: float) -> Sample:
        """Read every sensor. A source that fails leaves out its rails, and the total.

        Raises:
            DeviceError: no power can be read.
        """
        readings = [_read(source, now_s) for source in self.sources]
        if not any(reading.power_w or reading.energy_j is not None for reading in readings):
            what = ", ".join(source.description for source in self.sources)
            raise DeviceError(f"no power can be read ({what})")
        power_w = {rail: watts for reading in readings for rail, watts in reading.power_w.items()}
        total_w = _sum([reading.total_w for reading in readings])
        if total_w is not None:
            power_w[TOTAL] = total_w
        degrees = temperatures(self.temperatures)
        events = {} if self.cpu is None else dict(self.cpu.throttle_events())
        if self.gpus is not None:
            degrees |= self.gpus.temperatures()
            events |= self.gpus.throttle_events()
        energy_j = _sum([reading.energy_j for reading in readings])
        return Sample(now_s, power_w, degrees, events, energy_j)


class LinuxDevice:
    """See the module; the :class:`governor.devices.device.Device` of such a machine."""

    def __init__(self, parts: Parts, open_lease: Callable[[], Lease], clock: Clock) -> None:
        """Takes the lease at once, so that another holder shows before anything is measured.

        Raises:
            DeviceError: the lease cannot be had.
        """
        self._parts = parts
        self._knobs = {shared.name: shared for shared in parts.knobs}
        self._clock = clock
        self._open_lease = open_lease
        self._target: Mapping[str, float] = {}
        self.info = parts.info
        lease = open_lease()
        self._lease: Lease | None = lease
        try:
            self.space = Space([Knob(k.name, k.levels(lease.levels)) for k in parts.knobs])
        except (KeyError, InputError) as error:
            lease.release()
            raise DeviceError(_mismatch(error)) from None

    @property
    def clock(self) -> Clock:
        """The machine's own clock."""
        return self._clock

    def read(self) -> OperatingPoint:
        """What is set now, by the kernel's and the driver's own word."""
        if self._lease is not None:
            return self._gathered(self._lease.read())
        controls = [control for shared in self._knobs.values() for control in shared.controls]
        try:
            return self._gathered({control.name: control.read() for control in controls})
        except (OSError, ValueError) as error:
            raise DeviceError(f"a knob cannot be read: {error}") from None

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        """Set every knob of ``point`` through the lease; returns what was read back."""
        if point not in self.space:
            raise InputError(f"{point} is not one of the {len(self.space)} allowed settings")
        if self._lease is None:
            self._lease = self._open_lease()
        self._target = point
        asked: dict[str, float] = {}
        for name, level in point.items():
            asked |= self._knobs[name].spread(level)
        return self._gathered(self._lease.set(asked))

    def release(self) -> None:
        """End the lease, which puts every knob back as it was found."""
        lease, self._lease, self._target = self._lease, None, {}
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """:meth:`release`; nothing else is held open."""
        self.release()

    def sample(self) -> Sample:
        """Read every sensor."""
        return self._parts.sample(self._clock.now())

    def _gathered(self, levels: Mapping[str, float]) -> OperatingPoint:
        controls = [control.name for shared in self._knobs.values() for control in shared.controls]
        lost = [name for name in controls if name not in levels]
        if lost:
            raise DeviceError(f"{', '.join(lost)} cannot be read any more; see governor doctor")
        return OperatingPoint(
            {
                name: shared.gather(levels, self._target.get(name))
                for name, shared in self._knobs.items()
            }
        )


def _mismatch(error: KeyError | InputError) -> str:
    what = str(error) if isinstance(error, InputError) else f"it cannot set {error.args[0]}"
    return (
        f"the lease keeper knows other hardware than is here now ({what}); if it is a daemon, "
        "restart it: systemctl restart energy-governor"
    )


def find_parts(root: Path, environ: Mapping[str, str]) -> Parts:
    """Look for everything that can be set or read. Changes nothing, raises nothing."""
    refusals: dict[str, str] = {}
    cpu = gpus = rapl = sensor = None
    try:
        gpus = open_gpus(root, environ)
    except DeviceError as error:
        refusals["nvml"] = str(error)
    try:
        cpu = open_cpu(root)
    except DeviceError as error:
        refusals["cpufreq"] = str(error)
    try:
        rapl = open_rapl(root)
    except DeviceError as error:
        refusals["rapl"] = str(error)
        try:
            sensor = open_hwmon(root)
        except DeviceError as error:
            refusals["hwmon"] = str(error)
    return Parts(cpu, gpus, rapl, sensor, temperature_files(root), refusals)


def open_linux(
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    open_lease: Callable[[], Lease] | None = None,
    clock: Clock | None = None,
) -> LinuxDevice:
    """This machine as a device.

    Args:
        root: the file system's root, ``/`` on a live machine.
        environ: where ``CUDA_VISIBLE_DEVICES`` says which GPUs are meant.
        open_lease: takes the lease of the knobs under ``root``; by default of a private
            keeper or of the daemon.
        clock: the machine's own by default.

    Raises:
        NoDeviceError: nothing can be set whose energy is seen; says of each part why.
        DeviceError: the lease cannot be had.
    """
    parts = find_parts(root, environ)
    if not parts.knobs:
        raise NoDeviceError(refusals(parts))
    take = open_lease or partial(Lease.open, sysfs_root=root)
    return LinuxDevice(parts, take, clock or MonotonicClock())


def refusals(parts: Parts) -> dict[str, str]:
    """Why each part is not governed, by backend; those that are, are absent."""
    reasons = dict(parts.refusals)
    governed = {control.name for shared in parts.knobs for control in shared.controls}
    if parts.cpu is not None and parts.cpu.control.name not in governed:
        reasons["cpufreq"] = "the CPU's clock can be set, but nothing tells what the CPU draws"
    if parts.gpus is not None:
        for gpu in parts.gpus.gpus:
            for knob, reason in gpu.refused.items():
                reasons[f"nvml {knob} of GPU {gpu.place}"] = reason
        if parts.gpus.unmeasured and not parts.whole:
            reasons["nvml"] = f"nothing tells what the GPU draws ({parts.gpus.unmeasured})"
    return reasons


def _of_all_gpus(knob: str, gpus: Gpus) -> list[SharedKnob]:
    """Empty where a GPU lacks the knob, or there is no choice of levels that all of them have."""
    controls = tuple(gpu.controls[knob] for gpu in gpus.gpus if knob in gpu.controls)
    if len(controls) < len(gpus.gpus):
        return []
    shared = SharedKnob(knob, controls)
    common = shared.levels({control.name: control.levels for control in controls})
    return [shared] if len(common) > 1 else []


def _read(source: Source, now_s: float) -> Reading:
    try:
        return source.read(now_s)
    except (OSError, ValueError):
        return Reading({}, None)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
