"""``governor sidecar``: govern a pipeline that runs in another process or container."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli import refuse
from governor.cli.replay import (
    KnobLimits,
    Limits,
    LiveAim,
    PowerCap,
    Profiles,
    Record,
    Workload,
    check_record,
    check_writable,
    parse_profiles,
)
from governor.errors import InputError
from governor.logs import LogFormat, log_to_stderr
from governor.records.lines import known
from governor.units import knob_limits, parse_duration, thermal_limits
from policies.policy import DEFAULT_POLICY

if TYPE_CHECKING:
    from governor.status import Status

logger = logging.getLogger("governor")
STATUS_S = 1.0
"""Between two writings of the status file."""


def sidecar(
    context: typer.Context,
    latency_slo: Annotated[
        str, typer.Option(metavar="DURATION", help="Of application 'main': 50ms, 20fps or 1.3x.")
    ],
    percentile: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of its inferences that must keep it.")
    ] = 0.95,
    objective: LiveAim = "energy",
    power_cap: PowerCap = None,
    app: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SLO[@p99]", help="Another application; repeatable."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[APP=]KIND:...",
            help="prometheus:URL#METRIC{labels}, triton:URL#MODEL or log:FILE#PATTERN, "
            "where - is standard input; repeatable. The client's socket needs none.",
        ),
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where the client's frames arrive.")
    ] = None,
    socket_mode: Annotated[
        str, typer.Option(metavar="OCTAL", help="Who may send there, as file permissions.")
    ] = "660",
    device: Annotated[str, typer.Option(help="auto, or emulated:BOARD/WORKLOAD.")] = "auto",
    policy: Annotated[str, typer.Option(help="Who searches.")] = DEFAULT_POLICY,
    trials: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Settings that a search may try.")
    ] = 12,
    limit: KnobLimits = None,
    thermal_limit: Limits = None,
    interval: Annotated[
        str, typer.Option(metavar="DURATION", help="Between two scrapes of an app's metrics.")
    ] = "1s",
    tail: Annotated[
        float,
        typer.Option(help="Percentile over mean, where a source counts only the mean."),
    ] = 1.25,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Show the governor's own metrics.")
    ] = None,
    record: Record = None,
    profiles: Profiles = None,
    workload: Workload = "",
    status_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the status as JSON, every second.")
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the decisions on stderr.")
    ] = LogFormat.TEXT,
) -> None:
    """Govern pipelines of other processes, until it is stopped.

    Applications show their frames by the one-file client (governor/sidecar/client.py), or are
    seen by their own metrics or log. The operating point keeps the bound of every application.
    """
    from governor.lease.listener import tell_systemd
    from governor.sidecar.server import SOCKET, Sidecar
    from governor.sidecar.sources import describe
    from governor.sidecar.spec import App, SourceSpec

    if profiles is None:
        refuse(context, ["workload"], "names a profile; give --profiles, too")
    sources = [SourceSpec.parse(text) for text in source or ()]
    interval_s = parse_duration(interval, "--interval")
    check_record(record)
    check_writable(status_file)
    governed = Sidecar(
        latency_slo,
        percentile=percentile,
        objective=objective,
        power_cap=power_cap,
        apps=[App.parse(text) for text in app or ()],
        sources=sources,
        socket=socket or SOCKET,
        socket_mode=_mode(socket_mode),
        device=device,
        interval_s=interval_s,
        tail=tail,
        policy=policy,
        trials=trials,
        limits=knob_limits(limit or ()),
        thermal_limit=thermal_limits(thermal_limit or ()),
        metrics=metrics,
        record=record,
        profiles=parse_profiles(profiles),
        workload=workload,
    )
    log_to_stderr(log_format)
    ending = threading.Event()
    told = _StatusFile(status_file)

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with governed:
        if governed.governor.status().emulated:
            typer.echo("EMULATED board: no figure here was measured on hardware", err=True)
        for remark in describe(sources, tail, interval_s):
            typer.echo(f"note: {remark}", err=True)
        where = socket or SOCKET
        typer.echo(f"listening at {where}; {', '.join(governed.feeds)}; stop with Ctrl-C", err=True)
        tell_systemd("READY=1")
        while not ending.wait(STATUS_S):
            told.write(governed.governor.status())
        tell_systemd("STOPPING=1")
    told.write(governed.governor.status())


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise InputError(f"--socket-mode {text!r}: write file permissions, such as 660 or 666")
    return mode


class _StatusFile:
    """Written whole, or not at all: a reader never sees half of it.

    A full disk is no reason to cease governing: it is said once.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._failing = False

    def write(self, status: Status) -> None:
        """What is known now."""
        if self._path is None:
            return
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            beside.write_text(json.dumps(_for_json(status), indent=1))
            beside.replace(self._path)
        except OSError as error:
            if not self._failing:
                logger.warning("cannot write %s: %s; trying on", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False


def _for_json(status: Status) -> dict[str, object]:
    """What others may want to know; what is not known is null."""
    sources: dict[str, dict[str, int]] = {}
    for (source, outcome), count in status.sources.items():
        sources.setdefault(source, {})[outcome] = count
    return {
        "device": status.device,
        "emulated": status.emulated,
        "phase": status.phase,
        "frozen": status.frozen,
        "governing": status.governing,
        "point": None if status.point is None else dict(status.point),
        "slo_feasible": status.slo_feasible,
        "baseline_energy_j": known(status.baseline_energy_j),
        "held_energy_j": known(status.held_energy_j),
        "saving": status.saving,
        "inferences": status.inferences,
        "trials": status.trials,
        "fallbacks": status.fallbacks,
        "drifts": status.drifts,
        "apps": {
            stream.name: {
                "slo_s": known(stream.slo_s),
                "percentile": stream.slo.percentile,
                "latency_s": known(stream.latency_s),
                "inferences": stream.inferences,
                "violations": stream.violations,
                "silent": stream.silent,
            }
            for stream in status.streams
        },
        "sources": sources,
    }
