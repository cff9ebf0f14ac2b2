"""Backends that can be read and set, and how the one for this machine is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from governor.devices.device import Device
from governor.errors import InputError, NoDeviceError

DEFAULT_WORKLOAD = "yolov8n"
"""Whose mix of computing, moving and launching an emulated board lends to a real loop."""


def open_device(name: str) -> Device:
    """The device called ``name``: ``auto``, ``emulated:BOARD`` or ``emulated:BOARD/WORKLOAD``.

    An emulated board follows the real loop in real time (shadow mode).

    Raises:
        InputError: no device, board or workload has this name.
        NoDeviceError: ``auto``, and there is nothing to govern here.
    """
    if name == "auto":
        return discover()
    kind, _, rest = name.partition(":")
    if kind != "emulated" or not rest:
        raise InputError(
            f"unknown device {name!r}; use 'auto', 'emulated:agx-orin' or "
            f"'emulated:agx-orin/{DEFAULT_WORKLOAD}', or give a device object"
        )
    from governor.devices.emulated import ShadowBoard

    board, _, workload = rest.partition("/")
    return ShadowBoard(board, workload or DEFAULT_WORKLOAD)


def discover() -> Device:
    """The first backend that can govern this machine.

    Raises:
        NoDeviceError: none can; says of each why.
    """
    raise NoDeviceError({name: refusal() for name, refusal in _BACKENDS.items()})


def _no_jetson() -> str:
    names = Path("/proc/device-tree/compatible")
    try:
        boards = names.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return f"this is no Jetson, {names} cannot be read"
    tegra = next((board for board in boards if board.startswith("nvidia,tegra")), None)
    if tegra is None:
        return f"this is no Jetson, {names} names {boards[0]}"
    return f"a Jetson ({tegra}) is here, but this version cannot set its clocks yet"


def _no_nvml() -> str:
    if not Path("/dev/nvidiactl").exists():
        return "no NVIDIA driver, /dev/nvidiactl does not exist"
    return "an NVIDIA GPU is here, but this version cannot set its clocks yet"


def _no_cpufreq() -> str:
    knob = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")
    if not knob.exists():
        return f"the CPU's clock cannot be set, {knob} does not exist"
    if not os.access(knob, os.W_OK):
        return f"the CPU's clock cannot be set, {knob} is not writable by this user"
    return "the CPU's clock can be set here, but this version cannot do it yet"


_BACKENDS: dict[str, Callable[[], str]] = {
    "jetson": _no_jetson,
    "nvml": _no_nvml,
    "cpufreq": _no_cpufreq,
}
