"""A decision as a line of the log, with its fields for machines."""

from __future__ import annotations

import logging
import math

from governor.controller import Controller
from governor.decision import Decision
from governor.devices.device import DeviceInfo
from governor.meter import resolved_energy_j
from governor.units import format_percent

_LEVELS = {
    "wait": logging.DEBUG,
    "infeasible": logging.WARNING,
    "fallback": logging.WARNING,
    "release": logging.WARNING,
    "reassert": logging.WARNING,
    "heat": logging.WARNING,
}
logger = logging.getLogger("governor")


def log(decision: Decision, controller: Controller, info: DeviceInfo) -> None:
    """Say what was decided, why, and what that saves; see :mod:`governor.logs`."""
    saving = controller.saving
    saved = f"; {format_percent(saving)} less than the baseline" if saving and saving > 0 else ""
    logger.log(
        _LEVELS.get(decision.kind, logging.INFO),
        "%s: %s%s",
        decision.kind,
        decision.reason,
        saved,
        extra={"decision": _fields(decision, controller, info)},
    )


def _fields(decision: Decision, controller: Controller, info: DeviceInfo) -> dict[str, object]:
    """NaN where nothing is known."""
    trial = decision.trial
    return {
        "kind": decision.kind,
        "phase": decision.phase,
        "reason": decision.reason,
        "point": None if decision.point is None else dict(decision.point),
        "change": decision.change,
        "device": info.name,
        "emulated": info.emulated,
        "slo_s": controller.slo_s,
        "saving": controller.saving,
        "latency_s": math.nan if trial is None else trial.latency_s,
        "energy_j": resolved_energy_j(trial),
        "power_w": math.nan if trial is None else trial.power_w,
    }
