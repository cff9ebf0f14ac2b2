"""``governor metrics``: what is exported, and the passwords of those who may scrape it."""

from __future__ import annotations

import sys
import textwrap
from typing import Annotated

import typer


def metrics(
    password: Annotated[
        str,
        typer.Option(
            "--password",
            metavar="NAME",
            help="Ask for NAME's password, and print its line for the file of passwords.",
        ),
    ] = "",
) -> None:
    """List the metrics; or make a line for the file of those who may scrape."""
    if password:
        typer.echo(_line(password))
        return
    from governor.metrics import DOCUMENTED

    for family in DOCUMENTED:
        labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
        typer.echo(f"{family.exposed_name}{labels} ({family.kind})")
        typer.echo(textwrap.indent(textwrap.fill(family.documentation, 74), "    "))


def _line(name: str) -> str:
    """From a terminal the password is asked for twice, unseen; from a pipe it is one line."""
    from governor.exporter.auth import hashed

    if sys.stdin.isatty():
        secret = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        secret = sys.stdin.readline().rstrip("\n")
    return hashed(name, secret)
