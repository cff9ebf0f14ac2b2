"""A virtual Jetson's files as a FUSE mount, so that programs see them as they would on the board.

Needs fuse3 and the package mfusepy (extra ``emulator``); :func:`why_not` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.emulated.tree import Directory, File, Link, Tree
from governor.errors import DeviceError, InputError

FUSE = Path("/dev/fuse")
FILE_SIZE = 4096
"""What every file of sysfs says its size is."""
LOOKUP_S = 1.0
"""For so long the kernel may remember what lies at a path. Opening asks again."""

THREADS = 32
"""So many requests may hang at once before others wait for them (10 by default since 3.12)."""

STOP_S = 5.0


class _Operations:
    """What FUSE asks for, answered from a tree. One call a request, from many threads."""

    use_ns = True  # times in ns: mfusepy asks for this

    def __init__(self, tree: Tree) -> None:
        self.ready = threading.Event()
        self._tree = tree
        self._handles = count(1)
        self._contents: dict[int, bytes] = {}

    def init(self, _path: str) -> None:
        self.ready.set()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        node = self._tree.node(path)
        if isinstance(node, Directory):
            kind, mode, links, size = stat.S_IFDIR, node.mode, 2, 0
        elif isinstance(node, Link):
            kind, mode, links, size = stat.S_IFLNK, 0o777, 1, len(node.target)
        else:
            kind, mode, links, size = stat.S_IFREG, node.mode, 1, FILE_SIZE
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        return {"st_mode": kind | mode, "st_nlink": links, "st_size": size, **owner}

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *self._tree.names(path)]

    def readlink(self, path: str) -> str:
        node = self._tree.node(path)
        if not isinstance(node, Link):
            raise OSError(22, os.strerror(22))
        return node.target

    def open(self, path: str, flags: int) -> int:
        """As kernfs does, check what the file can do, also for root."""
        node = self._tree.node(path)
        access = flags & os.O_ACCMODE
        if isinstance(node, File) and (
            (access != os.O_WRONLY and node.read is None)
            or (access != os.O_RDONLY and node.write is None)
        ):
            raise PermissionError(13, os.strerror(13))
        return next(self._handles)

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        """A file is asked anew by each read from its start; further reads go on in that."""
        if offset == 0 or handle not in self._contents:
            self._contents[handle] = self._tree.read(path)
        return self._contents[handle][offset : offset + size]

    def write(self, path: str, data: bytes, _offset: int, _handle: int) -> int:
        self._tree.write(path, data)
        return len(data)

    def truncate(self, path: str, _length: int, _handle: int | None = None) -> int:
        """``echo 1 > file`` truncates first; in sysfs that does nothing."""
        self._tree.node(path)
        return 0

    def release(self, _path: str, handle: int) -> int:
        self._contents.pop(handle, None)
        return 0


def why_not() -> str | None:
    """What this machine lacks for a mount, and the command that gets it; None: nothing."""
    if not FUSE.exists():
        return f"{FUSE} does not exist; load the kernel module fuse, or give it to the container"
    if shutil.which("fusermount3") is None:
        return "fuse3 is not installed; run: apt-get install -y fuse3"
    try:
        _load()
    except ImportError:
        return "mfusepy is not installed; run: pip install 'energy-governor[emulator]'"
    except OSError:
        return "libfuse cannot be loaded; run: apt-get install -y fuse3"
    return None


def _load() -> Any:
    """The module mfusepy, which loads libfuse."""
    return import_module("mfusepy")


def check_mount_point(directory: Path) -> None:
    """Refuse what cannot be mounted on.

    Raises:
        InputError: what is missing on this machine, or ``directory`` is not an empty directory.
    """
    lacking = why_not()
    if lacking is not None:
        raise InputError(f"cannot mount on {directory}: {lacking}")
    try:
        if any(directory.iterdir()):
            raise InputError(f"cannot mount on {directory}: it is not empty; give an empty one")
        if not os.access(directory, os.W_OK):
            raise InputError(f"cannot mount on {directory}: it is read-only; give one of your own")
    except FileNotFoundError:
        raise InputError(
            f"cannot mount on {directory}: it does not exist; run: mkdir -p {directory}"
        ) from None
    except NotADirectoryError:
        raise InputError(f"cannot mount on {directory}: it is not a directory") from None
    except OSError as error:
        raise InputError(
            f"cannot mount on {directory}: {error.strerror}; if an earlier mount was left there, "
            f"run: fusermount3 -u {directory}"
        ) from None


@contextmanager
def mounted(jetson: VirtualJetson, directory: Path) -> Generator[Path]:
    """Mount ``jetson`` on ``directory`` while the block lasts; gives the directory.

    Raises:
        InputError: see :func:`check_mount_point`.
        DeviceError: FUSE refused.
    """
    check_mount_point(directory)
    point, working = directory.resolve(), Path.cwd()
    operations = _Operations(jetson.tree)
    failure: list[BaseException] = []
    thread = threading.Thread(
        target=_serve, args=(operations, point, failure), name="fuse", daemon=True
    )
    thread.start()
    while not operations.ready.wait(0.02):
        if not thread.is_alive():
            raise DeviceError(f"cannot mount on {directory}: FUSE gave up ({failure[0]})")
    os.chdir(working)  # libfuse goes to / even in the foreground
    try:
        yield directory
    finally:
        _unmount(point)
        thread.join(STOP_S)


def _serve(operations: _Operations, directory: Path, failure: list[BaseException]) -> None:
    """Answer requests until the directory is unmounted."""
    everyone = os.getuid() == 0  # others may only be let in by root, or by /etc/fuse.conf
    fuse = _load()
    newer = (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12)
    # Left alone, libfuse 3.14 complains of its own default for idle ones.
    threads = {"max_threads": THREADS, "max_idle_threads": THREADS} if newer else {}
    try:
        fuse.FUSE(
            operations, str(directory), foreground=True, fsname="virtual-jetson", direct_io=True,
            default_permissions=True, allow_other=everyone, attr_timeout=LOOKUP_S,
            entry_timeout=LOOKUP_S, negative_timeout=0, **threads,
        )  # fmt: skip
    except Exception as error:
        failure.append(error)


def _unmount(directory: Path) -> None:
    """Unmount, also while files there are open."""
    fusermount = shutil.which("fusermount3") or "fusermount3"
    for lazily in ((), ("-z",)):
        command = [fusermount, "-u", *lazily, str(directory)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603
            return
