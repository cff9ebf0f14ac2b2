"""EnergyGovernor: the clocks of least energy within a latency bound, found and held live."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from governor.errors import (
    DeviceError,
    GovernorError,
    InputError,
    MissingExtraError,
    NoDeviceError,
    PolicyError,
)

if TYPE_CHECKING:
    from governor.decision import Decision
    from governor.exporter import MetricsConfig
    from governor.governor import EnergyGovernor
    from governor.instrument.stream import Stream
    from governor.objective import Objective
    from governor.pace import Pace
    from governor.schedule import Battery, Tariff
    from governor.space import Knob, OperatingPoint, Space
    from governor.status import Status
    from governor.streams import StreamStatus
    from governor.trial import Span, Trial

__version__ = "0.6.0"

__all__ = [
    "Battery",
    "Decision",
    "DeviceError",
    "EnergyGovernor",
    "GovernorError",
    "InputError",
    "Knob",
    "MetricsConfig",
    "MissingExtraError",
    "NoDeviceError",
    "Objective",
    "OperatingPoint",
    "Pace",
    "PolicyError",
    "Space",
    "Span",
    "Status",
    "Stream",
    "StreamStatus",
    "Tariff",
    "Trial",
    "__version__",
]

_HOMES = {
    "Battery": "governor.schedule",
    "Decision": "governor.decision",
    "EnergyGovernor": "governor.governor",
    "Knob": "governor.space",
    "MetricsConfig": "governor.exporter",
    "Objective": "governor.objective",
    "OperatingPoint": "governor.space",
    "Pace": "governor.pace",
    "Space": "governor.space",
    "Span": "governor.trial",
    "Status": "governor.status",
    "Stream": "governor.instrument.stream",
    "StreamStatus": "governor.streams",
    "Tariff": "governor.schedule",
    "Trial": "governor.trial",
}
"""Loaded when they are first used (PEP 562), so that the command line starts fast."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
