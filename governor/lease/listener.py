"""The daemon's Unix socket, and a word to systemd."""

from __future__ import annotations

import fcntl
import grp
import math
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from governor.errors import InputError
from governor.lease.errors import LeaseError
from governor.lease.lock import open_private

SOCKET = Path("/run/energy-governor/keeper.sock")
GROUP = "governor"


def listen(path: Path, group: str) -> tuple[socket.socket, int]:
    """A socket at ``path`` that root and ``group`` may open; also the group's number.

    It appears there only when it answers: whoever waits for it need not try again, and another
    daemon that begins does not take it for one that was left behind.

    Raises:
        InputError: there is no such group, or the path cannot be a socket's.
        LeaseError: another daemon listens there.
    """
    number = _group_number(group)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unborn = path.with_name(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _need_safe(path.parent)
        with _one_at_a_time(path):
            _remove_stale(path)
            unborn.unlink(missing_ok=True)
            _bind(listener, unborn, number)
            unborn.rename(path)
    except BaseException as error:
        listener.close()
        with suppress(OSError):
            unborn.unlink()
        if isinstance(error, OSError):
            why = error.strerror or error
            raise InputError(f"no socket at {path}: {why}; is this root?") from None
        raise
    listener.setblocking(False)
    return listener, number


@contextmanager
def _one_at_a_time(path: Path) -> Generator[None]:
    """Of two daemons that begin together, the second one finds the first one's socket."""
    name = path.with_name(f".{path.name}.lock")
    lock = _locked(name)
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int:
    """The descriptor of that file, which is there until its holder removes it."""
    while True:
        lock = open_private(path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # of one who has removed it meanwhile


def _bind(listener: socket.socket, path: Path, group: int) -> None:
    # Closed to all until it belongs to the group.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    os.chown(path, -1, group, follow_symlinks=False)
    path.chmod(0o660)
    listener.listen(128)


def _need_safe(folder: Path) -> None:
    """Whoever may rename files there could have us open another file to the group."""
    state = folder.stat()
    others_write = state.st_mode & 0o022 and not state.st_mode & stat.S_ISVTX
    if others_write or state.st_uid not in (0, os.geteuid()):
        raise InputError(
            f"others may write in {folder}, and so put another socket in the place of this one: "
            f"chmod 755 {folder}, and own it, or name another path by --socket"
        )


def tell_systemd(state: str) -> None:
    """``READY=1`` to the service manager that started this process; sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        end.send(state.encode())


def watchdog_s() -> float:
    """How often to give the service manager a sign of life; infinite: never.

    Three times as often as it wants one: sd_watchdog_enabled(3).
    """
    if os.environ.get("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        return math.inf
    asked = os.environ.get("WATCHDOG_USEC", "")
    return int(asked) / 3e6 if asked.isdecimal() and int(asked) else math.inf


def _group_number(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(
            f"there is no group {group!r}: sudo groupadd --system {group}, or name another"
        ) from None


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that is gone."""
    if path.exists() and not path.is_socket():
        raise InputError(f"{path} is there and is no socket; name another path by --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
    raise LeaseError(f"a daemon listens at {path} already; governor status shows it")
