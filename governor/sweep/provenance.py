"""Where a measurement came from: what a reader needs to judge it, and to make it again."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from governor.devices.device import Device
from governor.errors import DeviceError

_FRAMEWORKS = ("torch", "onnxruntime", "tensorrt")
"""Their version matters where the workload has imported them."""


def provenance(
    device: Device, command: Sequence[str] = (), ambient_c: float | None = None
) -> dict[str, Any]:
    """One start of a sweep, for its sidecar file; no part of what identifies the sweep.

    Args:
        command: the command line; empty: an application's own loop.
        ambient_c: of the air in degrees Celsius, from a thermometer: no board knows it.
    """
    return {
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "device": dict(device.info.facts),
        "ambient_c": ambient_c,
        "temperature_c": _temperatures(device),
        "kernel": platform.platform(),
        "versions": _versions(),
    }


def _temperatures(device: Device) -> dict[str, float]:
    with suppress(DeviceError):
        return dict(device.sample().temperature_c)
    return {}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    loaded = [name for name in _FRAMEWORKS if name in sys.modules]
    for name in ("energy-governor", "numpy", *loaded):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
