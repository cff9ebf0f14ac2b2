"""The CPU of an ordinary Linux machine: its clock as a knob, its thermal throttling.

The files of the clock and their traps are :mod:`governor.lease.cpufreq_controls`'s.
Throttle counters: ``/sys/devices/system/cpu/cpuN/thermal_throttle`` (x86 only), which the
kernel keeps for each core and each package; the package's is read, once a package.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from governor.errors import DeviceError
from governor.lease.control import Control
from governor.lease.cpufreq_controls import POLICIES, cpu_name, find
from governor.lease.kernel_files import read_count, read_text

CPUS = "sys/devices/system/cpu"
SETTLE_S = 1e-3
"""From a write until the new clock is in force: 1 ms was measured on an Orin Nano's CPU
(arXiv:2606.16106), x86 processors are quicker."""


@dataclass(frozen=True)
class Cpu:
    """What can be set and seen of the processors.

    Attributes:
        name: the model as one short word.
        description: model and cpufreq driver, for people.
        control: ``cpu_hz``.
        throttling: counts of thermal throttling, one a package.
    """

    name: str
    description: str
    control: Control
    throttling: tuple[ThrottleCount, ...]

    def throttle_events(self) -> Mapping[str, int]:
        """Times that a package throttled since boot; empty where the kernel does not count."""
        counts = [package.read() for package in self.throttling]
        return {"cpu_thermal": sum(counts)} if counts else {}


class ThrottleCount:
    """How often one package throttled: the kernel keeps the number with each of its CPUs.

    One CPU's is read; where that has been unplugged, another one's is followed from then on.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = deque(paths)
        self._count: int | None = None
        self._before: int | None = None

    def read(self) -> int:
        """The count; where no CPU tells it, the last one known."""
        for _ in range(len(self._paths)):
            with suppress(OSError, ValueError):
                return self._follow(read_count(self._paths[0]))
            self._before = None
            self._paths.rotate(-1)
        return self._count or 0

    def _follow(self, now: int) -> int:
        grown = 0 if self._before is None else max(now - self._before, 0)
        self._before = now
        self._count = now if self._count is None else self._count + grown
        return self._count


def open_cpu(root: Path) -> Cpu:
    """The CPU's clock.

    Raises:
        DeviceError: the kernel offers none that can be set; says what was looked for.
    """
    hardware = find(root)
    if hardware is None:
        folder = root / POLICIES
        if not folder.is_dir():
            raise DeviceError(
                f"the CPU's clock cannot be set, {folder} does not exist (no cpufreq driver; "
                "usual in a virtual machine)"
            )
        raise DeviceError(f"the CPU's clock cannot be set, no usable policy in {folder}")
    control = hardware.controls[0]
    if len(control.levels) < 2:
        levels = ", ".join(f"{hz / 1e6:g} MHz" for hz in control.levels)
        raise DeviceError(f"the CPU's clock has no choice of levels, only {levels}")
    name = cpu_name(root)
    description = f"{name} ({_driver(root)})"
    return Cpu(name, description, control, tuple(_throttling(root)))


def _driver(root: Path) -> str:
    for path in sorted((root / POLICIES).glob("policy*/scaling_driver")):
        with suppress(OSError):
            return read_text(path) or "cpufreq"
    return "cpufreq"


def _throttling(root: Path) -> Iterator[ThrottleCount]:
    packages: dict[str, list[Path]] = {}
    for path in sorted((root / CPUS).glob("cpu[0-9]*/thermal_throttle/package_throttle_count")):
        with suppress(OSError):
            package = read_text(path.parent.parent / "topology/physical_package_id")
            packages.setdefault(package, []).append(path)
    return map(ThrottleCount, packages.values())
