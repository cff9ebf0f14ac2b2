"""A kernel file that is read again and again, cheaply: opened once, then ``pread``."""

from __future__ import annotations

import math
import os
from pathlib import Path

from governor.lease.kernel_files import clean, number

_LONGEST = 64
"""Bytes of a number and its unit."""


class PolledFile:
    """A number in a kernel file. It is opened at the first reading, and again after a failure."""

    def __init__(self, path: Path, unit: float = 1.0) -> None:
        """``unit``: what 1 in the file is in SI units, ``1e-3`` for a file in milliwatts."""
        self.path = path
        self._unit = unit
        self._descriptor: int | None = None

    def read(self) -> float:
        """The number now, in SI units.

        Raises:
            OSError: it cannot be read, or not now: EAGAIN while its block is powered off.
            ValueError: it holds no number.
        """
        descriptor = self._descriptor  # another thread may close it meanwhile
        if descriptor is None:
            descriptor = self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, _LONGEST, 0)
        except OSError:
            self.close()  # after ENODEV only a new look at the path finds a device again
            raise
        try:
            value = float(content)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):  # it has a unit behind it, or is no number
            value = number(clean(content), self.path)
        return value * self._unit

    def read_if_there(self) -> float | None:
        """The number now, None if it cannot be read."""
        try:
            return self.read()
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Let go of the file; another reading opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
