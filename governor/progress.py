"""How far long work has come, and how long it still takes: on stderr, if that is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from governor.exits import ended_in_order

if TYPE_CHECKING:
    from rich.console import Console

R = TypeVar("R")

LINE_S = 10.0
"""A terminal that cannot draw over a line gets one so often."""
SPEED_S = 600.0
"""The time left goes by the speed over so long: a step may take minutes."""

Tell = Callable[[float], None]
"""Is told how much of the whole is done."""


@contextmanager
def progress(doing: str, total: float | None, *, still: bool = False) -> Generator[Tell]:
    """A bar while the block runs, in the unit of ``total``; None: nobody knows how long it takes.

    SIGTERM ends the block as Ctrl-C does, so that the terminal gets its cursor back.

    ``still``: drawn only when it is told something, so that nothing draws while work is timed.
    """
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal and console.is_dumb_terminal:
        yield _lines(console, doing, total)
        return
    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with (
        ended_in_order(),
        Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            auto_refresh=not still,
            speed_estimate_period=SPEED_S,
        ) as bar,
    ):
        task = bar.add_task(doing, total=total)
        bar.refresh()
        yield lambda done: bar.update(task, completed=done, refresh=still)


def _lines(console: Console, doing: str, total: float | None) -> Tell:
    began_s = said_s = time.monotonic()
    console.print(f"{doing} ...", highlight=False)

    def tell(done: float) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s < said_s + LINE_S or not done or total is None:
            return
        said_s = now_s
        left = timedelta(seconds=round((now_s - began_s) * (total / done - 1.0)))
        console.print(f"{doing}: {100 * done / total:.0f} %, {left} left", highlight=False)

    return tell


def with_progress(
    results: Iterable[R], total: int, doing: str, *, still: bool = False
) -> Iterator[R]:
    """The ``total`` results, as they come, under :func:`progress`."""
    with progress(doing, total, still=still) as tell:
        for done, result in enumerate(results):
            tell(done)
            yield result
