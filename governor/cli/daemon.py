"""``governor daemon``: keep the lease for applications that may not set clocks themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from governor.errors import InputError
from governor.lease.client import KEEPER
from governor.lease.journal import default_folder
from governor.lease.listener import GROUP, SOCKET


def _kernel_root(path: Path) -> Path:
    if not (path / "sys").is_dir():
        raise InputError(f"--sysfs-root {path} has no folder sys in it")
    return path


SysfsRoot = Annotated[
    Path,
    typer.Option(
        "--sysfs-root",
        metavar="DIR",
        help="Where sys, proc and etc lie; a mounted emulation, say.",
        callback=_kernel_root,
    ),
]
StateFolder = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        file_okay=False,
        help="Of the journal; in /run/energy-governor by default.",
    ),
]


def daemon(
    socket: Annotated[Path, typer.Option(metavar="PATH", help="Where to listen.")] = SOCKET,
    sysfs_root: SysfsRoot = Path("/"),
    group: Annotated[str, typer.Option(help="Who may connect, besides root.")] = GROUP,
    state_dir: StateFolder = None,
) -> None:
    """Serve the lease at a socket, as root; best run by its systemd unit.

    One application at a time may set the machine's clocks; they are put back when it ends,
    however it ends, and when this daemon is stopped.
    """
    root = sysfs_root.resolve()
    if root == Path("/") and os.geteuid() != 0:
        raise InputError("only root may set this machine's clocks: sudo governor daemon")
    folder = state_dir or default_folder(root)
    words = ["serve", str(socket.absolute()), group, str(root), str(folder.absolute())]
    # This process becomes the keeper, which needs a tenth of the command line's memory.
    os.execv(KEEPER[0], [*KEEPER, *words])  # noqa: S606 - our own interpreter, our own module
