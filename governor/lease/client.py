"""The lease from the application's side: every write to hardware goes through here.

A process that may write the kernel's files itself starts a private keeper as its child, in
a session of its own, so that Ctrl-C at the terminal reaches the application alone. Any other
asks ``governor daemon`` at its socket. In a container whose first process is the
application, use the daemon of the host (mount its socket): when that process ends, the
kernel kills all others of the container at once, a private keeper among them.
"""

from __future__ import annotations

import grp
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import cast

from governor.lease.errors import (
    HardwareBusyError,
    LeaseEndedError,
    LeaseError,
    LeaseLostError,
    ProtocolError,
    RestoreError,
)
from governor.lease.journal import default_folder
from governor.lease.listener import SOCKET
from governor.lease.protocol import MAX_REPLY_BYTES, checked, encode, parse_reply
from governor.units import format_knob_name, format_knob_value

CALL_S = 3.0
"""The longest that :meth:`Lease.set` and :meth:`Lease.read` wait for a keeper that lives."""
OPEN_S = 12.0
"""The longest that a keeper may take to start, find the hardware and hand out the lease."""
REAP_S = 1.0
"""The longest to wait for a private keeper that was lost."""
RELEASE_S = 10.0
"""The longest to wait until everything is back; the keeper goes on after that."""
ROUNDING = 1e-3
"""Relative; 5.10's devfreq keeps whole kHz, which is less. More is a level we did not ask for."""

_PACKAGES = Path(__file__).resolve().parents[2]
KEEPER = (
    sys.executable,
    # Isolated: a json.py in the application's folder must not become the keeper's. And
    # without site: 2 MB less, and nothing but the standard library and this package.
    *("-I", "-S", "-c"),
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from governor.lease.keeper import main; sys.exit(main(sys.argv[1:]))",
    str(_PACKAGES),
)
"""Starts a keeper; the arguments of ``governor.lease.keeper`` follow."""

logger = logging.getLogger("governor")


class Lease:
    """The right to set this machine's knobs, for as long as this process lives.

    Thread-safe. No call waits longer than ``CALL_S`` for a keeper that lives. When the keeper
    is lost (someone killed it), one call fails, and the next starts or finds another, in at
    most ``OPEN_S``, which first puts back what the lost one had set.

    Attributes:
        hardware: what the keeper's backends found, by name.
        levels: of each knob, ascending, as of the start of the lease.
    """

    def __init__(
        self, sysfs_root: Path, socket_path: Path | None, folder: Path, keeper: Sequence[str]
    ) -> None:
        self.hardware: tuple[str, ...] = ()
        self.levels: Mapping[str, tuple[float, ...]] = {}
        self._root = sysfs_root
        self._socket_path = socket_path
        self._folder = folder
        self._command = tuple(keeper)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._usable = True
        self._touched = False
        self._line: _Line | None = None
        self._line = self._connect()
        _LEASES.add(self)

    @classmethod
    def open(
        cls,
        *,
        sysfs_root: Path = Path("/"),
        socket_path: Path | None = None,
        folder: Path | None = None,
        keeper: Sequence[str] = KEEPER,
    ) -> Lease:
        """Take the lease; nothing is written before the first :meth:`set`.

        Args:
            sysfs_root: under which the kernel's files lie.
            socket_path: ask the daemon there; by default that of the system, and only where
                this process may not write the files itself.
            folder: of a private keeper's journal.
            keeper: the command of a private keeper.

        Raises:
            LeaseHeldError: someone else has it; says who.
            LeaseError: no keeper can be had; says what to do.
        """
        root = sysfs_root.resolve()
        if socket_path is None and not may_write(root):
            socket_path = SOCKET
        return cls(root, socket_path, folder or default_folder(root), keeper)

    def set(self, point: Mapping[str, float]) -> dict[str, float]:
        """Set these knobs; what the kernel then says of each of them.

        Raises:
            InputError: a knob or level that there is not; nothing was written.
            LeaseError: a write failed, or no answer came in ``CALL_S``.
        """
        really = self._ask("set", knobs=dict(point))
        for knob, level in point.items():
            if abs(really[knob] - level) > ROUNDING * abs(level):
                logger.warning(
                    "%s: asked for %s, the kernel set %s",
                    format_knob_name(knob),
                    format_knob_value(knob, level),
                    format_knob_value(knob, really[knob]),
                )
        return really

    def read(self) -> dict[str, float]:
        """What is in force, knob by knob.

        Raises:
            LeaseError: a knob cannot be read, or no answer came in ``CALL_S``.
        """
        return self._ask("read")

    def release(self) -> None:
        """Put everything back and end the lease. A second time, nothing happens.

        Raises:
            LeaseError: something is not back; says what and how to mend it.
        """
        if not self._usable:
            return
        self._usable = False
        # Not for ever: a signal may have come in the middle of a call of this very thread.
        if not self._lock.acquire(timeout=CALL_S):
            self._cut_short()
            return
        try:
            if self._touched:
                self._give_back()
        finally:
            self._hang_up(RELEASE_S)
            self._lock.release()

    def forget(self) -> None:
        """In a forked child: the lease is the parent's, and its line must not be kept open."""
        self._usable = False
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.returncode = 0  # It is no child of this process.

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _cut_short(self) -> None:
        """End the lease under a call in progress: the keeper restores when the line is cut."""
        line, process = self._line, self._process
        if line is not None:
            line.cut()
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(RELEASE_S)

    def _give_back(self) -> None:
        try:
            self._reach().ask("release", RELEASE_S)
        except LeaseEndedError:
            return
        except LeaseLostError:
            self._hang_up(REAP_S)
            try:
                # A new keeper's first act is to put back what the lost one had set.
                self._reach().ask("release", RELEASE_S)
            except LeaseError as error:
                raise RestoreError(
                    f"the lease keeper was lost, and what it set may still be set: "
                    f"sudo governor restore ({error})"
                ) from None

    def _ask(self, do: str, **fields: object) -> dict[str, float]:
        if not self._lock.acquire(timeout=CALL_S):
            raise HardwareBusyError(f"another thread has waited for the kernel for {CALL_S:g} s")
        try:
            if not self._usable:
                raise LeaseError(f"{do}: the lease was released, or is that of a parent process")
            line = self._reach()
            self._touched = self._touched or do == "set"
            return cast(dict[str, float], line.ask(do, CALL_S, **fields)["read"])
        except LeaseLostError as error:
            self._hang_up(REAP_S)
            self._touched = self._touched and not isinstance(error, LeaseEndedError)
            raise
        finally:
            if not self._usable:  # It was released meanwhile, and could only cut the line.
                self._hang_up(REAP_S)
            self._lock.release()

    def _reach(self) -> _Line:
        """The line to the keeper; to another, if that is lost."""
        if self._line is None:
            self._line = self._connect()
        return self._line

    def _connect(self) -> _Line:
        """Reach a keeper and take the lease of it."""
        end = self._start_keeper() if self._socket_path is None else _dial(self._socket_path)
        line = _Line(end)
        try:
            found = line.ask("acquire", OPEN_S)
        except BaseException:
            line.close()
            self._hang_up(REAP_S)
            raise
        knobs = cast(Mapping[str, Sequence[float]], found["knobs"])
        self.hardware = tuple(cast(Sequence[str], found["hardware"]))
        self.levels = {knob: tuple(levels) for knob, levels in knobs.items()}
        return line

    def _start_keeper(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [*self._command, "private", str(number), str(self._root), str(self._folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    pass_fds=[number],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise LeaseError(f"the lease keeper cannot be started: {error}") from None
        return ours

    def _hang_up(self, patience_s: float) -> None:
        """Cut the line. A private keeper then restores and ends, which is waited for."""
        if self._line is not None:
            self._line.close()
            self._line = None
        keeper, self._process = self._process, None
        if keeper is None:
            return
        try:
            keeper.wait(patience_s)
        except subprocess.TimeoutExpired:
            # It goes on restoring. Someone must wait for it, or it stays behind as a zombie.
            threading.Thread(target=keeper.wait, name="governor reaper", daemon=True).start()


class _Line:
    """Requests and replies over one socket, in turn."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._inbox = b""
        self._count = 0

    def ask(self, do: str, timeout_s: float, **fields: object) -> dict[str, object]:
        """The reply to this request; replies to requests that were given up are skipped."""
        self._count += 1
        give_up_s = time.monotonic() + timeout_s
        try:
            self._send(encode({"id": self._count, "do": do, **fields}), timeout_s)
            while True:
                reply = parse_reply(self._next_line(give_up_s))
                if reply.get("id", self._count) == self._count:
                    return checked(reply)
        except TimeoutError:
            raise HardwareBusyError(f"the lease keeper gave no answer in {timeout_s:g} s") from None
        except OSError as error:
            raise LeaseLostError(f"the lease keeper is gone: {error}") from None

    def _send(self, request: bytes, timeout_s: float) -> None:
        self._end.settimeout(timeout_s)
        # A keeper that hung up may have left a last word, which is then read.
        with suppress(BrokenPipeError):
            self._end.sendall(request)

    def _next_line(self, give_up_s: float) -> bytes:
        while b"\n" not in self._inbox:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._end.settimeout(left_s)
            data = self._end.recv(65536)
            if not data:
                raise ConnectionResetError("it hung up")
            self._inbox += data
            if len(self._inbox) > 2 * MAX_REPLY_BYTES:
                raise ProtocolError("the keeper's reply has no end")
        line, _, self._inbox = self._inbox.partition(b"\n")
        return line

    def cut(self) -> None:
        """Hang up, and let whoever waits for a reply in another thread know."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._end.close()


def ask_daemon(do: str, socket_path: Path = SOCKET) -> dict[str, object]:
    """One question to the daemon, without the lease: ``hello``, ``read`` or ``status``.

    Raises:
        LeaseError: there is no daemon, or it would not answer.
    """
    line = _Line(_dial(socket_path))
    try:
        return line.ask(do, CALL_S)
    finally:
        line.close()


def may_write(root: Path) -> bool:
    """Whether this process may write the kernel's files under ``root``."""
    return os.access(root / "sys", os.W_OK)


def _dial(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Python's own timeout would not wait at all where the daemon's queue is full.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(CALL_S), 0))
        end.connect(str(path))
    except OSError as error:
        end.close()
        raise LeaseError(_no_daemon(path, error)) from None
    return end


def _no_daemon(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        group = _group_of(path)
        return (
            f"the lease keeper's socket {path} is for the group {group}: "
            f'sudo usermod -aG {group} "$USER", then log in again'
        )
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no lease keeper at {path}, and this user may not set clocks: "
            "sudo systemctl start energy-governor (or sudo governor daemon), or run as root"
        )
    return f"the lease keeper at {path} cannot be reached: {error}; see governor status"


def _group_of(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "governor"


_LEASES: weakref.WeakSet[Lease] = weakref.WeakSet()


def _forget_leases() -> None:
    for lease in list(_LEASES):
        lease.forget()


os.register_at_fork(after_in_child=_forget_leases)
