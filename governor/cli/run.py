"""``governor run``: govern a Python program that knows nothing of it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from governor.cli import refuse
from governor.cli.replay import (
    KnobLimits,
    Limits,
    LiveAim,
    Log,
    PowerCap,
    Profiles,
    Record,
    Workload,
    check_record,
    parse_profiles,
)
from governor.launch import Options, prepare
from governor.schedule import parse_objective
from governor.slo import LatencySLO
from governor.units import knob_limits, thermal_limits
from policies.policy import DEFAULT_POLICY, check_policy_name


def run(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="Such as: python app.py")
    ],
    latency_slo: Annotated[
        str,
        typer.Option("--latency-slo", metavar="BOUND", help="50ms, 20fps, 1.3x all-max or none."),
    ],
    percentile: Annotated[
        float, typer.Option(help="Share of the inferences that must keep it.")
    ] = 0.95,
    objective: LiveAim = "energy",
    power_cap: PowerCap = None,
    device: Annotated[
        str, typer.Option(help="auto, or such as emulated:agx-orin/yolov8n.")
    ] = "auto",
    policy: Annotated[str, typer.Option(help="Who searches.")] = DEFAULT_POLICY,
    trials: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Settings that a search may try.")
    ] = 12,
    limit: KnobLimits = None,
    thermal_limit: Limits = None,
    record: Record = None,
    profiles: Profiles = None,
    workload: Workload = "",
    log_format: Log = None,
) -> None:
    """Govern an unmodified Python program, and say at its end what it came to.

    Its inferences are seen by themselves: PyTorch, TensorRT, ONNX Runtime and OpenCV. It runs in
    this process: its input and output, its signals and its exit code are its own. Only its first
    process is governed, and no program that it starts.
    """
    if profiles is None:
        refuse(context, ["workload"], "names a profile; give --profiles, too")
    LatencySLO.parse(latency_slo, percentile)
    parse_objective(objective, power_cap)
    check_policy_name(policy)
    check_record(record)
    options = Options(
        latency_slo=latency_slo,
        percentile=percentile,
        device=device,
        policy=policy,
        trials=trials,
        limits=knob_limits(limit or ()),
        thermal_limit=thermal_limits(thermal_limit or ()),
        objective=objective,
        power_cap=power_cap,
        record=None if record is None else str(record.absolute()),
        profiles=parse_profiles(profiles),
        workload=workload,
        log_format=None if log_format is None else log_format.value,
    )
    program, environment = prepare(command, options, os.environ)
    sys.stdout.flush()
    os.execve(program, command, environment)  # noqa: S606 - what the user asked for, no shell
