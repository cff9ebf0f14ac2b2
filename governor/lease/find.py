"""Finds what the lease keeper can set on this machine. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from governor.lease.control import Hardware

BACKENDS = (
    "governor.lease.jetson_controls",
    "governor.lease.nvml_controls",
    "governor.lease.cpufreq_controls",
)
"""Modules with ``find(root: Path) -> Hardware | None``. Of two controls of one name the first
is taken: a Jetson's CPU clocks are cpufreq's, too."""


def find_hardware(sysfs_root: Path) -> list[Hardware]:
    """What every backend finds under ``sysfs_root``, ``/`` on a live machine.

    Raises:
        OSError: a backend failed to look.
    """
    found: list[Hardware] = []
    taken: set[str] = set()
    for name in BACKENDS:
        find = _find_of(name)
        hardware = find(sysfs_root) if find is not None else None
        if hardware is None:
            continue
        controls = tuple(each for each in hardware.controls if each.name not in taken)
        taken.update(hardware.claims, (each.name for each in controls))
        if controls:
            found.append(Hardware(hardware.name, controls))
    return found


def _find_of(name: str) -> Callable[[Path], Hardware | None] | None:
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    return cast(Callable[[Path], "Hardware | None"], module.find)
