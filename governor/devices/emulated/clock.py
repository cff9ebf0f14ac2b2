"""Virtual time: seconds that pass only when something emulated takes them."""

from __future__ import annotations

from collections.abc import Callable

from governor.errors import InputError

Listener = Callable[[float, float], None]


class VirtualClock:
    """A clock that stands still until someone sleeps on it.

    A listener is told of each stretch of time, as (start, end) in seconds, after it passed: so
    a board's energy, heat and sensors follow the clock, whoever moved it.
    """

    virtual = True

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._listeners: list[Listener] = []

    def now(self) -> float:
        """Virtual seconds since this clock's start."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let so many virtual seconds pass. Costs no real time.

        Raises:
            InputError: ``seconds`` is negative or not a number.
        """
        if not seconds >= 0:
            raise InputError(f"cannot sleep {seconds} s; time only grows")
        self.sleep_until(self._now_s + seconds)

    def sleep_until(self, time_s: float) -> None:
        """Let time pass up to exactly ``time_s``; nothing happens where that is past."""
        if time_s > self._now_s:
            start_s, self._now_s = self._now_s, time_s
            for listener in self._listeners:
                listener(start_s, time_s)

    def subscribe(self, listener: Listener) -> None:
        """Tell ``listener`` of all time that passes from now on."""
        self._listeners.append(listener)
