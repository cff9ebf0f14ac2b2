"""``governor top``: watch a governor, by its run record or by its metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli import refuse
from governor.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from governor.report.top import View
    from governor.report.watch import Watched


def top(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="RUN.jsonl|URL", help="A run record, or http://host:9477."),
    ],
    interval: Annotated[
        float, typer.Option(min=0.1, max=86_400.0, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and leave.")] = False,
    governor: Annotated[
        str, typer.Option(help="Which one, where several show their metrics there.")
    ] = "",
) -> None:
    """Watch a governor: a screen on a terminal, a line a look in a pipe.

    It leaves when a recorded run is over, or on Ctrl-C.
    """
    from rich.console import Console

    from governor.report.top import screen
    from governor.report.watch import watch

    if once:
        refuse(
            context, ["interval"], "is between two looks, and --once takes one; drop one of them"
        )

    watched = watch(source, governor)
    console = Console(highlight=False)
    view = watched.look()
    if once:
        console.print(screen(view))
        return
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _live(console, watched, view, interval)
        else:
            _lines(console, watched, view, interval)
    except KeyboardInterrupt:
        return


def _live(console: Console, watched: Watched, view: View, interval_s: float) -> None:
    from rich.live import Live

    from governor.report.top import screen

    with Live(screen(view), console=console, auto_refresh=False) as live:
        while not view.over:
            time.sleep(interval_s)
            view = _look(watched, view)
            live.update(screen(view), refresh=True)


def _lines(console: Console, watched: Watched, view: View, interval_s: float) -> None:
    from governor.report.top import line

    console.print(line(view), soft_wrap=True, markup=False)
    while not view.over:
        time.sleep(interval_s)
        view = _look(watched, view)
        console.print(line(view), soft_wrap=True, markup=False)


def _look(watched: Watched, before: View) -> View:
    """A governor that cannot be read for a moment may come back: say so, and go on."""
    try:
        return watched.look()
    except InputError as error:
        before.note = str(error)
        return before
