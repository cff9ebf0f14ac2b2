"""A made-up backend: knobs that are files, as the lease's tests need them.

A folder is such a machine if it has ``sys/knobs``, with one file a knob (its level) and
beside it ``NAME_min`` that is written too. ``sys/faults/NAME`` makes a write of that knob
fail or hang: it holds an errno's name, or seconds to sleep.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from governor.lease.control import Hardware, Snapshot

LEVELS = {"cpu_hz": (1e9, 1.5e9, 2e9), "gpu_hz": (3e8, 6e8, 9e8, 1.2e9), "emc_hz": (2e9, 3e9)}
UNTOUCHED = {"cpu_hz": "1900000000\n", "gpu_hz": "1200000000\n", "emc_hz": "0\n"}
"""Before anyone governs: no pinned levels, and none that is in the list."""


def make_machine(root: Path) -> Path:
    """A fresh machine under ``root``, as its kernel left it."""
    (root / "sys" / "knobs").mkdir(parents=True)
    (root / "sys" / "faults").mkdir()
    for name, content in UNTOUCHED.items():
        (root / "sys" / "knobs" / name).write_text(content)
        (root / "sys" / "knobs" / f"{name}_min").write_text("1\n")
    return root


def settings(root: Path) -> dict[str, str]:
    """What every file of the machine holds."""
    return {path.name: path.read_text() for path in sorted((root / "sys" / "knobs").iterdir())}


def break_knob(root: Path, name: str, fault: str) -> None:
    """Let each write of this knob fail from now on, with ``"EIO"`` or after ``"5"`` s."""
    (root / "sys" / "faults" / name).write_text(fault)


def mend_knob(root: Path, name: str) -> None:
    """Let it work again."""
    (root / "sys" / "faults" / name).unlink()


@dataclass(frozen=True)
class FileControl:
    """A knob in two files; GPU levels under 600 MHz are silently rounded up to that."""

    name: str
    levels: tuple[float, ...]
    root: Path

    @property
    def _files(self) -> tuple[Path, Path]:
        folder = self.root / "sys" / "knobs"
        return folder / self.name, folder / f"{self.name}_min"

    def read(self) -> float:
        return float(self._files[0].read_text())

    def write(self, level: float) -> None:
        self._fail()
        if self.name == "gpu_hz":
            level = max(level, 6e8)
        for file in self._files:
            self._put(file, f"{level:.0f}\n")

    def snapshot(self) -> Snapshot:
        return {str(file): file.read_text() for file in self._files}

    def restore(self, snapshot: Snapshot) -> None:
        self._fail()
        for name, content in snapshot.items():
            self._put(Path(name), content)

    def _put(self, file: Path, content: str) -> None:
        """As sysfs does it: one write, never a moment without content."""
        with open(file, "r+") as opened:
            opened.write(content)
            opened.truncate()

    def _fail(self) -> None:
        fault = self.root / "sys" / "faults" / self.name
        if not fault.exists():
            return
        what = fault.read_text()
        if what.startswith("E"):
            number = getattr(errno, what)
            raise OSError(number, os.strerror(number), str(self._files[0]))
        time.sleep(float(what))


def find(root: Path) -> Hardware | None:
    if not (root / "sys" / "knobs").is_dir():
        return None
    return Hardware(
        "file-board", tuple(FileControl(name, levels, root) for name, levels in LEVELS.items())
    )
