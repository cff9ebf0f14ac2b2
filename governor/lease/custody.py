"""The hardware in our hands: snapshot, set, read back, put back. Knows nothing of sockets."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from governor.lease.control import PINNED, Control, Sleeper, Snapshot, Watchful
from governor.lease.errors import HardwareError, RefusedError, RestoreError
from governor.lease.find import find_hardware, find_sleepers
from governor.lease.journal import Journal, Record, boot_id, make_folder
from governor.lease.lock import LeaseLock
from governor.lease.process import Process

T = TypeVar("T")

RESTORE_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Before each attempt to put back what would not go back: a fault may pass."""
FAULTS = (OSError, ValueError, TypeError)
"""What a control may raise. TypeError: Python's own answer to EAGAIN from a text file."""
ON_REQUEST = frozenset(("cpu_cores",))
"""Knobs that are neither read nor put back in a lease which never sets them."""
BEFORE = {"cpu_hz": "cpu_cores"}
"""Not all of the first is back before the second is: a cluster that is off has no clock."""
LEVEL_TOLERANCE = 1e-9
"""Relative; a level is compared with its own text, which crossed the socket."""


class Custody:
    """Everything that the lease does to hardware, one call at a time.

    Nothing is written before every knob's snapshot is in the journal; the journal goes only
    when all of it is back.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        """
        Args:
            root: under which the kernel's files lie, ``/`` on a live machine.
            folder: of journal and lock.

        Raises:
            LeaseError: the folder cannot be used.
        """
        make_folder(folder)
        self.journal = Journal(folder)
        self.lock = LeaseLock(folder, root)
        self._root = root
        self._hardware: list[str] = []
        self._controls: tuple[Control, ...] = ()
        self._sleepers: tuple[Sleeper, ...] = ()
        self._holder: Process | None = None
        self._record: Record | None = None

    def find(self) -> None:
        """Look what there is to set; again, for devices appear late. Whoever holds the lease
        may wake what sleeps.

        Raises:
            HardwareError: a backend failed to look.
        """
        try:
            self._sleepers = find_sleepers(self._root)
            if self.lock.held:
                self._wake()
            hardware = find_hardware(self._root)
        except OSError as error:
            raise HardwareError(f"cannot look for knobs under {self._root}: {error}") from None
        self._hardware = [each.name for each in hardware]
        self._controls = tuple(control for each in hardware for control in each.controls)

    def _wake(self) -> None:
        """Let appear what sleeps, with the journal kept meanwhile: this may be killed, too.

        Where it cannot be kept, all stays asleep. What will not go back stays in the journal.
        """
        for each in self._sleepers:
            if not each.asleep():
                continue
            left = self.journal.read()
            if left is None or not left.of_this_boot:
                us = str(Process.of(os.getpid()))
                left = Record(boot_id(), str(self._root), [], us, {}, [])
            try:
                snapshots = {each.name: each.snapshot(), **left.snapshots}
                written = None if left.written is None else [*left.written, each.name]
                self.journal.write(left._replace(snapshots=snapshots, written=written))
            except FAULTS:
                continue
            with suppress(*FAULTS):
                each.wake()
            with suppress(*FAULTS):
                each.restore(snapshots[each.name])
                if left.snapshots:
                    self.journal.write(left)
                else:
                    self.journal.clear()

    def describe(self) -> dict[str, object]:
        """Names of the hardware, and the levels of each knob."""
        return {
            "hardware": self._hardware,
            "knobs": {control.name: list(control.levels) for control in self._controls},
        }

    def take(self, holder: Process) -> None:
        """Take the lease, and first put back what a keeper before us could not.

        Raises:
            LeaseHeldError: someone holds it.
            RestoreError: what is left of an earlier lease would not go back.
        """
        self.lock.take(holder)
        try:
            self.find()
            if self._recover() is not None:
                self.find()  # what an earlier lease had pinned hid part of its range
        except BaseException:
            self.lock.drop()
            raise
        self._holder = holder

    def put_back(self, asker: Process) -> Record | None:
        """Put back what an earlier lease left; what that was, or None.

        Raises:
            LeaseHeldError: someone holds the lease, so nothing was left.
            RestoreError: something would not go back.
        """
        self.find()
        self.lock.take(asker)
        try:
            if self.journal.path.exists():
                self.find()
            return self._recover()
        finally:
            self.lock.drop()

    def set(self, knobs: Mapping[str, float]) -> dict[str, float]:
        """Set the knobs in the hardware's own order; what the kernel then says of them.

        Raises:
            RefusedError: a knob or level that there is not; nothing was written.
            HardwareError: the kernel refused; knobs before that one are set.
        """
        chosen = self._checked(knobs)
        self._remember(knobs, chosen)
        for control, level in chosen:
            _write(control, level)
        return {control.name: _read(control) for control, _level in chosen}

    def read(self) -> dict[str, float]:
        """What is in force, knob by knob; without those of a device that is lost, as a GPU
        that fell off the bus, while nothing of it was set.

        Raises:
            HardwareError: a knob cannot be read.
        """
        known = self._journalled()
        return _without_lost(
            _read,
            [each for each in self._controls if each.name not in ON_REQUEST or each.name in known],
            self._written(),
        )

    def give_back(self) -> None:
        """Put everything back and end the lease. Without one, nothing happens.

        By what we remember: someone may have deleted the journal meanwhile, or damaged it.

        Raises:
            RestoreError: something would not go back; the journal stays.
        """
        try:
            if self._record is not None:
                with suppress(OSError):
                    self.journal.write(self._record)
                self._recover(self._record)
        finally:
            self._record = None
            self._holder = None
            self.lock.drop()

    def _written(self) -> Sequence[str]:
        """The knobs that the record says are set, in order."""
        return () if self._record is None else self._record.written or ()

    def _journalled(self) -> dict[str, Snapshot]:
        return {} if self._record is None else self._record.snapshots

    def _checked(self, knobs: Mapping[str, float]) -> list[tuple[Control, float]]:
        unknown = knobs.keys() - {control.name for control in self._controls}
        if unknown:
            known = ", ".join(control.name for control in self._controls) or "none"
            raise RefusedError(f"no knob {min(unknown)[:40]!r} here; there are: {known}")
        return [
            (control, _level(control, knobs[control.name]))
            for control in self._controls
            if control.name in knobs
        ]

    def _remember(
        self, knobs: Mapping[str, float], chosen: Sequence[tuple[Control, float]]
    ) -> None:
        """Journal all that may be written from now on, and that these knobs are."""
        known = self._journalled()
        wanted = [
            control
            for control in self._controls
            if control.name not in known
            and (control.name in knobs or control.name not in ON_REQUEST)
        ]
        before = self._written()
        written = [*before, *sorted(knobs.keys() - set(before))]
        if self._holder is None:
            raise RefusedError("set without the lease: acquire it first")
        snapshots = {**known, **_without_lost(_snapshot, wanted, written)}
        for control, level in chosen:
            if BEFORE.get(control.name) not in written:
                snapshots[control.name] = _heed(control, snapshots[control.name], level)
        if snapshots == known and len(written) == len(before):
            return
        record = Record(
            boot_id(),
            str(self._root),
            self._hardware,
            str(self._holder),
            snapshots,
            written,
        )
        try:
            self.journal.write(record)
        except OSError as error:
            raise HardwareError(f"the journal cannot be kept, so nothing is set: {error}") from None
        self._record = record

    def _recover(self, record: Record | None = None) -> Record | None:
        """Put back what the record says, by default the journal's, and forget it.

        Returns:
            what was put back; None: there was nothing of this boot.
        """
        try:
            record = record or self.journal.read()
            if record is None:
                return None
            owed = record._replace(snapshots=_owed(record))
            if record.of_this_boot:
                self._restore(owed)
            self.journal.clear()
        except OSError as error:
            raise RestoreError(f"the journal cannot be used: {error}") from None
        return owed if record.of_this_boot else None

    def _restore(self, record: Record) -> None:
        """Put back in the order of writing; again, what may have had to wait for another."""
        if Path(record.root) != self._root:
            raise RestoreError(
                f"the journal {self.journal.path} is of the files under {record.root}, "
                f"not of {self._root}: name another folder for it"
            )
        pending = dict(record.snapshots)
        problems: dict[str, str] = dict.fromkeys(pending, "it is not found any more")
        for attempt, pause_s in enumerate(RESTORE_PAUSES_S):
            time.sleep(pause_s)
            if attempt and not record.snapshots.keys().isdisjoint(BEFORE.values()):
                self._look_again()
            for control in (*self._sleepers, *self._controls):
                if control.name not in pending:
                    continue
                try:
                    control.restore(pending[control.name])
                    first = BEFORE.get(control.name)
                    if first in pending:
                        problems[control.name] = f"it waits for {first}"
                    else:
                        del pending[control.name]
                except FAULTS as error:
                    problems[control.name] = str(error)
            if not pending:
                return
        what = "; ".join(f"{knob}: {problems[knob]}" for knob in pending)
        raise RestoreError(
            f"not put back: {what}. The journal {self.journal.path} stays; "
            "once that is mended: sudo governor restore"
        )

    def _look_again(self) -> None:
        """Find what came back with another knob; nothing that was seen before is lost."""
        before = self._controls
        with suppress(HardwareError):
            self.find()
        seen = {control.name for control in self._controls}
        self._controls += tuple(each for each in before if each.name not in seen)


def _owed(record: Record) -> dict[str, Snapshot]:
    """The snapshots of what was written; what was not is others' to set, and stays theirs."""
    if record.written is None:
        return dict(record.snapshots)
    written = set(record.written)
    written |= {later for later, first in BEFORE.items() if first in written}
    owed = {knob: each for knob, each in record.snapshots.items() if knob in written}
    for later, first in BEFORE.items():
        if first in written and later in owed:
            # Since it was off, its limits may be the kernel's own, and so nobody else's.
            owed[later] = {key: text for key, text in owed[later].items() if key != PINNED}
    return owed


def _snapshot(control: Control) -> Snapshot:
    try:
        return control.snapshot()
    except FAULTS as error:
        what = f"{control.name} cannot be saved, so nothing is set: {error}"
        raise HardwareError(what) from error


def _heed(control: Control, snapshot: Snapshot, level: float) -> Snapshot:
    if not isinstance(control, Watchful):
        return snapshot
    try:
        return control.heed(snapshot, level)
    except FAULTS as error:
        raise HardwareError(_not_set(control, level, error)) from None


def _write(control: Control, level: float) -> None:
    try:
        control.write(level)
    except FAULTS as error:
        raise HardwareError(_not_set(control, level, error)) from None


def _not_set(control: Control, level: float, error: Exception) -> str:
    return f"{control.name} cannot be set to {_said(control, level)}: {error}"


def _read(control: Control) -> float:
    try:
        return float(control.read())
    except FAULTS as error:
        raise HardwareError(f"{control.name} cannot be read: {error}") from error


def _without_lost(
    ask: Callable[[Control], T], controls: Iterable[Control], written: Iterable[str]
) -> dict[str, T]:
    """What ``ask`` says of each control, by name; of a device that is gone, nothing.

    Raises:
        HardwareError: it fails otherwise, or something of that device is among ``written``.
    """
    ours = {_device(name) for name in written}
    said: dict[str, T] = {}
    for control in controls:
        try:
            said[control.name] = ask(control)
        except HardwareError as error:  # noqa: PERF203 - each has its own
            gone = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENODEV
            if not gone or _device(control.name) in ours:
                raise
    return said


def _device(knob: str) -> str:
    """A knob is named after what it belongs to: ``gpu1_hz`` and ``gpu1_emc_hz`` are of one GPU."""
    return knob.partition("_")[0]


def _level(control: Control, wanted: float) -> float:
    levels = control.levels
    for level in levels:
        if abs(level - wanted) <= LEVEL_TOLERANCE * abs(level):
            return level
    few = "none now"
    if levels:
        least, most = (_said(control, level) for level in (levels[0], levels[-1]))
        few = f"{least} to {most} in {len(levels)} steps"
    raise RefusedError(f"{_said(control, wanted)} is no level of {control.name}; its levels: {few}")


def _said(control: Control, level: float) -> str:
    """For people; ``governor.units`` would take 2 MB of the keeper's memory."""
    if not control.name.endswith("_hz"):
        return f"{level:g} W" if control.name.endswith("_w") else f"{level:g}"
    return f"{level / 1e6:g} MHz" if abs(level) >= 1e6 else f"{level:g} Hz"
