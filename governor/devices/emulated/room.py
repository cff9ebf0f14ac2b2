"""The room that an emulated board stands in: its temperature may change with time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from governor.errors import InputError

Room = Callable[[float], float]
"""Degrees Celsius of the air at so many seconds on the board's clock."""


class Course:
    """A room that follows a course of straight lines, and stays as it is before and after.

    >>> room = Course((0.0, 25.0), (600.0, 45.0))
    >>> room(300.0), room(3600.0)
    (35.0, 45.0)
    """

    def __init__(self, *turns: tuple[float, float]) -> None:
        """``turns``: seconds and degrees Celsius, the seconds ascending.

        Raises:
            InputError: there are none, or they do not ascend.
        """
        self._times_s = [time_s for time_s, _ in turns]
        self._celsius = [celsius for _, celsius in turns]
        if not turns or sorted(set(self._times_s)) != self._times_s:
            raise InputError(f"a room's turns need seconds that ascend, got {self._times_s}")

    def __call__(self, time_s: float) -> float:
        """The temperature at that time."""
        after = bisect_right(self._times_s, time_s)
        if after in (0, len(self._times_s)):
            return self._celsius[min(after, len(self._times_s) - 1)]
        (start_s, end_s) = self._times_s[after - 1 : after + 1]
        (start_c, end_c) = self._celsius[after - 1 : after + 1]
        return start_c + (end_c - start_c) * (time_s - start_s) / (end_s - start_s)
