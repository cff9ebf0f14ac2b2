"""How many CPU cores are online, by the kernel's hot-plug. Standard library only.

Ours are the cores that are online when they are looked for: what the power mode has off stays
off, and so does core 0 stay on, which NVIDIA's kernels do not let go. The last ones go first.
When all cores of a cluster are off, its cpufreq policy is gone until one is back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from governor.lease.control import Snapshot
from governor.lease.kernel_files import read_number, read_text, write_text

CPUS = "sys/devices/system/cpu"
NAME = "cpu_cores"


def online(root: Path) -> tuple[int, ...]:
    """The numbers of the cores that are on, ascending.

    Raises:
        OSError: the kernel does not say.
        ValueError: it says something else, as a file that went wrong may.
    """
    text = read_text(root / CPUS / "online")
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise ValueError(f"{root / CPUS / 'online'} holds {text[:40]!r}, not a list of cores")
    ranges = [part.split("-") for part in text.split(",")]
    return tuple(core for ends in ranges for core in range(int(ends[0]), int(ends[-1]) + 1))


def find(root: Path) -> tuple[CpuCores, ...]:
    """The one control, or none where the machine has no core that can go.

    There is one, of a single level, also when all such cores are off: they may have to be
    put back.
    """
    try:
        cores = online(root)
    except (OSError, ValueError):
        return ()
    files = (root / CPUS).glob("cpu[1-9]*/online")
    there = {int(file.parent.name.removeprefix("cpu")) for file in files}
    removable = [core for core in cores if core in there]
    return (CpuCores(root, cores, removable),) if there else ()


class CpuCores:
    """``cpu_cores``: from those that must stay to those that were found on."""

    name = NAME

    def __init__(self, root: Path, cores: Sequence[int], removable: Sequence[int]) -> None:
        """``removable``: of ``cores``, ascending, those that may go."""
        self._root = root
        self._removable = tuple(removable)
        self._staying = len(cores) - len(removable)
        self.levels = tuple(float(count) for count in range(max(self._staying, 1), len(cores) + 1))

    def read(self) -> float:
        """How many are on, of whomever they are."""
        return float(len(online(self._root)))

    def write(self, level: float) -> None:
        """Turn on the first ones, and off the others."""
        keep = round(level) - self._staying
        for place, core in enumerate(self._removable):
            self._turn(core, place < keep)

    def snapshot(self) -> Snapshot:
        """Of each core that may be turned off, whether it is on."""
        now = online(self._root)
        return {f"cpu{core}": str(int(core in now)) for core in self._removable}

    def restore(self, snapshot: Snapshot) -> None:
        """Put back every core of the snapshot, also one that is not ours because it is off now.

        Raises:
            OSError: a core would not go back; the others did.
            ValueError: a core did not go back, or the snapshot names what is no core.
        """
        failed: OSError | ValueError | None = None
        for name, text in snapshot.items():
            if not re.fullmatch(r"cpu[1-9]\d*", name) or text not in ("0", "1"):
                raise ValueError(f"the snapshot says {text[:20]!r} of {name[:20]!r}")
            try:
                self._turn(int(name.removeprefix("cpu")), text == "1")
            except (OSError, ValueError) as error:
                failed = error
        if failed is not None:
            raise failed

    def _turn(self, core: int, on: bool) -> None:
        """Nothing is written where nothing would change: a hot-plug stops the whole machine."""
        file = self._root / CPUS / f"cpu{core}/online"
        if _is_on(file) == on:
            return
        write_text(file, str(int(on)))
        if _is_on(file) != on:
            raise ValueError(f"{file} took {int(on)} and did nothing")


def _is_on(file: Path) -> bool:
    state = read_number(file)
    if state not in (0.0, 1.0):
        raise ValueError(f"{file} holds {state:g}, neither 0 nor 1")
    return state == 1.0
