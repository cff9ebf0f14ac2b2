"""Which process holds the lease, named so that a recycled pid is not taken for it."""

from __future__ import annotations

import os
from typing import NamedTuple

UNSEEN = -1


class Process(NamedTuple):
    """A process, alive or not.

    ``/proc`` is polled rather than a pidfd held: L4T 32's kernel 4.9 has no ``pidfd_open``
    (it came with Linux 5.3).

    Attributes:
        pid: 0 for a process in a pid namespace that cannot be seen from here.
        name: its program and script, for people.
        started: clock ticks from boot; with the pid, it names a process for good. ``UNSEEN``
            where ``/proc`` did not tell: then only its connection's end says that it died.
    """

    pid: int
    name: str
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now."""
        state = _stat(pid)
        return cls(pid, _name(pid), UNSEEN if state is None else state[1])

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        if self.started == UNSEEN:
            return True
        state = _stat(self.pid)
        return state is not None and state[0] not in "ZX" and state[1] == self.started

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name})"


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time; proc(5), fields 3 and 22 of stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _name(pid: int) -> str:
    """``python app.py``: the program and its first argument; none after, for it may be secret."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).decode("utf-8", "replace").split("\0")
    except OSError:
        return "unknown"
    shown = [os.path.basename(words[0])]
    for word in words[1:]:
        shown.append(os.path.basename(word))
        if not word.startswith("-"):
            break
    name = "".join(letter if letter.isprintable() else "?" for letter in " ".join(shown))
    return name.strip()[:60] or "unknown"
