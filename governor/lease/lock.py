"""One lease at a time on one machine, whichever keepers run."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from governor.lease.errors import LeaseHeldError
from governor.lease.journal import RUN
from governor.lease.process import Process

ENDING_S = 5.0
"""How long to wait for a keeper that is still putting things back after a dead holder."""


class Tenure(NamedTuple):
    """Who holds the lease, and by which keeper."""

    holder: Process
    keeper: Process


class LeaseLock:
    """A file lock, which the kernel lets go of however the keeper ends.

    Only the keeper's own user may open that file: whoever can, if only to read, can lock it.
    Another one says who holds the lease, for all to read; both stay when the lease ends.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        """
        Args:
            folder: of the lock.
            root: of the machine's files: nobody may hold a lease on them by another folder.
        """
        self.path = folder / "lease"
        self.told = folder / "lease.json"
        self._root = root
        self._file: int | None = None
        self._machine: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._file is not None

    def take(self, holder: Process) -> None:
        """Hold the lease for ``holder``.

        Raises:
            LeaseHeldError: someone else holds it.
            OSError: the lock's file cannot be made.
        """
        self._file = open_private(self.path)
        try:
            os.fchmod(self._file, 0o600)  # it may be of a version that let others read it
            if not self._soon_locked(self._file):
                raise LeaseHeldError(held_message(self.tenure()))
            self._machine = None if self._root is None else _open_machine(self._root)
            if self._machine is not None and not self._soon_locked(self._machine):
                raise LeaseHeldError(
                    f"a keeper with another --state-dir holds a lease on the machine under "
                    f"{self._root}: end that first, or use its --state-dir"
                )
        except BaseException:
            self._close()
            raise
        with suppress(OSError):  # a full disk must not keep anything from being put back
            self._tell(Tenure(holder, Process.of(os.getpid())))

    def _soon_locked(self, file: int) -> bool:
        give_up_s = time.monotonic() + ENDING_S
        while not _locked(file):
            tenure = self.tenure()
            ending = tenure is None or not tenure.holder.alive()
            if not ending or time.monotonic() >= give_up_s:
                return False
            time.sleep(0.02)
        return True

    def _tell(self, tenure: Tenure) -> None:
        facts = {name: process._asdict() for name, process in tenure._asdict().items()}
        told = os.open(self.told, _FLAGS, 0o644)
        try:
            os.ftruncate(told, 0)
            os.write(told, json.dumps(facts).encode())
        finally:
            os.close(told)

    def drop(self) -> None:
        """Let go."""
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self.told, 0)
        self._close()

    def _close(self) -> None:
        for file in (self._machine, self._file):
            if file is not None:
                os.close(file)
        self._machine = self._file = None

    def tenure(self) -> Tenure | None:
        """Who holds the lease; None when nobody does, or it is just changing hands."""
        try:
            facts = cast(dict[str, dict[str, object]], json.loads(self.told.read_bytes()))
            tenure = Tenure(_process(facts["holder"]), _process(facts["keeper"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return tenure if tenure.keeper.alive() else None


_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def open_private(path: Path) -> int:
    """The descriptor of a file to lock, which nobody else can open.

    Raises:
        OSError: it cannot be made or opened.
    """
    return os.open(path, _FLAGS, 0o600)


def _open_machine(root: Path) -> int | None:
    """What to lock for one lease on a machine; None for who could not set it anyway.

    Of the live machine a file of its own: any user could lock the folder ``/``.
    """
    if root.resolve() != Path("/"):
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        return open_private(RUN / "machine")
    except PermissionError:
        return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def held_message(tenure: Tenure | None) -> str:
    """Who is in the way, and what to do."""
    who = "another process" if tenure is None else str(tenure.holder)
    return f"the lease is held by {who}: end it first; governor status shows more"


def _process(facts: dict[str, object]) -> Process:
    return Process(int(str(facts["pid"])), str(facts["name"]), int(str(facts["started"])))
