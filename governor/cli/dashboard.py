"""``governor dashboard``: the Grafana dashboard as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from governor.cli.replay import check_writable


def dashboard(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Where to; else it is printed."),
    ] = None,
) -> None:
    """Build the Grafana dashboard, to be imported or provisioned."""
    check_writable(output)
    from governor.report.grafana import dashboard_json

    text = dashboard_json()
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
