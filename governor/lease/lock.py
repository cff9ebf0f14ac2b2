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

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease"
        self.told = folder / "lease.json"
        self._file: int | None = None

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
        file = _open(self.path, 0o600)
        try:
            os.fchmod(file, 0o600)  # it may be of a version that let others read it
            self._wait_for(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        with suppress(OSError):  # a full disk must not keep anything from being put back
            self._tell(Tenure(holder, Process.of(os.getpid())))

    def _wait_for(self, file: int) -> None:
        give_up_s = time.monotonic() + ENDING_S
        while not _locked(file):
            tenure = self.tenure()
            ending = tenure is None or not tenure.holder.alive()
            if not ending or time.monotonic() >= give_up_s:
                raise LeaseHeldError(held_message(tenure))
            time.sleep(0.02)

    def _tell(self, tenure: Tenure) -> None:
        facts = {name: process._asdict() for name, process in tenure._asdict().items()}
        told = _open(self.told, 0o644)
        try:
            os.ftruncate(told, 0)
            os.write(told, json.dumps(facts).encode())
        finally:
            os.close(told)

    def drop(self) -> None:
        """Let go."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.truncate(self.told, 0)
            os.close(file)

    def tenure(self) -> Tenure | None:
        """Who holds the lease; None when nobody does, or it is just changing hands."""
        try:
            facts = cast(dict[str, dict[str, object]], json.loads(self.told.read_bytes()))
            tenure = Tenure(_process(facts["holder"]), _process(facts["keeper"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return tenure if tenure.keeper.alive() else None


def _open(path: Path, mode: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


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
