"""What a Jetson's kernel does with a write, in front of a plain tree of files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from governor.lease import jetson_controls, kernel_files
from governor.lease.control import Control, Snapshot

EMC = "bpmp/debug/clk/emc"


class Kernel:
    """Refuses or rounds what is written as a kernel of that release does, and remembers it.

    L4T 32: EINVAL where the lower limit would pass the upper one. Later: the lower one is
    clipped. The BPMP ignores a rate while it is not locked or above the table, and rounds others
    up.
    """

    def __init__(self, l4t: int, emc_khz: tuple[int, ...]) -> None:
        self.written: list[tuple[str, str]] = []
        self.refuse: set[str] = set()
        self._l4t = l4t
        self._emc_hz = [1000 * khz for khz in emc_khz]

    def write(self, path: Path, text: str) -> None:
        if path.name in self.refuse:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        self.written.append((path.name, text))
        if EMC in str(path) and path.name == "rate":
            self._set_rate(path, int(text))
        elif path.name in ("min_freq", "max_freq", "scaling_min_freq", "scaling_max_freq"):
            self._set_limit(path, int(text))
        else:
            kernel_files.write_text(path, text)

    def _set_rate(self, path: Path, hz: int) -> None:
        locked = kernel_files.read_text(path.with_name("mrq_rate_locked")) == "1"
        above = [rate for rate in self._emc_hz if rate >= hz]
        if locked and above:
            kernel_files.write_text(path, str(above[0]))

    def _set_limit(self, path: Path, value: int) -> None:
        low, high = (path.with_name(path.name.replace("max", "min").replace("min", each))
                     for each in ("min", "max"))  # fmt: skip
        lowest, highest = (int(kernel_files.read_text(each)) for each in (low, high))
        lowest, highest = (value, highest) if path == low else (lowest, value)
        if lowest > highest and self._l4t == 32:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        kernel_files.write_text(path, str(value))
        if lowest > highest:
            kernel_files.write_text(low, str(highest))


@contextmanager
def running(kernel: Kernel) -> Iterator[Kernel]:
    """Writes of the controls go to ``kernel`` meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson_controls, "write_text", kernel.write)
        yield kernel


class HandClock:
    """A clock that a test moves."""

    virtual = True

    def __init__(self) -> None:
        self.now_s = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_sleep()


class DirectLease:
    """A lease without a keeper: the same controls, in this process."""

    def __init__(self, controls: tuple[Control, ...]) -> None:
        self._controls = {control.name: control for control in controls}
        self._snapshots: dict[str, Snapshot] = {}

    @property
    def levels(self) -> dict[str, tuple[float, ...]]:
        return {name: control.levels for name, control in self._controls.items()}

    def set(self, point: dict[str, float]) -> dict[str, float]:
        if not self._snapshots:
            self._snapshots = {n: control.snapshot() for n, control in self._controls.items()}
        for name, level in point.items():
            self._controls[name].write(level)
        return self.read()

    def read(self) -> dict[str, float]:
        return {name: control.read() for name, control in self._controls.items()}

    def release(self) -> None:
        for name, snapshot in self._snapshots.items():
            self._controls[name].restore(snapshot)
        self._snapshots = {}
