"""``governor fleet``: what it saves that many boards share what they learn, by emulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor import __version__
from governor.cli.replay import (
    Jobs,
    Noise,
    Trials,
    check_writable,
    make_folder,
    result_console,
    result_table,
    write_json,
)
from governor.errors import InputError
from governor.finished import FinishedFile, resumed
from governor.progress import with_progress
from governor.spread import Place, spread
from governor.units import format_percent

if TYPE_CHECKING:
    from governor.cli.fleet.governing import BoardRun, Task
    from governor.cli.fleet.results import Group
    from governor.store import ProfileStore


def fleet(
    boards: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many.")] = 1000,
    waves: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="Switched on one after the other; each learns of the last."
        ),
    ] = 20,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where profiles are shared: postgresql://... or an SQLite file.",
            show_default="FOLDER/profiles.db",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Of results and figures.")
    ] = Path("fleet"),
    trials: Trials = 12,
    windows: Annotated[
        int,
        typer.Option(
            min=1, max=1_000_000, help="Windows that each board runs, its search among them."
        ),
    ] = 100,
    noise: Noise = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of the boards and of all noise.")] = 0,
    jobs: Jobs = None,
) -> None:
    """Let a fleet of emulated boards learn from each other, and say what that saves.

    Boards of differing silicon in differing rooms are switched on in waves. Each finds its
    clocks alone, and once more with what earlier waves left in the store; its kernel's own
    governors are run, too. A fleet that was killed goes on where it was when the same command
    is run again.
    """
    from governor.cli.fleet.figures import draw
    from governor.cli.fleet.governing import BoardRun, Rules, Task
    from governor.cli.fleet.members import members
    from governor.cli.fleet.results import to_json
    from governor.report.drawing import empty_figure
    from governor.store import ProfileStore

    if trials > windows:
        raise InputError(f"--trials {trials} are more than the {windows} --windows; lower them")
    empty_figure(1.0, 1.0)  # before the work, not after it: can figures be drawn here?
    make_folder(output)
    check_writable(output / "fleet.json")
    where = store or str(output / "profiles.db")
    rules = Rules(trials, noise, windows)
    todo = [Task(member, rules, where) for member in members(boards, waves, seed)]
    settings = {
        "version": __version__,
        "boards": str(boards),
        "waves": str(waves),
        "trials": str(trials),
        "windows": str(windows),
        "noise": str(noise),
        "seed": str(seed),
    }
    with (
        ProfileStore(where) as profiles,
        FinishedFile(output / "boards.jsonl", settings, BoardRun) as file,
    ):
        if not file.results and (count := len(profiles.entries())):
            raise InputError(
                f"--store {profiles} has {count} profiles already, and a fleet begins with none; "
                "give an empty one"
            )
        runs = list(
            with_progress(_waves(todo, file, profiles, Place(jobs)), len(todo), "Governing")
        )
    draw(output / "fleet.png", runs)
    write_json(output / "fleet.json", to_json(runs, settings))
    _print(runs)
    result_console().print(f"Written: {output}/fleet.png, fleet.json", soft_wrap=True)


def _waves(
    tasks: Sequence[Task], file: FinishedFile[BoardRun], store: ProfileStore, place: Place
) -> Iterator[BoardRun]:
    """Wave by wave; what one has learnt is in the store before the next begins.

    Within a wave nobody reads what another writes, or results would go by who is quicker.
    """
    from governor.cli.fleet.governing import govern

    def work(some: Sequence[Task]) -> Iterator[BoardRun]:
        return spread(govern, some, place)

    first = 0
    for _, group in groupby(tasks, key=lambda task: task.member.wave):
        wave = list(group)
        done: list[BoardRun] = []
        for run in resumed(file, wave, work, first):
            done.append(run)
            yield run
        for task, run in zip(wave, done, strict=True):
            store.save(task.member.cohort.key, run.profile)
        first += len(wave)


def _print(runs: Sequence[BoardRun]) -> None:
    from governor.cli.fleet.results import by_cohort, group

    table = result_table(
        "EMULATION: energy of the same work against the kernel's governors, searches\n"
        "included; least: of the best setting, as if it were known at once. SLO: share\n"
        "of boards whose setting keeps it: of the kernel's governors, alone, shared.",
        "cohort",
        "boards",
        "least\n%",
        "alone\n%",
        "shared\n%",
        "trials:\nalone/shared",
        "SLO kept,\n%",
    )
    for name, one in by_cohort(runs).items():
        table.add_row(name, *_cells(one))
    table.add_section()
    total = group(runs)
    table.add_row("all", *_cells(total), style="bold")
    change = format_percent(total.shared_w / total.alone_w - 1, signed=True)
    console = result_console()
    console.print(table)
    console.print(
        f"The fleet draws {_kilowatts(total.default_w)} under its default governors, "
        f"{_kilowatts(total.alone_w)} with every board alone, {_kilowatts(total.shared_w)} with "
        f"the shared store: {change} against alone.",
        soft_wrap=True,
    )


def _kilowatts(watts: float) -> str:
    return f"{watts / 1e3:.2f} kW" if watts >= 1e3 else f"{watts:.0f} W"


def _cells(one: Group) -> list[str]:
    energies = (one.least_w, one.alone_w, one.shared_w)
    kept = (one.default_kept, one.alone_kept, one.shared_kept)
    return [
        str(one.boards),
        *(f"{100 * (watts / one.default_w - 1):+.1f}" for watts in energies),
        f"{one.alone_trials:.1f} / {one.shared_trials:4.1f}",
        "/".join(f"{100 * share:.0f}" for share in kept),
    ]
