"""A tree of files that are answered by functions, and what can be made to go wrong with them.

Nothing here is mounted: :mod:`governor.devices.emulated.mount` serves a tree over FUSE, and tests
read and write it directly.
"""

from __future__ import annotations

import errno
import posixpath
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from threading import Lock

from governor.devices.emulated.limits import refusal
from governor.errors import InputError


def _always() -> bool:
    return True


@dataclass(frozen=True)
class File:
    """A file: what reading it gives, and what writing it does.

    Attributes:
        read: its whole content; None: it cannot be read.
        write: takes all that was written at once; None: it cannot be written, not even by root.
        mode: permission bits.
        exists: asked at each look.
    """

    read: Callable[[], str] | None
    write: Callable[[str], None] | None = None
    mode: int = 0o444
    exists: Callable[[], bool] = _always


@dataclass(frozen=True)
class Link:
    """A symbolic link; ``target`` is relative to where it lies."""

    target: str
    exists: Callable[[], bool] = _always


@dataclass
class Directory:
    """A directory; what is below it is gone while it does not exist."""

    mode: int = 0o755
    exists: Callable[[], bool] = _always
    children: dict[str, Node] = field(default_factory=dict[str, "Node"])


Node = File | Link | Directory

EFFECTS = ("EIO", "EINVAL", "EACCES", "ENODEV", "EAGAIN", "hang", "garbage", "empty", "ignore")
"""What can go wrong: an errno; an answer after 5 s; bytes that mean nothing; an empty answer, as
if 0 bytes had been there to read; a write that is taken and does nothing."""

HANG_S = 5.0
GARBAGE = "\x00\ufffd~%\n"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with some files.

    Attributes:
        pattern: path from the tree's root, with ``*`` and ``?`` as in a shell.
        operation: ``read``, ``write`` or ``any``.
        effect: one of :data:`EFFECTS`.
        chance: how likely at each operation.
    """

    pattern: str
    operation: str
    effect: str
    chance: float = 1.0

    def __str__(self) -> str:
        return f"{self.pattern} {self.operation} {self.effect} {self.chance:g}"


def parse_fault(line: str) -> Fault:
    """A fault from ``PATTERN read|write|any EFFECT [CHANCE]``.

    Raises:
        InputError: it is not of that form.
    """
    words = line.split()
    if (
        len(words) not in (3, 4)
        or words[1] not in ("read", "write", "any")
        or words[2] not in EFFECTS
    ):
        raise InputError(
            f"fault {line!r} is not 'PATTERN read|write|any {'|'.join(EFFECTS)} [CHANCE]'"
        )
    try:
        chance = float(words[3]) if len(words) == 4 else 1.0
    except ValueError:
        raise InputError(f"fault {line!r}: {words[3]!r} is no number from 0 to 1") from None
    return Fault(words[0], words[1], words[2], chance)


class Tree:
    """Files by their absolute path. Safe to use from several threads if its functions are."""

    def __init__(self, seed: int = 0) -> None:
        """``seed``: of faults that happen by chance."""
        self._root = Directory()
        self._faults: tuple[tuple[Fault, frozenset[str]], ...] = ()
        self._random = Random(seed)
        self._lock = Lock()

    # -- building -------------------------------------------------------------------------

    def directory(self, path: str, mode: int = 0o755, exists: Callable[[], bool] = _always) -> None:
        """Make a directory, with those above it. One that is there gets this mode."""
        made = self._make(path)
        made.mode, made.exists = mode, exists

    def add(self, path: str, node: File | Link) -> None:
        """Put a file or link at ``path``, with the directories above it."""
        parent, name = posixpath.split(path)
        self._make(parent).children[name] = node

    def link(self, path: str, target: str, exists: Callable[[], bool] = _always) -> None:
        """Link ``path`` to the absolute path ``target``, by the way from one to the other."""
        self.add(path, Link(posixpath.relpath(target, posixpath.dirname(path)), exists))

    def _make(self, path: str) -> Directory:
        here = self._root
        for name in _names(path):
            below = here.children.setdefault(name, Directory())
            if not isinstance(below, Directory):
                raise InputError(f"{path}: {name} is not a directory")
            here = below
        return here

    # -- looking --------------------------------------------------------------------------

    def node(self, path: str) -> Node:
        """What lies at exactly this path; links are not followed.

        Raises:
            OSError: ENOENT, or ENOTDIR where the path goes through a file or a link.
        """
        here: Node = self._root
        for name in _names(path):
            if not isinstance(here, Directory):
                raise refusal(errno.ENOTDIR)
            below = here.children.get(name)
            if below is None or not below.exists():
                raise refusal(errno.ENOENT)
            here = below
        return here

    def resolve(self, path: str) -> str:
        """The path without links in it.

        Raises:
            OSError: ENOENT, or ELOOP.
        """
        real, left = "/", _names(path)[::-1]
        for _ in range(400):
            if not left:
                return real
            name = left.pop()
            here = posixpath.normpath(posixpath.join(real, name))
            node = self.node(here)
            if isinstance(node, Link):
                left += _names(node.target)[::-1]
            else:
                real = here
        raise refusal(errno.ELOOP)

    def names(self, path: str) -> list[str]:
        """What a directory holds now; links in the path are followed.

        Raises:
            OSError: ENOENT or ENOTDIR.
        """
        here = self.node(self.resolve(path))
        if not isinstance(here, Directory):
            raise refusal(errno.ENOTDIR)
        return [name for name, node in here.children.items() if node.exists()]

    def files(self) -> list[str]:
        """The paths of all files that exist now."""
        found: list[str] = []
        left: list[tuple[str, Node]] = [("", self._root)]
        while left:
            path, node = left.pop()
            if isinstance(node, File):
                found.append(path)
            elif isinstance(node, Directory):
                below = node.children.items()
                left += [(f"{path}/{name}", each) for name, each in below if each.exists()]
        return sorted(found)

    # -- using ----------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """A file's whole content.

        Raises:
            OSError: as the kernel would, or as a fault demands.
        """
        path = self.resolve(path)
        file = self._file(path)
        if file.read is None:
            raise refusal(errno.EACCES)
        effect = self._suffer(path, "read")
        if effect == "empty":
            return b""
        return (GARBAGE if effect == "garbage" else file.read()).encode(errors="replace")

    def write(self, path: str, data: bytes) -> None:
        """Write to a file, all at once.

        Raises:
            OSError: as the kernel would, or as a fault demands.
        """
        path = self.resolve(path)
        file = self._file(path)
        if file.write is None:
            raise refusal(errno.EACCES)
        if self._suffer(path, "write") not in ("ignore", "empty", "garbage"):
            file.write(data.decode(errors="replace"))

    def _file(self, path: str) -> File:
        node = self.node(path)
        if not isinstance(node, File):
            raise refusal(errno.EISDIR)
        return node

    # -- faults ---------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What goes wrong now."""
        return tuple(fault for fault, _ in self._faults)

    @faults.setter
    def faults(self, faults: tuple[Fault, ...]) -> None:
        """Let these go wrong from now on, and nothing else. A pattern may go through links."""
        self._faults = tuple((fault, self._real_paths(fault.pattern)) for fault in faults)

    def _real_paths(self, pattern: str) -> frozenset[str]:
        """What there is now under this pattern, without links in the paths."""
        found = {"/"}
        for part in _names(pattern):
            found = {
                real
                for path in found
                for name in self._names_or_none(path)
                if fnmatchcase(name, part) and (real := self._real(f"{path}/{name}")) is not None
            }
        return frozenset(found)

    def _names_or_none(self, path: str) -> list[str]:
        try:
            return self.names(path)
        except OSError:
            return []

    def _real(self, path: str) -> str | None:
        try:
            return self.resolve(path)
        except OSError:
            return None

    def _suffer(self, path: str, operation: str) -> str | None:
        """Let the first fault that applies happen; returns its effect if the caller must see to it.

        Raises:
            OSError: the fault's errno.
        """
        for fault, paths in self._faults:
            if fault.operation not in (operation, "any"):
                continue
            if path not in paths and not fnmatchcase(path, fault.pattern):
                continue
            with self._lock:
                if self._random.random() >= fault.chance:
                    continue
            if fault.effect == "hang":
                time.sleep(HANG_S)
                return None
            code = getattr(errno, fault.effect, None)
            if code is not None:
                raise refusal(code)
            return fault.effect
        return None


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name and name != "."]
