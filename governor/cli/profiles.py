"""``governor profiles``: look at, move and drop what earlier runs have learnt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli import refuse
from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.errors import InputError
from governor.space import OperatingPoint
from governor.units import format_duration, format_energy, format_percent

if TYPE_CHECKING:
    from rich.console import Console

    from governor.profile import Entry
    from governor.store import ProfileStore

MOST_BYTES = 100_000_000


class Action(str, Enum):
    """What is done with profiles."""

    LIST = "list"
    SHOW = "show"
    EXPORT = "export"
    IMPORT = "import"
    FORGET = "forget"


def profiles(
    context: typer.Context,
    action: Annotated[
        Action,
        typer.Argument(metavar="[ACTION]", help="list, show, export, import or forget."),
    ] = Action.LIST,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID|FILE]...", help="Profiles by their ID, or how it begins; to import: files."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="The store; the user's own file by default."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every profile, to show or forget.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Export there, not to standard output."
        ),
    ] = None,
) -> None:
    """List, show, export, import or forget profiles: what was learnt of a workload on a board.

    An export is JSON and holds every profile, or those named; an import is checked whole before
    anything is written, and takes the place of profiles of the same workload and board.
    """
    from governor.store import ProfileStore

    unused = {
        Action.LIST: ("what", "every", "output"),
        Action.SHOW: ("output",),
        Action.IMPORT: ("every", "output"),
        Action.FORGET: ("output",),
    }
    refuse(context, unused.get(action, ()), f"has no effect on {action.value}; leave it out")
    if what:
        refuse(context, ["every"], "and names are too much; give one or the other")
    check_writable(output)
    names = what or []
    with ProfileStore(store) as opened:
        match action:
            case Action.LIST:
                _list(opened, opened.entries())
            case Action.SHOW:
                for entry in _named(opened, names, every):
                    _show(result_console(), entry)
            case Action.EXPORT:
                _export(_named(opened, names, every or not names), output)
            case Action.IMPORT:
                _import(opened, [Path(name) for name in names])
            case Action.FORGET:
                ids = [key.id for key, _ in _named(opened, names, every)]
                typer.echo(f"forgotten: {opened.forget(ids)}")


def _named(store: ProfileStore, names: Sequence[str], every: bool) -> list[Entry]:
    """The profiles whose ID begins with one of the names.

    Raises:
        InputError: a name that is no profile's, or several profiles'; or nothing is named.
    """
    entries = store.entries()
    if every and not names:
        return entries
    if not names:
        raise InputError("no profile is named; give its ID as governor profiles list shows it")
    found: dict[str, Entry] = {}
    for name in names:
        alike = [entry for entry in entries if entry.key.id.startswith(name)]
        if len(alike) != 1:
            problem = "no profile has" if not alike else f"{len(alike)} profiles have"
            raise InputError(f"{problem} the ID {name!r} in {store}; see governor profiles list")
        found[alike[0].key.id] = alike[0]
    return list(found.values())


def _list(store: ProfileStore, entries: Sequence[Entry]) -> None:
    console = result_console()
    if not entries:
        console.print(f"No profiles in {store}", soft_wrap=True, markup=False, highlight=False)
        return
    table = result_table(
        f"Profiles in {store}", "workload", "board", "SLO", "trials", "ID", folding=3
    )
    for key, profile in entries:
        bounds = key.slo if key.objective == "energy" else f"{key.slo}, {key.objective}"
        table.add_row(key.workload, key.board, bounds, str(len(profile.trials)), key.id)
    console.print(table)


def _show(console: Console, entry: Entry) -> None:
    key, profile = entry
    chosen = profile.chosen_trial
    facts = {
        "profile": key.id,
        "workload": key.workload,
        "board": key.board,
        "JetPack": key.jetpack or "not known",
        "power mode": key.power_mode or "not known",
        "SLO": f"{key.slo}, objective {key.objective}",
        "chosen": str(OperatingPoint(profile.chosen)),
        "learnt": f"{_when(profile.created_s)}; last {_when(profile.updated_s)}, "
        f"written {profile.runs} time{'s' * (profile.runs > 1)}",
    }
    for name, fact in facts.items():
        console.print(f"{name:<12}{fact}", soft_wrap=True, markup=False, highlight=False)
    fastest = profile.trials[0]
    table = result_table("", "setting", "latency", "energy an\nitem", "against\nfastest")
    for one in profile.trials:
        table.add_row(
            str(OperatingPoint(one.point)),
            format_duration(one.latency_s),
            format_energy(one.energy_j),
            format_percent(one.energy_j / fastest.energy_j - 1.0, signed=True),
            style="bold" if one is chosen else None,
        )
    console.print(table)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "minutes")


def _export(entries: Sequence[Entry], output: Path | None) -> None:
    from governor.profile import dump

    document = dump(entries)
    if output is not None:
        write_json(output, document)
    else:
        typer.echo(json.dumps(document, indent=1, allow_nan=False))


def _import(store: ProfileStore, files: Sequence[Path]) -> None:
    from governor.profile import load

    if not files:
        raise InputError("nothing to import; give the file of an export")
    entries = [entry for file in files for entry in load(_read(file), str(file))]
    store.save_all(entries)
    typer.echo(f"imported: {len(entries)}")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror or error}); give the file of an export"
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{file}: is larger than {MOST_BYTES} bytes: no export of profiles")
    return content
