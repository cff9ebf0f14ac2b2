"""Backends that can be read and set, and how the one for this machine is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from governor.devices.device import Device
from governor.errors import DeviceError, InputError, NoDeviceError
from governor.lease.errors import LeaseHeldError

DEFAULT_WORKLOAD = "yolov8n"
"""Whose mix of computing, moving and launching an emulated board lends to a real loop."""


def open_device(name: str) -> Device:
    """The device called ``name``: ``auto``, ``emulated:BOARD`` or ``emulated:BOARD/WORKLOAD``.

    An emulated board follows the real loop in real time (shadow mode). ``jetson:FOLDER`` is the
    Jetson whose ``sys``, ``proc`` and ``etc`` lie in that folder, such as a mounted emulation.

    Raises:
        InputError: no device, board or workload has this name.
        NoDeviceError: ``auto``, and there is nothing to govern here.
        DeviceError: the Jetson in a folder cannot be governed.
        LeaseHeldError: someone else governs it; says who.
    """
    if name == "auto":
        return discover()
    kind, _, rest = name.partition(":")
    if kind == "jetson" and rest:
        from governor.devices.jetson import JetsonDevice

        return JetsonDevice.open(Path(rest))
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
        LeaseHeldError: one could, but someone else has its lease; says who.
    """
    refusals: dict[str, str] = {}
    for name, open_backend in _BACKENDS.items():
        device = _attempt(name, open_backend, refusals)
        if device is not None:
            return device
    raise NoDeviceError(refusals)


def _attempt(
    name: str, open_backend: Callable[[], Device], refusals: dict[str, str]
) -> Device | None:
    try:
        return open_backend()
    except LeaseHeldError:
        raise
    except NoDeviceError as error:
        refusals |= error.refusals
    except DeviceError as error:
        refusals[name] = str(error)
    return None


def _open_jetson() -> Device:
    from governor.devices.jetson import JetsonDevice

    return JetsonDevice.open()


def _open_linux() -> Device:
    from governor.devices.linux import open_linux

    return open_linux()


_BACKENDS: dict[str, Callable[[], Device]] = {"jetson": _open_jetson, "linux": _open_linux}
