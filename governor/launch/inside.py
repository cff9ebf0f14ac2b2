"""What ``governor run`` does in the program's own interpreter."""

from __future__ import annotations

import atexit
import math
import os
import sys
from typing import Any

from governor.errors import GovernorError, InputError, NoDeviceError
from governor.governor import EnergyGovernor, Status
from governor.launch import Options
from governor.logs import LogFormat, log_to_stderr
from governor.units import format_duration, format_energy, format_percent


def begin(asked: dict[str, Any]) -> None:
    """Govern from here to the end of the program; or end it at once, and say why."""
    options = Options(**asked)
    if options.log_format is not None:
        log_to_stderr(LogFormat(options.log_format))
    try:
        governor = EnergyGovernor(
            options.latency_slo,
            objective=options.objective,
            power_cap=options.power_cap,
            percentile=options.percentile,
            device=options.device,
            policy=options.policy,
            trials=options.trials,
            limits=options.limits,
            thermal_limit=options.thermal_limit,
            record=options.record,
            profiles=options.profiles,
            workload=options.workload,
        )
        governor.__enter__()
    except GovernorError as error:
        problem = error.on_command_line if isinstance(error, NoDeviceError) else str(error)
        _say(" ".join(problem.split()))
        # the interpreter is still starting, and would print an exception of this as its own fault
        os._exit(2 if isinstance(error, InputError) else 1)
    atexit.register(_end, governor, os.getpid())


def _end(governor: EnergyGovernor, process: int) -> None:
    if os.getpid() == process:
        governor.__exit__(None, None, None)
        _say(summary(governor.status()))


def summary(status: Status) -> str:
    """What it came to, in a line."""
    if not status.inferences:
        return "no inference was seen; docs/instrumentation.md says which are, and how to mark them"
    parts = [f"{status.inferences} inferences"]
    if math.isfinite(status.slo_s):
        kept = 1.0 - status.violations / status.inferences
        parts.append(f"{format_percent(kept)} within {format_duration(status.slo_s)}")
    if status.phase == "hold":
        parts.append(f"held {status.point or 'the default governors'}")
        parts.append(f"{format_energy(status.held_energy_j)} an item")
    else:
        parts.append(f"ended in {status.phase}")
    if status.saving:
        parts.append(f"{format_percent(status.saving)} saved")
    return ", ".join(parts) + (" (energy is emulated)" if status.emulated else "")


def _say(text: str) -> None:
    print(f"governor: {text}", file=sys.stderr)
