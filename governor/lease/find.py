"""Finds what the lease keeper can set on this machine. Standard library only."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast

from governor.lease.control import Hardware, Sleeper

BACKENDS = (
    "governor.lease.jetson_controls",
    "governor.lease.nvml_controls",
    "governor.lease.cpufreq_controls",
)
"""Modules with ``find(root: Path) -> Hardware | None``. Of two controls of one name the first
is taken: a Jetson's CPU clocks are cpufreq's, too. One with ``sleepers(root: Path)`` has
hardware that may sleep too deep to be found."""


def find_sleepers(sysfs_root: Path) -> tuple[Sleeper, ...]:
    """What may keep hardware from being found under ``sysfs_root``."""
    modules = (_module(name) for name in BACKENDS)
    ways = (getattr(module, "sleepers", None) for module in modules)
    return tuple(each for way in ways if way is not None for each in way(sysfs_root))


def find_hardware(sysfs_root: Path) -> list[Hardware]:
    """What every backend finds under ``sysfs_root``, ``/`` on a live machine.

    Raises:
        OSError: a backend failed to look.
    """
    found: list[Hardware] = []
    taken: set[str] = set()
    for name in BACKENDS:
        module = _module(name)
        if module is None:
            continue
        hardware = cast("Hardware | None", module.find(sysfs_root))
        if hardware is None:
            continue
        controls = tuple(each for each in hardware.controls if each.name not in taken)
        taken.update(hardware.claims, (each.name for each in controls))
        if controls:
            found.append(Hardware(hardware.name, controls))
    return found


def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
