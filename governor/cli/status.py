"""``governor status``: who holds the lease, what is set, and whether a restore is needed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from governor.cli.daemon import StateFolder, SysfsRoot
from governor.lease.client import ask_daemon
from governor.lease.control import Control
from governor.lease.errors import JournalDamagedError, LeaseError
from governor.lease.find import find_hardware
from governor.lease.journal import Journal, Record, default_folder
from governor.lease.listener import SOCKET
from governor.lease.lock import LeaseLock, Tenure
from governor.units import format_knob_name, format_knob_value


@dataclass(frozen=True)
class LeaseStatus:
    """Where the lease stands.

    Attributes:
        hardware: what the backends found, by name.
        holder: who holds the lease, by pid and name; None: nobody.
        keeper: pid of the process that keeps it.
        daemon: whether one answers at the socket.
        journal: its path, if there is one.
        journal_state: ``none``, ``valid``, ``earlier boot`` or ``damaged``.
        saved_knobs: what the journal can put back.
        left_by: who had set what the journal puts back.
        restore_needed: something may still be set that nobody holds the lease for.
        knobs: what is in force, in base units; a text says why it cannot be read.
    """

    hardware: list[str]
    holder: str | None
    keeper: int | None
    daemon: bool
    journal: str | None
    journal_state: str
    saved_knobs: list[str]
    left_by: str | None
    restore_needed: bool
    knobs: dict[str, float | str]


def status(
    sysfs_root: SysfsRoot = Path("/"),
    state_dir: StateFolder = None,
    socket: Annotated[Path, typer.Option(metavar="PATH", help="Of the daemon.")] = SOCKET,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show who holds the lease, what is set now, and whether a restore is needed."""
    root = sysfs_root.resolve()
    found = look(root, state_dir or default_folder(root), socket)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        _print(found)


def look(root: Path, folder: Path, socket: Path) -> LeaseStatus:
    """The lease's state on this machine; changes nothing."""
    tenure = LeaseLock(folder).tenure()
    record, state = _journal(folder)
    hardware = find_hardware(root)
    controls = [control for each in hardware for control in each.controls]
    from_daemon = _daemon_knobs(socket)
    return LeaseStatus(
        hardware=[each.name for each in hardware],
        holder=None if tenure is None else str(tenure.holder),
        keeper=None if tenure is None else tenure.keeper.pid,
        daemon=from_daemon is not None,
        journal=None if state == "none" else str(Journal(folder).path),
        journal_state=state,
        saved_knobs=[] if record is None else list(record.snapshots),
        left_by=None if record is None else record.holder,
        restore_needed=_restore_needed(state, tenure),
        knobs={control.name: _now(control, from_daemon or {}) for control in controls},
    )


def _restore_needed(journal_state: str, tenure: Tenure | None) -> bool:
    return journal_state in ("valid", "damaged") and tenure is None


def _journal(folder: Path) -> tuple[Record | None, str]:
    try:
        record = Journal(folder).read()
    except JournalDamagedError:
        return None, "damaged"
    if record is None:
        return None, "none"
    return record, "valid" if record.of_this_boot else "earlier boot"


def _daemon_knobs(socket: Path) -> dict[str, float] | None:
    """What the daemon reads; None where there is none, or none for this user."""
    try:
        return cast(dict[str, float], ask_daemon("read", socket)["read"])
    except LeaseError:
        return None


def _now(control: Control, from_daemon: dict[str, float]) -> float | str:
    try:
        return control.read()
    except (OSError, ValueError, TypeError) as error:
        return from_daemon.get(control.name, str(error))


def _print(found: LeaseStatus) -> None:
    typer.echo(f"Hardware:  {', '.join(found.hardware) or 'nothing that can be set'}")
    for knob, now in found.knobs.items():
        shown = now if isinstance(now, str) else format_knob_value(knob, now)
        typer.echo(f"  {format_knob_name(knob)}: {shown}")
    keeper = "" if found.keeper is None else f", kept by pid {found.keeper}"
    typer.echo(f"Lease:     {found.holder or 'free'}{keeper}")
    typer.echo(f"Daemon:    {'answers' if found.daemon else 'none that answers this user'}")
    typer.echo(f"Journal:   {found.journal_state}{f', {found.journal}' if found.journal else ''}")
    if found.restore_needed:
        left = f" ({found.left_by} left it set)" if found.left_by else ""
        typer.echo(f"Restore:   NEEDED{left}: sudo governor restore")
    else:
        typer.echo("Restore:   not needed")
