"""Something that is done again and again in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Beat:
    """Calls ``work`` every ``period_s`` until ended."""

    def __init__(self, name: str, work: Callable[[], None], period_s: float) -> None:
        """Starts at once. ``work`` must not raise; ``name`` is the thread's."""
        self._work = work
        self._period_s = period_s
        # a bare lock wakes up for less than an Event, and most wakes find nothing to do
        self._going_on = threading.Lock()
        self._going_on.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let it end after what it is doing now. May be called twice."""
        with suppress(RuntimeError):  # let go of before
            self._going_on.release()

    def join(self, until_s: float) -> None:
        """Wait for that, but not after ``until_s`` by ``time.monotonic``, nor for oneself."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, until_s - time.monotonic()))

    def _run(self) -> None:
        while not self._going_on.acquire(timeout=self._period_s):
            self._work()
