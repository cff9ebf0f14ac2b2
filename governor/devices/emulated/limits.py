"""How each kernel takes, rounds and refuses what is written to its clock limits.

Numbers here are in the unit of the file: kHz for cpufreq, Hz for devfreq and EMC. Refusals are
``OSError`` with the kernel's errno. Sources: drivers/devfreq/devfreq.c of Linux 4.9 and later,
drivers/cpufreq/cpufreq.c, NVIDIA's jetson_clocks for the order of EMC writes.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

Changed = Callable[[], None]
"""Told that :meth:`Limits.bounds` or :meth:`Emc.bounds` may be others now."""

UNLIMITED = 2**63 - 1
"""What the EMC cap of L4T 36 reads where nothing is capped."""


def refusal(code: int) -> OSError:
    """The ``OSError`` of this errno."""
    return OSError(code, os.strerror(code))


def parse_number(text: str) -> int:
    """What the kernel's ``kstrtoul`` makes of it.

    Raises:
        OSError: EINVAL, it is no number of at least 0.
    """
    word = text.strip()
    if not word.isascii() or not word.isdigit():
        raise refusal(errno.EINVAL)
    return int(word)


class Limits:
    """One devfreq device or cpufreq policy: its limits and its governor.

    ``strict``: Linux 4.9 refuses a minimum above the maximum; since 5.x the maximum wins silently,
    and the minimum then reads back lower than it was written.
    """

    def __init__(
        self,
        levels: Sequence[int],
        governors: Sequence[str],
        *,
        strict: bool,
        step: int,
        changed: Changed,
    ) -> None:
        """
        Args:
            levels: that the hardware has, ascending.
            governors: that can be chosen, the default first.
            strict: see the class.
            step: to which a limit is rounded, the minimum down and the maximum up.
            changed: called after each write that was taken.
        """
        self.levels = list(levels)
        self.governors = list(governors)
        self.governor = self.governors[0]
        self._strict, self._step, self._changed = strict, step, changed
        self._low, self._high, self._fixed = self.levels[0], self.levels[-1], self.levels[-1]

    @property
    def low(self) -> int:
        """The lower limit as it reads."""
        return min(self._low, self.high)

    @property
    def high(self) -> int:
        """The upper limit as it reads."""
        return self._high

    def write_low(self, text: str) -> None:
        """Set the lower limit.

        Raises:
            OSError: EINVAL, no number, or above the upper limit where the kernel refuses that.
        """
        value = parse_number(text)
        if self._strict and value > self._high:
            raise refusal(errno.EINVAL)
        self._low = self._clipped(value // self._step * self._step)
        self._changed()

    def write_high(self, text: str) -> None:
        """Set the upper limit; 0 lifts it in the kernels that are not strict.

        Raises:
            OSError: EINVAL, no number, or below the lower limit where the kernel refuses that.
        """
        value = parse_number(text)
        if self._strict and value < self._low:
            raise refusal(errno.EINVAL)
        if value == 0 and not self._strict:
            value = self.levels[-1]
        self._high = self._clipped(-(-value // self._step) * self._step)
        self._changed()

    def write_governor(self, text: str) -> None:
        """Choose a governor.

        Raises:
            OSError: EINVAL, there is none of this name.
        """
        if text.strip() not in self.governors:
            raise refusal(errno.EINVAL)
        self.governor = text.strip()
        self._changed()

    def write_fixed(self, text: str) -> None:
        """Set the clock of the ``userspace`` governor, within the limits.

        Raises:
            OSError: EINVAL, no number, or another governor is chosen.
        """
        if self.governor != "userspace":
            raise refusal(errno.EINVAL)
        self._fixed = parse_number(text)
        self._changed()

    @property
    def fixed(self) -> int:
        """What the ``userspace`` governor holds."""
        return min(max(self._fixed, self.low), self.high)

    def reset(self, low: int, high: int) -> None:
        """Set both limits at once."""
        self._low, self._high = low, high
        self._changed()

    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level that the governor may choose.

        A clock between two levels is rounded up, but never beyond the upper limit.
        """
        high = max(bisect_right(self.levels, self.high) - 1, 0)
        low = min(self._at_least(self.low), high)
        if self.governor == "performance":
            return high, high
        if self.governor == "powersave":
            return low, low
        if self.governor == "userspace":
            fixed = min(self._at_least(self.fixed), high)
            return fixed, fixed
        return low, high

    def _at_least(self, value: int) -> int:
        return min(bisect_left(self.levels, value), len(self.levels) - 1)

    def _clipped(self, value: int) -> int:
        return min(max(value, self.levels[0]), self.levels[-1])


class Emc:
    """The memory's clock: a pin that counts while it is locked, under a cap.

    A rate between two levels is rounded up; one above the table is taken and ignored. While it is
    not locked, the bandwidth manager has its own will. That the cap holds for a pin too is assumed.
    """

    def __init__(
        self, levels: Sequence[int], *, uncapped: int, changed: Changed, needs_halt: bool = False
    ) -> None:
        """
        Args:
            levels: that the hardware has, ascending.
            uncapped: what the cap reads where there is none.
            changed: called after each write that was taken.
            needs_halt: a pin counts only while the bandwidth manager stands still (Thor).
        """
        self.levels = list(levels)
        self.locked = False
        self.halted = not needs_halt
        self.state = True
        self.cap = uncapped
        self._uncapped = uncapped
        self._changed = changed
        self._pin = len(self.levels) - 1

    def write_rate(self, text: str) -> None:
        """Ask for a rate in Hz.

        Raises:
            OSError: EINVAL, no number.
        """
        value = parse_number(text)
        if value <= self.levels[-1]:
            self._pin = bisect_left(self.levels, value)
            self._changed()

    def write_locked(self, text: str) -> None:
        """1: hold the rate asked for; 0: leave it to the bandwidth manager.

        Raises:
            OSError: EINVAL, no number.
        """
        self.locked = parse_number(text) != 0
        self._changed()

    def write_halted(self, text: str) -> None:
        """Thor: whether its bandwidth manager stands still; only then does a pin count.

        Raises:
            OSError: EINVAL, no number.
        """
        self.halted = parse_number(text) != 0
        self._changed()

    def write_state(self, text: str) -> None:
        """Whether the clock is requested; it runs in either case.

        Raises:
            OSError: EINVAL, no number.
        """
        self.state = parse_number(text) != 0

    def write_cap(self, text: str) -> None:
        """Set the highest rate in Hz; 0, or as much as reads where nothing is capped, lifts it.

        Raises:
            OSError: EINVAL, no number.
        """
        self.cap = parse_number(text)
        self._changed()

    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level that the bandwidth manager may choose."""
        top = len(self.levels) - 1
        free = self.cap in (0, self._uncapped)
        high = top if free else max(bisect_right(self.levels, self.cap) - 1, 0)
        if self.locked and self.halted:
            pin = min(self._pin, high)
            return pin, pin
        return 0, high
