"""The clocks of a Jetson that can be set live, and their kernel files. Standard library only.

Three knobs: ``cpu_hz`` (all clusters at once), ``gpu_hz`` and ``emc_hz``. A clock is pinned
by making its lower and its upper limit equal, which holds under any governor of the kernel;
the memory clock, on most chips, by locking its rate at the BPMP, the processor that owns it.

The orders of writes are those of NVIDIA's ``jetson_clocks`` (2020 and 2023). On L4T 32 the
kernel answers EINVAL to a lower limit above the upper one; later kernels take it and clip,
so that a wrong order shows only in what is read back.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isclose
from pathlib import Path
from typing import NamedTuple

from governor.lease import cpu_cores
from governor.lease.control import PINNED, Hardware, Snapshot
from governor.lease.jetson_board import Board, identify, strings
from governor.lease.kernel_files import (
    exists,
    number,
    read_number,
    read_numbers,
    read_text,
    text_if_there,
    write_text,
)

CPUFREQ = "sys/devices/system/cpu/cpufreq"
FREQUENCIES = "scaling_available_frequencies"
DEVFREQ = "sys/class/devfreq"
BPMP = "sys/kernel/debug/bpmp/debug"
OVERRIDE = "sys/kernel/debug/clk/override.emc"
BWMGR_T210 = "sys/kernel/debug/tegra_bwmgr"
CAPS = ("sys/kernel/nvpmodel_emc_cap/emc_iso_cap", "sys/kernel/nvpmodel_clk_cap/emc")
MODE = "var/lib/nvpmodel/status"
"""The power mode as ``nvpmodel`` has noted it; it changes with every limit that the mode sets."""
RAIL_GATES = ("sys/devices/gpu.0/railgate_enable", "sys/devices/platform/gpu.0/railgate_enable")

GPU_NODES = frozenset(
    (
        *("gpu", "gp10b", "gv11b", "ga10b"),
        *("nvidia,gm20b", "nvidia,gp10b", "nvidia,gv11b", "nvidia,ga10b"),
    )
)
"""The device tree node's name or compatible string, which differ by release."""
THOR_GPU = "gpu-gpc-0"
"""Thor's GPU is a PCI device without a device tree node; its graphics clock has this name."""

CLOSE = 1e-3
"""Readings this near, relatively, are the same level: limits pass through whole kHz, and one
rate is 3199 MHz in one file and 3200 MHz in another."""
STEPS = 16
"""Levels of a clock whose kernel lists none."""


class Missing(NamedTuple):
    """Why a knob cannot be set on this machine, and the command that mends it, if one does."""

    reason: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}" if self.fix else self.reason


class Limits(NamedTuple):
    """A clock's two limits and its present value, each in a file, in units of ``unit_hz``."""

    low: Path
    high: Path
    current: Path
    unit_hz: float
    cores: tuple[Path, ...] = ()

    def offline(self) -> bool:
        """Whether its cores are all off; then its files are gone, or say nothing."""
        return bool(self.cores) and all(text_if_there(core) == "0" for core in self.cores)

    def set(self, low: float, high: float) -> None:
        """Set both, in Hz, so that the lower one never passes the upper one."""
        if high >= read_number(self.high) * self.unit_hz:
            self._write(self.high, high)
            self._write(self.low, low)
        else:
            self._write(self.low, low)
            self._write(self.high, high)

    def _write(self, path: Path, hz: float) -> None:
        write_text(path, str(round(hz / self.unit_hz)))

    def range(self) -> tuple[float, float]:
        """Both, in Hz."""
        return read_number(self.low) * self.unit_hz, read_number(self.high) * self.unit_hz

    def found(self, snapshot: Snapshot) -> tuple[float, float]:
        """Both, in Hz, as they were saved."""
        low, high = (float(_saved(snapshot, path)) * self.unit_hz for path in (self.low, self.high))
        return low, high

    def restore(self, low: str | None, high: str | None) -> None:
        """Put both texts back; None: that limit is others', and the other one keeps to it."""
        if low is None and high is not None:
            high = max(high, read_text(self.low), key=float)
        elif low is not None and high is None:
            low = min(low, read_text(self.high), key=float)
        writes = [(self.high, high), (self.low, low)]
        if high is not None and float(high) < read_number(self.high):
            writes.reverse()
        _run_all([partial(_put_back, path, text) for path, text in writes if text is not None])


class Ours(NamedTuple):
    """What a lease has done to a clock since its snapshot, to tell others' settings from its own.

    Attributes:
        pinned: levels in Hz that it may have set, the latest last; none: all is its own.
        moved: whether ``nvpmodel`` has set another power mode since, and so every limit.
    """

    pinned: tuple[float, ...]
    moved: bool

    @classmethod
    def by(cls, snapshot: Snapshot, mode: Path | None) -> Ours:
        """As the snapshot says, and the power mode that is noted in ``mode`` now."""
        pinned = tuple(map(float, snapshot.get(PINNED, "").split()))
        saved = snapshot.get(str(mode), "")
        return cls(pinned, bool(saved) and mode is not None and _mode(mode) not in ("", saved))

    def theirs(self, now: tuple[float, float], found: tuple[float, float]) -> tuple[bool, bool]:
        """Which of a clock's two limits others have set: it is neither as found nor as set here.

        Equal limits are a pin, and ours also below our level: heat puts a lid on both.
        """
        low, high = now
        pin = _near(low, high) and high <= max(self.pinned, default=high) * (1 + CLOSE)
        if pin or not self.pinned:
            return False, False
        return not _near(low, found[0], *self.pinned), self.foreign(high, found[1])

    def foreign(self, high: float, found: float) -> bool:
        """The same of an upper limit alone; a new power mode's may be a level that we set, too."""
        return bool(self.pinned) and not _near(high, found, *(() if self.moved else self.pinned))

    def noted(self, level: float, settled: bool) -> dict[str, str]:
        """For the snapshot: with ``level`` and, of those before, the last where it was set."""
        kept = self.pinned[-1:] if settled else self.pinned
        return {PINNED: " ".join(f"{hz:.0f}" for hz in dict.fromkeys((*kept, level)))}


def _near(hz: float, *others: float) -> bool:
    return any(abs(hz - other) <= CLOSE * other for other in others)


def _mode(path: Path) -> str:
    """The power mode's number, without the fan's mode that some releases note behind it."""
    return text_if_there(path).partition("fmode")[0].strip()


class LimitedClock:
    """A clock pinned by equal limits; one with several policies has them all pinned alike.

    A policy whose cores are all turned off is left out until one is back.

    Attributes:
        levels: of the table those within the upper limits, as they were found or restored.
        files: all that are ever written.
    """

    def __init__(
        self,
        name: str,
        table: Iterable[float],
        limits: Sequence[Limits],
        mode: Path | None = None,
    ) -> None:
        """
        Args:
            mode: where the power mode is noted, which sets the limits, too. None: what others
                set is not told from our own, as where a kernel that lists no levels rounds them.

        Raises:
            OSError: a limit cannot be read.
            NotThere: the limits allow no level of the table.
        """
        self.name = name
        self.files = tuple(path for each in limits for path in (each.low, each.high))
        self._limits = tuple(limits)
        self._table = frozenset(table)
        self._mode = mode
        self._pinned: float | None = None
        self._caps: dict[Path, float] = {}
        self.levels = self._allowed()

    def _allowed(self) -> tuple[float, ...]:
        cap = min(each.range()[1] for each in self._limits if not each.offline())
        return _up_to(cap, self._table, self._limits[0].high)

    def read(self) -> float:
        """The pinned level; or else of what differs from it the first that is found, in Hz."""
        seen = [hz for hz in map(self._seen, self._limits) if hz is not None]
        return next((hz for hz in seen if hz != self._pinned), seen[0])

    def _seen(self, limits: Limits) -> float | None:
        """None: its cores were turned off."""
        try:
            return self._read(limits)
        except (OSError, ValueError):
            if limits.offline():
                return None
            raise

    def _read(self, limits: Limits) -> float:
        low, high = (nearest(hz, self.levels) for hz in limits.range())
        if low == high:
            return high
        if self._pinned is None:
            return nearest(read_number(limits.current) * limits.unit_hz, self.levels)
        return high if high != self._pinned else low

    def write(self, level: float) -> None:
        """Pin every policy to ``level``."""
        self._pinned = level
        for limits in self._limits:
            self._pin(limits, level)

    def _pin(self, limits: Limits, level: float) -> None:
        try:
            limits.set(level, level)
        except (OSError, ValueError):
            if not limits.offline():
                raise

    def snapshot(self) -> Snapshot:
        """Both limits of every policy, for the power mode sets a lower one, too; and the mode."""
        return {**_snapshot(self.files), **_noted(self._mode)}

    def heed(self, snapshot: Snapshot, level: float) -> Snapshot:
        """What others have set, as a new power mode does, is what is put back from now on.

        Raises:
            OSError: a limit cannot be read.
            ValueError: one holds no number, or others have set it below ``level``.
        """
        if self._mode is None:
            return snapshot
        ours, kept, settled = Ours.by(snapshot, self._mode), dict(snapshot), True
        for each in self._limits:
            files, off = (each.low, each.high), each.offline()
            if off and ours.moved:  # the mode sets them anew when it turns the cores on again
                kept = {path: text for path, text in kept.items() if Path(path) not in files}
            if off:
                settled = False
                continue
            settled = settled and all(_near(hz, *ours.pinned[-1:]) for hz in each.range())
            new = not ours.pinned or str(each.low) not in snapshot
            theirs = (True, True) if new else ours.theirs(each.range(), each.found(snapshot))
            kept |= _snapshot(file for file, other in zip(files, theirs, strict=True) if other)
            if theirs[1] and (ours.pinned or ours.moved):
                self._caps[each.high] = each.range()[1]
        for path, cap in self._caps.items():
            _need(level, cap, path)
        return {**kept, **_noted(self._mode), **ours.noted(level, settled)}

    def restore(self, snapshot: Snapshot) -> None:
        """Put both limits of every policy back, however they are set now.

        Only those of the snapshot: a cluster may have been offline then, or be offline now.
        """
        self._pinned = None
        self._caps.clear()
        ours = Ours.by(snapshot, self._mode)
        held = [each for each in self._limits if str(each.low) in snapshot]
        if not held:
            raise ValueError(f"the snapshot does not hold {self._limits[0].low}")
        _run_all([partial(self._put_back, each, snapshot, ours) for each in held])
        unseen = snapshot.keys() - {PINNED, *map(str, (*self.files, self._mode))}
        for path in sorted(unseen):
            if exists(Path(path)) and not ours.moved:
                raise ValueError(f"{path} could not be read when the clocks were looked for")
        self.levels = self._allowed()

    def _put_back(self, limits: Limits, snapshot: Snapshot, ours: Ours) -> None:
        """Put back what is not others', and what can be: cores that a mode has off need nothing."""
        if ours.moved and limits.offline():
            return
        theirs = (False, False)
        with suppress(OSError, ValueError):
            theirs = ours.theirs(limits.range(), limits.found(snapshot))
        low, high = (
            None if other else _saved(snapshot, path)
            for path, other in zip((limits.low, limits.high), theirs, strict=True)
        )
        limits.restore(low, high)


class LockedClock:
    """A clock that another processor owns: locked, then set, it keeps its rate.

    The lock comes first, so that nothing changes the rate in between. A rate above the table
    is silently ignored, one between two entries rounded up: what counts is what is read back.
    """

    def __init__(
        self,
        name: str,
        levels: tuple[float, ...],
        locks: Sequence[Path],
        rate: Path,
        set_rate: Path | None = None,
    ) -> None:
        """
        Args:
            locks: files that hold 1 while the rate is locked, in the order to set them.
            rate, set_rate: the files to read and to write the rate in Hz; mostly the same.
        """
        self.name = name
        self.levels = levels
        self._locks = tuple(locks)
        self._rate = rate
        self._set_rate = set_rate or rate
        self.files = (*locks, self._set_rate)

    def read(self) -> float:
        """The rate in Hz."""
        return nearest(read_number(self._rate), self.levels)

    def write(self, level: float) -> None:
        """Lock the clock at ``level``."""
        self._lock()
        write_text(self._set_rate, str(round(level)))

    def _lock(self) -> None:
        for lock in self._locks:
            write_text(lock, "1")

    def snapshot(self) -> Snapshot:
        """The rate and its locks."""
        return _snapshot((*self._locks, self._rate))

    def restore(self, snapshot: Snapshot) -> None:
        """Put the rate back, which needs the lock, then the locks."""
        try:
            _run_all(
                [
                    self._lock,
                    partial(self._put_rate_back, snapshot),
                    *(
                        partial(_put_back, each, _saved(snapshot, each))
                        for each in self._locks[::-1]
                    ),
                ]
            )
        except (OSError, ValueError):
            if not self._as_found(snapshot):
                raise

    def _as_found(self, snapshot: Snapshot) -> bool:
        """Whether all reads as it was saved; unlocked, the rate moves by itself."""
        files = (
            self._locks if _saved(snapshot, self._locks[0]) == "0" else (*self._locks, self._rate)
        )
        return all(_same(text_if_there(each), _saved(snapshot, each)) for each in files)

    def _put_rate_back(self, snapshot: Snapshot) -> None:
        """And look whether it took, where it was found locked; unlocked, it moves by itself."""
        saved = _saved(snapshot, self._rate)
        write_text(self._set_rate, saved)
        if _saved(snapshot, self._locks[0]) == "0":
            return
        now = read_text(self._rate)
        if not _same(now, saved):
            raise ValueError(
                f"{self._rate} holds {now[:40]}, not the {saved[:40]} it was locked at"
            )


class CappedClock:
    """A clock that can only be capped: it may run slower, never faster.

    For the memory clock where debugfs is not to be had.

    Attributes:
        not_pinned: why it is not pinned instead.
    """

    not_pinned: Missing | None = None

    def __init__(self, name: str, table: Iterable[float], cap: Path, mode: Path) -> None:
        """
        Args:
            mode: where the power mode is noted, which sets the cap, too.

        Raises:
            NotThere: the cap allows no level of the table.
        """
        self.name = name
        self.files = (cap,)
        self._cap = cap
        self._mode = mode
        self._top = float("inf")
        self._table = frozenset(table)
        self.levels = self._allowed()

    def _allowed(self) -> tuple[float, ...]:
        return _up_to(_cap(self._cap), self._table, self._cap)

    def read(self) -> float:
        """The cap in Hz; without one, the highest level."""
        return nearest(min(_cap(self._cap), self.levels[-1]), self.levels)

    def write(self, level: float) -> None:
        """Cap the clock at ``level``."""
        write_text(self._cap, str(round(level)))

    def snapshot(self) -> Snapshot:
        """The cap, and the power mode that set it."""
        return {**_snapshot(self.files), **_noted(self._mode)}

    def heed(self, snapshot: Snapshot, level: float) -> Snapshot:
        """See :meth:`LimitedClock.heed`."""
        ours, kept = Ours.by(snapshot, self._mode), dict(snapshot)
        if self._others(snapshot, ours) or not ours.pinned:
            kept |= _snapshot(self.files)
            if ours.pinned or ours.moved:
                self._top = _cap(self._cap)
        _need(level, self._top, self._cap)
        settled = _near(read_number(self._cap), *ours.pinned[-1:])
        return {**kept, **_noted(self._mode), **ours.noted(level, settled)}

    def _others(self, snapshot: Snapshot, ours: Ours) -> bool:
        return ours.foreign(read_number(self._cap), float(_saved(snapshot, self._cap)))

    def restore(self, snapshot: Snapshot) -> None:
        """Put the cap back, unless others have set it since."""
        self._top = float("inf")
        saved = _saved(snapshot, self._cap)
        others = False
        with suppress(OSError, ValueError):
            others = self._others(snapshot, Ours.by(snapshot, self._mode))
        if not others:
            _put_back(self._cap, saved)
        self.levels = self._allowed()


JetsonControl = LimitedClock | LockedClock | CappedClock


def nearest(hz: float, levels: Sequence[float]) -> float:
    """The level of ``levels``, ascending, that ``hz`` stands for; ``hz`` if it is near none."""
    above = bisect_left(levels, hz)
    around = levels[max(above - 1, 0) : above + 1]
    return next((level for level in around if abs(level - hz) <= CLOSE * level), hz)


def _snapshot(files: Iterable[Path]) -> Snapshot:
    """The files' texts. All hold numbers: what is none was misread, and must not be put back.

    Raises:
        OSError: one cannot be read.
        ValueError: one holds no number.
    """
    texts = {path: read_text(path) for path in files}
    for path, text in texts.items():
        number(text, path)
    return {str(path): text for path, text in texts.items()}


def _noted(mode: Path | None) -> Snapshot:
    """The power mode, for a snapshot; nothing where none is noted."""
    return {} if mode is None or not _mode(mode) else {str(mode): _mode(mode)}


def _need(level: float, cap: float, path: Path) -> None:
    """
    Raises:
        ValueError: the level is above a cap that others have set meanwhile.
    """
    if level > cap * (1 + CLOSE):
        raise ValueError(f"others have set {path} to {cap / 1e6:g} MHz meanwhile")


def _put_back(path: Path, text: str) -> None:
    """Write ``text`` into a kernel file, and look whether it took.

    A limit may read lower than what was written, while the board throttles; one that still
    holds what it held before was not written at all. Where it cannot be read, the kernel's
    taking of the write must do. Where it cannot be written, and holds ``text``, it is back.

    Raises:
        OSError: the kernel refused, or there is no such file.
        ValueError: the kernel took it, and did nothing.
    """
    before = text_if_there(path)
    try:
        write_text(path, text)
    except OSError:
        if not _same(before, text):
            raise
        return
    now = text_if_there(path)
    if now and now == before and not _same(now, text):
        raise ValueError(f"{path} still holds {now[:40]}, not the {text[:40]} that was written")


def _same(one: str, other: str) -> bool:
    """Whether two texts mean the same: a clock may be rounded to whole MHz when it is read."""
    try:
        return isclose(float(one), float(other), rel_tol=1e-3)
    except ValueError:
        return one == other


def _saved(snapshot: Snapshot, path: Path) -> str:
    try:
        return snapshot[str(path)]
    except KeyError:
        raise ValueError(f"the snapshot does not hold {path}") from None


def _run_all(steps: Iterable[Callable[[], None]]) -> None:
    """Take every step; then raise the first error that one met."""
    errors = [error for error in map(_error_of, steps) if error is not None]
    if errors:
        raise errors[0]


def _error_of(step: Callable[[], None]) -> OSError | ValueError | None:
    try:
        step()
    except (OSError, ValueError) as error:
        return error
    return None


# What is there ---------------------------------------------------------------------------


class NotThere(LookupError):  # noqa: N818 - no error of a program: a board without that knob
    """A knob cannot be set on this machine."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.missing = Missing(reason, fix)


class Survey(NamedTuple):
    """What a board has of the knobs.

    Attributes:
        missing: why a knob is not among ``controls``, by its name.
    """

    board: Board
    controls: tuple[JetsonControl, ...]
    missing: Mapping[str, Missing]


def find(root: Path = Path("/")) -> Hardware | None:
    """What can be set on the Jetson whose files are under ``root``; None: it is no Jetson.

    The levels end where the present limits do, which are those of the power mode: look only
    after what a former lease may have left behind is restored.

    Args:
        root: holds ``sys`` and ``proc``.
    """
    found = survey(root)
    if found is None:
        return None
    controls = (*cpu_cores.find(root), *found.controls)  # a policy's cores come before its clock
    return Hardware(found.board.name, controls, claims=tuple(found.missing))


def survey(root: Path = Path("/")) -> Survey | None:
    """As :func:`find`; with the reason for every knob that is missing."""
    board = identify(root)
    if board is None:
        return None
    ways: dict[str, Callable[[], JetsonControl]] = {
        "cpu_hz": lambda: _cpu(root),
        "gpu_hz": lambda: _gpu(root),
        "emc_hz": lambda: _emc(root, board),
    }
    looked = {name: _attempt(way) for name, way in ways.items()}
    return Survey(
        board,
        tuple(each for each in looked.values() if not isinstance(each, Missing)),
        {name: each for name, each in looked.items() if isinstance(each, Missing)},
    )


def _attempt(way: Callable[[], JetsonControl]) -> JetsonControl | Missing:
    """The clock, or why it cannot be set."""
    try:
        return way()
    except NotThere as error:
        return error.missing
    except (OSError, ValueError) as error:
        return Missing(str(error))


def _cpu(root: Path) -> LimitedClock:
    """All clusters that are online; every Jetson's have one table."""
    folder = root / CPUFREQ
    policies = sorted(folder.glob("policy*"), key=lambda each: int(each.name[6:] or 0))
    limits = [_cpu_limits(policy) for policy in policies if _online(policy)]
    if not limits:
        raise NotThere(f"no policy in {folder} can be read")
    tables = [_cpu_table(each.low.parent) for each in limits]
    common = [hz for hz in tables[0] if all(hz in table for table in tables)]
    listed = all(read_numbers(each.low.with_name(FREQUENCIES)) for each in limits)
    return LimitedClock("cpu_hz", common, limits, root / MODE if listed else None)


def _cpu_limits(policy: Path) -> Limits:
    return Limits(
        low=policy / "scaling_min_freq",
        high=policy / "scaling_max_freq",
        current=policy / "scaling_cur_freq",
        unit_hz=1e3,
        cores=tuple(
            policy.parents[1] / f"cpu{core}/online"
            for core in text_if_there(policy / "related_cpus").split()
        ),
    )


def _online(policy: Path) -> bool:
    """A cluster whose cores are all offline has lost its policy, or the policy its values."""
    try:
        return read_number(policy / "scaling_max_freq") > 0
    except (OSError, ValueError):
        return False


def _cpu_table(policy: Path) -> tuple[float, ...]:
    """In Hz."""
    table = read_numbers(policy / FREQUENCIES)
    if not table:
        ends = ("cpuinfo_min_freq", "cpuinfo_max_freq")
        table = _steps(*(read_number(policy / end) for end in ends))
    return tuple(1e3 * khz for khz in table)


def _gpu(root: Path) -> LimitedClock:
    node = gpu_node(root)
    if node is None:
        raise NotThere(
            f"no GPU in {root / DEVFREQ}",
            "wait until the GPU's driver has loaded, which may take half a minute after boot; "
            "then look for it with: sudo dmesg | grep -i -e nvgpu -e nvidia",
        )
    return _devfreq("gpu_hz", node, read_numbers(node / "available_frequencies"), root / MODE)


def gpu_node(root: Path) -> Path | None:
    """The GPU's devfreq folder, told by its device tree node, never by its address."""
    try:
        names = sorted(os.listdir(root / DEVFREQ))
    except OSError:
        return None
    for node in (root / DEVFREQ / name for name in names):
        if node.name == THOR_GPU or _is_gpu(node / "device/of_node"):
            return node
    return None


def _is_gpu(of_node: Path) -> bool:
    names = {*strings(of_node / "name"), *strings(of_node / "compatible")}
    return not names.isdisjoint(GPU_NODES)


def sleepers(root: Path) -> tuple[RailGate, ...]:
    """The GPU's rail gate, where the Jetson has one."""
    gates = [root / gate for gate in RAIL_GATES if os.access(root / gate, os.W_OK)]
    return (RailGate(root, gates),) if gates and identify(root) is not None else ()


class RailGate:
    """Keeps a GPU from registering; as ``jetson_clocks`` does, it is opened for a moment.

    Only by whoever holds the lease: two at once could take the open gate for the found one.
    """

    name = "gpu_rail_gate"

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        """``files``: ways to the gate, to be tried in turn; 0 opens it."""
        self._root = root
        self._files = tuple(files)

    def asleep(self) -> bool:
        """Whether there is no GPU."""
        return gpu_node(self._root) is None

    def snapshot(self) -> Snapshot:
        """Whether it is closed."""
        return _snapshot(self._files)

    def wake(self) -> None:
        """Open it, until there is a GPU."""
        for gate in self._files:
            if self.asleep():
                write_text(gate, "0")

    def restore(self, snapshot: Snapshot) -> None:
        """Close it again, if it was."""
        gates = [(gate, _saved(snapshot, gate)) for gate in self._files]
        _run_all(
            [partial(_put_back, gate, text) for gate, text in gates if read_text(gate) != text]
        )


def _devfreq(name: str, node: Path, table: Sequence[float], mode: Path) -> LimitedClock:
    limits = Limits(node / "min_freq", node / "max_freq", node / "cur_freq", unit_hz=1.0)
    if table:
        return LimitedClock(name, table, [limits], mode)
    return LimitedClock(name, _steps(*limits.range()), [limits])


def _emc(root: Path, board: Board) -> JetsonControl:
    refusals: list[Missing] = []
    for way in board.emc:
        try:
            control = _EMC_WAYS[way](root, board)
        except NotThere as error:
            # Only then another way: one that is there but fails may hold what is to be restored.
            refusals.append(error.missing)
            continue
        if isinstance(control, CappedClock):
            control.not_pinned = refusals[0]
        return control
    reasons = "; ".join(each.reason for each in refusals)
    raise NotThere(reasons, next((each.fix for each in refusals if each.fix), ""))


def _emc_by_bpmp(root: Path, board: Board) -> LockedClock:
    clock = root / BPMP / "clk/emc"
    _need_debugfs(root, clock / "rate")
    halt = root / BPMP / "bwmgr/bwmgr_halt"  # Thor: its bandwidth manager works against a lock
    locks = [clock / "mrq_rate_locked"]
    if exists(halt):
        locks += [clock / "state", halt]
    lowest, highest = read_number(clock / "min_rate"), read_number(clock / "max_rate")
    rates = {hz for hz in _bpmp_rates(root, board) if hz >= lowest * (1 - CLOSE)}
    return LockedClock(
        "emc_hz", _up_to(min(highest, _emc_cap(root)), rates, clock), locks, clock / "rate"
    )


def _bpmp_rates(root: Path, board: Board) -> tuple[float, ...]:
    """In Hz: as the BPMP lists them, or as they are known of the board."""
    listed = read_numbers(root / BPMP / "emc/possible_rates")
    if not listed:
        listed = tuple(
            float(each.name)
            for each in (root / BPMP / "emc/tables/regular").glob("*")
            if each.name.isdigit()
        )
    return tuple(1e3 * khz for khz in listed) or _dvfs_rates(root) or board.emc_hz


def _dvfs_rates(root: Path) -> tuple[float, ...]:
    """In Hz, from the second column of Thor's table, which may be in kHz."""
    try:
        lines = read_text(root / BPMP / "clk/emc/dvfs").splitlines()
    except OSError:
        return ()
    columns = [re.findall(r"\d+", line) for line in lines]
    rates = [float(words[1]) for words in columns if len(words) > 1]
    return tuple(hz if hz >= 1e8 else 1e3 * hz for hz in rates)


def _emc_by_bwmgr(root: Path, board: Board) -> LimitedClock:
    node = root / DEVFREQ / "bwmgr"
    if not exists(node / "max_freq"):
        raise NotThere(f"{node} does not exist")
    table = read_numbers(node / "available_frequencies") or _bpmp_rates(root, board)
    allowed = [hz for hz in table if hz <= _emc_cap(root) * (1 + CLOSE)]
    return _devfreq("emc_hz", node, allowed, root / MODE)


def _emc_by_override(root: Path, board: Board) -> LockedClock:
    """Tegra X1: a clock whose rate overrides the memory's while its state is 1."""
    clock = root / OVERRIDE
    _need_debugfs(root, clock / "clk_rate")
    lowest, highest = (
        read_number(root / BWMGR_T210 / name) for name in ("emc_min_rate", "emc_max_rate")
    )
    rates = [hz for hz in board.emc_hz if hz >= lowest * (1 - CLOSE)]
    return LockedClock(
        "emc_hz",
        _up_to(min(highest, _emc_cap(root)), rates, clock),
        [clock / "clk_state"],
        clock / "clk_rate",
        clock / "clk_update_rate",
    )


def _emc_by_cap(root: Path, board: Board) -> CappedClock:
    for cap in (root / each for each in CAPS):
        if exists(cap):
            return CappedClock("emc_hz", board.emc_hz, cap, root / MODE)
    raise NotThere(f"neither {root / CAPS[0]} nor {root / CAPS[1]} exists")


_EMC_WAYS: dict[str, Callable[[Path, Board], JetsonControl]] = {
    "bpmp": _emc_by_bpmp,
    "bwmgr": _emc_by_bwmgr,
    "override": _emc_by_override,
    "cap": _emc_by_cap,
}


def _need_debugfs(root: Path, file: Path) -> None:
    if exists(file):
        return
    debug = root / "sys/kernel/debug"
    if exists(debug) and not os.access(debug, os.X_OK):
        raise NotThere(
            f"only root may look into {debug}, where the memory clock is set",
            "sudo systemctl enable --now energy-governor",
        )
    if not exists(debug) or not os.listdir(debug):
        raise NotThere("debugfs is not mounted", f"sudo mount -t debugfs none {debug}")
    raise NotThere(f"{file} does not exist")


def _emc_cap(root: Path) -> float:
    """The power mode's cap on the memory clock in Hz, infinite if there is none."""
    return min(_cap(root / each) for each in CAPS)


def _cap(path: Path) -> float:
    """0 (L4T 32 and 35), -1 and the largest integer (36) all mean: none."""
    try:
        hz = read_number(path)
    except (OSError, ValueError):
        return float("inf")
    return hz if 0 < hz < 1e12 else float("inf")


def _steps(low: float, high: float) -> tuple[float, ...]:
    """Evenly spaced, where a kernel lists no levels."""
    width = (high - low) / (STEPS - 1)
    return tuple(sorted({float(round(low + step * width)) for step in range(STEPS)}))


def _up_to(cap: float, table: Iterable[float], where: Path) -> tuple[float, ...]:
    levels = tuple(sorted(hz for hz in set(table) if 0 < hz <= cap * (1 + CLOSE)))
    if not levels:
        raise NotThere(f"{where} allows no level that is known, its limit is {cap / 1e6:g} MHz")
    return levels
