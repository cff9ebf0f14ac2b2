"""An NVIDIA Jetson: its clocks through the lease, its sensors through the kernel's files.

What can be set, and in which order, is in :mod:`governor.lease.jetson_controls`; this module
never writes. The levels end at the limits of the present power mode.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from governor.devices.device import Clock, DeviceInfo, MonotonicClock, Sample
from governor.devices.ina3221 import find_rails
from governor.devices.jetson_facts import facts
from governor.devices.nvpmodel import STATUS, present_mode
from governor.devices.thermal import THROTTLING, Temperatures, Throttling, trip_c
from governor.errors import DeviceError, InputError
from governor.lease import cpu_cores
from governor.lease.client import Lease as KeeperLease
from governor.lease.jetson_board import Board, identify, is_emulated, l4t, model, why_no_jetson
from governor.lease.jetson_controls import gpu_node, survey
from governor.lease.kernel_files import read_number, text_if_there
from governor.space import Knob, OperatingPoint, Space

KNOBS = ("cpu_hz", "gpu_hz", "emc_hz")
OPTIONAL = (cpu_cores.NAME,)
"""Left alone unless asked for: a hot-plug takes tens of milliseconds and stops every core."""
SETTLE_S = 0.01
"""CPU, GPU and memory clocks take 1, 5 and 8 ms on Orin Nano (arXiv 2606.16106)."""
STUCK_REFRESHES = 20.0
STUCK_POINTS = 4
"""A sensor that says the same for so many refreshes, while so many operating points were set,
has stopped. Time alone does not tell: a step of current is 0.4 W on an AGX Orin's 20 V rails."""
BOOT_S = 90.0
"""Uptime until which a GPU may still be missing: its driver has been seen to come 30 s late."""

logger = logging.getLogger("governor")


class Lease(Protocol):
    """The right to set this machine's knobs; :class:`governor.lease.client.Lease` is one."""

    @property
    def levels(self) -> Mapping[str, tuple[float, ...]]:
        """What may be set of each knob, ascending."""
        ...

    def set(self, point: Mapping[str, float]) -> Mapping[str, float]:
        """Set these knobs; what the kernel then says of them."""
        ...

    def read(self) -> Mapping[str, float]:
        """What is in force, knob by knob."""
        ...

    def release(self) -> None:
        """Put everything back and end the lease."""
        ...


class PowerSource(Protocol):
    """Watts of all rails: the board's own chips, or jetson-stats.

    Attributes:
        total_rail: the rail that is charged.
        refresh_s: seconds between two fresh readings.
    """

    total_rail: str
    refresh_s: float

    def read(self) -> dict[str, float]:
        """Watts by rail, the total included; one that failed is absent."""
        ...

    def close(self) -> None:
        """Let go of files and sockets."""
        ...


class JetsonDevice:
    """A Jetson as a :class:`governor.devices.device.Device`."""

    def __init__(
        self,
        board: Board,
        rails: PowerSource,
        open_lease: Callable[[], Lease],
        root: Path = Path("/"),
        clock: Clock | None = None,
    ) -> None:
        """See :meth:`open`. The lease is taken at once: a second governor is told at the start.

        Raises:
            DeviceError: the lease cannot be had, or there is no clock to set.
        """
        self._board = board
        self._root = root
        self._rails = rails
        self._temperatures = Temperatures(root)
        self._throttling = Throttling(root)
        self._clock = clock or MonotonicClock()
        if self._throttling.read(self._clock.now()).get("thermal"):
            logger.warning("%s; see governor doctor", THROTTLING)
        self._latest: Mapping[str, float] = {}
        self._changed_s = self._clock.now()
        self._set_since: set[OperatingPoint] = set()
        self._open_lease = open_lease
        self._owed = False
        self._mode = self._mode_seen = present_mode(root)
        self._status: str = text_if_there(root / STATUS)
        self._followed = False
        self._lease: Lease | None = open_lease()
        self._begin(self._lease)

    @classmethod
    def open(
        cls,
        sysfs_root: Path = Path("/"),
        open_lease: Callable[[], Lease] | None = None,
        clock: Clock | None = None,
    ) -> JetsonDevice:
        """The Jetson that this is.

        Args:
            sysfs_root: the folder that holds ``sys``, ``proc`` and ``etc``; ``/`` on a board.
            open_lease: takes the lease; by default that of the keeper for ``sysfs_root``.
            clock: the machine's own by default.

        Raises:
            DeviceError: this is no Jetson, its power cannot be read, or its clocks not be set.
        """
        board = identify(sysfs_root)
        if board is None:
            raise DeviceError(why_no_jetson(sysfs_root))
        clock = clock or MonotonicClock()
        _await_gpu(sysfs_root, clock)
        rails = open_rails(sysfs_root, board)
        lease = open_lease or (lambda: KeeperLease.open(sysfs_root=sysfs_root))
        return cls(board, rails, lease, sysfs_root, clock)

    def _begin(self, lease: Lease) -> None:
        """What may be set in this lease."""
        self.space = _space(lease.levels, self._root)
        self._optional = {
            name: Knob(name, lease.levels[name])
            for name in OPTIONAL
            if len(lease.levels.get(name, ())) > 1
        }
        self.info = _info(self._board, self._root, self._rails)

    @property
    def clock(self) -> Clock:
        """The machine's own clock."""
        return self._clock

    @property
    def optional(self) -> tuple[str, ...]:
        """Knobs that are left alone unless asked for, and that are not in :attr:`space`."""
        return tuple(name for name in self._optional if name not in self.space.names)

    def include(self, knob: str) -> None:
        """Make one of :attr:`optional` part of :attr:`space`.

        Raises:
            InputError: the space would be too large.
        """
        self.space = self.space.with_knob(self._optional[knob])

    def read(self) -> OperatingPoint:
        """What the kernel says is set now.

        Raises:
            DeviceError: it cannot be read.
        """
        if self._lease is not None:
            return self._point({**self._cores(), **self._lease.read()})
        found = survey(self._root)
        try:
            controls = () if found is None else found.controls
            return self._point({**self._cores(), **{each.name: each.read() for each in controls}})
        except (KeyError, OSError, ValueError) as error:
            raise DeviceError(f"the clocks cannot be read without the lease: {error}") from None

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        """Set every knob of ``point``; returns what was read back.

        Raises:
            InputError: the point is not in :attr:`space`; nothing was written.
            DeviceError: a write failed.
        """
        if point not in self.space:
            raise InputError(f"{point} is not one of the {len(self.space)} allowed settings")
        if self._lease is None:
            self._lease = self._open_lease()
        self._heed_the_mode()
        self._set_since.add(point)
        try:
            return self._point(self._lease.set(point))
        except DeviceError:
            self._watch_the_mode()
            raise

    def release(self) -> None:
        """End the lease, which puts back every file as it was found.

        Raises:
            DeviceError: something would not go back; ask again, and it is tried again.
        """
        lease, self._lease = self._lease, None
        if lease is None and self._owed:
            lease = self._open_lease()  # its keeper first puts back what the last one could not
        if lease is not None:
            self._heed_the_mode()
            self._owed = True
            lease.release()
            self._owed = False

    def take_change(self) -> str:
        """Once, that the power mode was changed: what may be set now, :meth:`renew` finds out."""
        self._followed = True
        before, now = self._mode, self._mode_seen
        if now is None or now == before:
            return ""
        self._mode = now
        return f"the power mode was changed from {before or 'unknown'} to {now}"

    def renew(self) -> None:
        """:meth:`release`, then a new lease with the levels of the present power mode.

        Raises:
            DeviceError: something would not go back, or there is no lease or clock to be had.
        """
        self.release()
        lease = self._open_lease()
        try:
            self._begin(lease)
        except BaseException:
            lease.release()
            raise
        self._lease = lease

    def sample(self) -> Sample:
        """Read the sensors, and which power mode it is.

        Raises:
            DeviceError: no rail could be read, or the sensor is stuck.
        """
        now_s = self._clock.now()
        self._watch_the_mode()
        power_w = self._rails.read()
        if not power_w:
            raise DeviceError(f"no power rail can be read; see governor doctor ({self.info.name})")
        self._check_that_it_moves(now_s, power_w)
        return Sample(now_s, power_w, self._temperatures.read(now_s), self._throttling.read(now_s))

    def _watch_the_mode(self) -> None:
        """Its names are looked up only where the status has changed: this is asked often."""
        status = text_if_there(self._root / STATUS)
        if status != self._status:
            self._status, self._mode_seen = status, present_mode(self._root)

    def _heed_the_mode(self) -> None:
        """Tell whoever does not ask :meth:`take_change`: the levels are those of the mode of then.

        The lease leaves the new mode's limits.
        """
        if self._followed:
            return
        self._watch_the_mode()
        before, now = self._mode, self._mode_seen
        if now is None or now == before:
            return
        self._mode = now
        logger.warning(
            "the power mode was changed from %s to %s while the clocks are governed: its limits "
            "hold from now on, and stay in the end; to search its levels, start again",
            before or "unknown", now,
        )  # fmt: skip

    def _check_that_it_moves(self, now_s: float, power_w: Mapping[str, float]) -> None:
        if power_w != self._latest:
            self._latest, self._changed_s = power_w, now_s
            self._set_since.clear()
            return
        still_s = now_s - self._changed_s
        points = len(self._set_since)
        if still_s > STUCK_REFRESHES * self.info.sensor_refresh_s and points >= STUCK_POINTS:
            raise DeviceError(
                f"the power sensor is stuck: no rail has changed for {still_s:.0f} s, "
                f"at {points} operating points"
            )

    def close(self) -> None:
        """:meth:`release`, then close all files."""
        try:
            self.release()
        finally:
            for sensor in (self._rails, self._temperatures, self._throttling):
                sensor.close()

    def _cores(self) -> dict[str, float]:
        """How many are on, if that is a knob: the lease says it only once it was set."""
        if cpu_cores.NAME not in self.space.names:
            return {}
        try:
            return {cpu_cores.NAME: float(len(cpu_cores.online(self._root)))}
        except (OSError, ValueError) as error:
            raise DeviceError(f"the number of cores cannot be read: {error}") from None

    def _point(self, levels: Mapping[str, float]) -> OperatingPoint:
        lost = [name for name in self.space.names if name not in levels]
        if lost:
            raise DeviceError(f"{', '.join(lost)} cannot be set any more; see governor doctor")
        return OperatingPoint({name: levels[name] for name in self.space.names})


def open_rails(root: Path, board: Board) -> PowerSource:
    """The board's rails, from the kernel's files or, where those cannot be read, jetson-stats.

    Raises:
        DeviceError: neither; says why of both.
    """
    try:
        return find_rails(root, board)
    except DeviceError as error:
        problem = str(error)
    if root != Path("/") or not board.total:  # jetson-stats knows only the machine it runs on
        raise DeviceError(problem)
    from governor.devices.jtop import JtopRails

    try:
        return JtopRails.open(board)
    except DeviceError as error:
        raise DeviceError(f"{problem}; {error}") from None


def _space(levels: Mapping[str, tuple[float, ...]], root: Path) -> Space:
    found = survey(root)
    reasons = {} if found is None else dict(found.missing)
    missing = {
        name: str(reasons.get(name, "the lease keeper does not offer it"))
        for name in KNOBS
        if name not in levels
    }
    if len(missing) == len(KNOBS):
        raise DeviceError("no clock can be set: " + "; ".join(missing.values()))
    for name, reason in missing.items():
        logger.warning("%s is left alone: %s", name, reason)
    return Space([Knob(name, levels[name]) for name in KNOBS if name in levels])


def _info(board: Board, root: Path, rails: PowerSource) -> DeviceInfo:
    mode = present_mode(root)
    parts = [
        model(root) or board.title,
        f"Jetson Linux {l4t(root) or 'of unknown release'}",
        f"power mode {mode}" if mode is not None else "",
    ]
    emulated = is_emulated(root)
    return DeviceInfo(
        name=board.name,
        description=", ".join(filter(None, parts)) + (" (emulated)" if emulated else ""),
        emulated=emulated,
        total_rail=rails.total_rail,
        sensor_refresh_s=rails.refresh_s,
        settle_s=SETTLE_S,
        trip_c=trip_c(root),
        facts=facts(root, board),
    )


def _await_gpu(root: Path, clock: Clock) -> None:
    """Shortly after boot, give the GPU's driver the time to load."""
    while gpu_node(root) is None and _uptime_s(root) < BOOT_S:
        clock.sleep(0.5)


def _uptime_s(root: Path) -> float:
    try:
        return read_number(root / "proc/uptime")
    except (OSError, ValueError):
        return BOOT_S
