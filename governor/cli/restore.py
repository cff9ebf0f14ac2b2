"""``governor restore``: put back what a keeper that was killed could not."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from governor.cli.daemon import StateFolder, SysfsRoot
from governor.lease.custody import Custody
from governor.lease.errors import LeaseError
from governor.lease.journal import Journal, default_folder
from governor.lease.process import Process


def restore(sysfs_root: SysfsRoot = Path("/"), state_dir: StateFolder = None) -> None:
    """Put every knob that was set back as the journal says it was before the first write.

    Needed only if the lease keeper itself was killed; harmless at any time.
    """
    root = sysfs_root.resolve()
    folder = state_dir or default_folder(root)
    if Journal(folder).read() is None:
        typer.echo(f"Nothing to restore: there is no journal in {folder}.")
        return
    try:
        record = Custody(root, folder).put_back(Process.of(os.getpid()))
    except PermissionError as error:
        raise LeaseError(f"{error}; only root may: sudo governor restore") from None
    if record is None:
        typer.echo("Nothing to restore: the journal was of an earlier boot; the kernel's own")
        typer.echo("settings have come back with the restart. It is deleted.")
    else:
        typer.echo(f"Restored what {record.holder} had left set: {', '.join(record.snapshots)}.")
