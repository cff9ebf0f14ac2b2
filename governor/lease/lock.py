"""One lease at a time on one machine, whichever keepers run."""

from __future__ import annotations

import fcntl
import json
import os
import time
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

    The file says who holds the lease, for others to read; it stays when the lease ends.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease"
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
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        give_up_s = time.monotonic() + ENDING_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tenure = self.tenure()
                ending = tenure is None or not tenure.holder.alive()
                if ending and time.monotonic() < give_up_s:
                    time.sleep(0.02)
                    continue
                os.close(file)
                raise LeaseHeldError(held_message(tenure)) from None
            break
        tenure = Tenure(holder, Process.of(os.getpid()))
        facts = {"holder": holder._asdict(), "keeper": tenure.keeper._asdict()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(facts).encode(), 0)
        self._file = file

    def drop(self) -> None:
        """Let go."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def tenure(self) -> Tenure | None:
        """Who holds the lease; None when nobody does, or it is just changing hands."""
        try:
            facts = cast(dict[str, dict[str, object]], json.loads(self.path.read_bytes()))
            tenure = Tenure(_process(facts["holder"]), _process(facts["keeper"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return tenure if tenure.keeper.alive() else None


def held_message(tenure: Tenure | None) -> str:
    """Who is in the way, and what to do."""
    who = "another process" if tenure is None else str(tenure.holder)
    return f"the lease is held by {who}: end it first; governor status shows more"


def _process(facts: dict[str, object]) -> Process:
    return Process(int(str(facts["pid"])), str(facts["name"]), int(str(facts["started"])))
