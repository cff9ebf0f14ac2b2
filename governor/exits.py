"""Put things back however the process ends, as far as a process can."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    number
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    if number is not None
)
"""They end a process without running its ``finally`` blocks. SIGINT raises by itself."""


class ExitGuard:
    """Calls ``restore(reason)`` when the interpreter exits or a deadly signal comes.

    A signal that the application handles itself is left to it. A forked child inherits the
    guard and must not act on it.
    """

    def __init__(self, restore: Callable[[str], None]) -> None:
        self._restore = restore
        self._process = os.getpid()
        self._handled: list[signal.Signals] = []

    def arm(self) -> None:
        """Begin to guard. Signals can only be watched from the main thread."""
        atexit.register(self._at_exit)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._on_signal)
                self._handled.append(number)

    def disarm(self) -> None:
        """Leave the process as it was before :meth:`arm`."""
        atexit.unregister(self._at_exit)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._handled:
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)
        self._handled.clear()

    def _at_exit(self) -> None:
        if os.getpid() == self._process:
            self._restore("exit")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Restore, then die of the same signal as the process would have."""
        if os.getpid() == self._process:
            self._restore(signal.Signals(number).name.lower())
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


@contextmanager
def interrupts_later() -> Generator[None]:
    """Start processes that leave Ctrl-C, which reaches all of a terminal, to this one.

    They inherit the mask of the thread that starts them. But an interrupt may come by another
    thread of this process, a numerical library's, and must not cut their start short either; nor
    must SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)


class Ended(SystemExit):
    """SIGTERM came. Of its own class, so that no one takes it for the exit of a user's code."""


@contextmanager
def ended_in_order() -> Generator[None]:
    """SIGTERM ends what runs here as Ctrl-C would: what was started is ended, too.

    Raises:
        Ended: it came.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
