"""``governor report``: a page with pictures, of a recorded run or of measured sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from governor.cli.replay import Devices, Workloads, check_report, select
from governor.devices.trace import read_traces
from governor.errors import InputError
from governor.units import parse_bound


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN.jsonl|TRACE.csv", help="A run record, or sweeps.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="Where to write it.")
    ] = Path("report.html"),
    latency_slo: Annotated[
        str | None,
        typer.Option("--latency-slo", metavar="BOUND", help="For sweeps: 50ms, or 1.3x all-max."),
    ] = None,
    workload: Workloads = None,
    device: Devices = None,
) -> None:
    """Draw a recorded run, or measured sweeps, as one HTML file that needs nothing beside it."""
    from governor.records.reader import read_run
    from governor.report.beside import beside
    from governor.report.document import write_report
    from governor.report.sources import of_run, of_sweep

    check_report(output)
    if source.suffix.lower() == ".csv":
        slo = None if latency_slo is None else parse_bound(latency_slo)
        sweeps = select(read_traces([source]), workload, device)
        known = beside(source)
        reports = [of_sweep(sweep, slo, known) for sweep in sweeps]
    elif latency_slo is not None or workload or device:
        raise InputError(
            f"--latency-slo, --workload and --device are for a trace, and {source} is a run record"
        )
    else:
        reports = [of_run(read_run(source))]
    title = reports[0].title if len(reports) == 1 else source.stem
    write_report(output, title, reports)
    typer.echo(f"wrote {output}")
