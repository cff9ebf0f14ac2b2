"""What both kinds of emulated board share: a device around a machine, and its ground truth."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import numpy as np

from governor.devices.device import Clock, DeviceInfo, Sample
from governor.devices.emulated.hardware import Board, load_board
from governor.devices.emulated.machine import KNOBS, TRANSITION_S, Machine
from governor.devices.emulated.physics import Contention, Tables, steady_power, tables
from governor.devices.emulated.room import Course, Room
from governor.devices.emulated.workload import Workload, load_workload
from governor.errors import InputError
from governor.lease.cpu_cores import NAME as CPU_CORES
from governor.space import FloatArray, Knob, OperatingPoint, Space
from governor.units import format_knob_value

_BESIDE_CLOCKS = {"batch_size", CPU_CORES}
"""What a point may name besides the clocks."""

SETTLE_S = 1.0
"""For so long the kernel's governors run before their mean is taken: 50 of their decisions."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that the steady state depends on."""

    board: Board
    workload: Workload
    batch_size: int
    contention: Contention
    period_s: float | None
    air_c: float
    cores: int
    supply: float = 1.0


@dataclass(frozen=True, slots=True)
class _Default:
    """The steady state under the kernel's governors."""

    latency_s: float
    energy_j: float
    power_w: float
    indices: tuple[int, int, int]


@lru_cache(maxsize=32)
def _tables(
    board: Board, workload: Workload, batch_size: int, contention: Contention, cores: int
) -> Tables:
    return tables(board, workload, batch_size, contention, cores)


@lru_cache(maxsize=32)
def _hardware(whole: Board, supply: float = 1.0) -> Board:
    """The board at such a share of its nominal supply voltage.

    As much current then brings less power, so that the cap falls with the voltage; and the same
    power takes more current, whose loss grows with its square (assumed: all loss is resistive).
    """
    if supply == 1.0:
        return whole
    thermal = replace(whole.thermal, power_cap_w=whole.thermal.power_cap_w * supply)
    return replace(whole, loss=whole.loss / supply**2, thermal=thermal)


@cache
def _space(*levels: tuple[float, ...]) -> Space:
    return Space([Knob(name, each) for name, each in zip(KNOBS, levels, strict=True)])


@lru_cache(maxsize=256)
def _default(scene: Scene) -> _Default:
    """Let the governors run without noise until settled and warm, then take the mean."""
    table = _tables(scene.board, scene.workload, scene.batch_size, scene.contention, scene.cores)
    board = _hardware(scene.board, scene.supply)
    machine = Machine(board, table, air_c=scene.air_c, sensor_noise=0.0)
    count = max(10, int(SETTLE_S / max(machine.latency_s, scene.period_s or 0.0)))
    for _ in range(2):
        settled = _mean(machine, scene, count)
        machine.place(settled.indices, settled.power_w)
    return _mean(machine, scene, count)


def _mean(machine: Machine, scene: Scene, count: int) -> _Default:
    """Run ``count`` inferences; their mean time, energy an item and power."""
    start_s, start_j, busy_s = machine.now_s, machine.energy_j, 0.0
    cycle_s = (scene.period_s or 0.0) * scene.batch_size
    for _ in range(count):
        began_s = machine.now_s
        run(machine, 1.0, partial(machine.advance, busy=True))
        busy_s += machine.now_s - began_s
        machine.advance(max(machine.now_s, began_s + cycle_s), busy=False)
    spent_j = machine.energy_j - start_j
    return _Default(
        latency_s=busy_s / count,
        energy_j=spent_j / (count * scene.batch_size),
        power_w=spent_j / (machine.now_s - start_s),
        indices=machine.indices,
    )


def run(machine: Machine, work: float, busy_until: Callable[[float], None]) -> None:
    """One inference of ``work`` mean inferences, through whatever changes meanwhile."""
    while True:
        latency_s = machine.latency_s
        end_s = machine.now_s + work * latency_s
        if end_s <= machine.next_event_s:
            busy_until(end_s)
            return
        work -= (machine.next_event_s - machine.now_s) / latency_s
        busy_until(machine.next_event_s)


def _check_period(period_s: float | None) -> None:
    if period_s is not None and not period_s > 0:
        raise InputError(f"period {period_s} s is not positive; leave it out for a closed loop")


class Emulation:
    """What both kinds of emulated board share: a device around a machine, and its ground truth."""

    def __init__(
        self,
        board: str | Board,
        workload: str | Workload,
        clock: Clock,
        *,
        batch_size: int,
        seed: int,
        ambient_c: float | Room,
        period_s: float | None,
        sensor_noise: float,
    ) -> None:
        self._board = load_board(board) if isinstance(board, str) else board
        chosen = load_workload(workload) if isinstance(workload, str) else workload
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} is not at least 1")
        _check_period(period_s)
        room = ambient_c if callable(ambient_c) else Course((0.0, ambient_c))
        air_c, cores = room(clock.now()), self._board.cpu.cores
        self._scene = Scene(self._board, chosen, batch_size, Contention(), period_s, air_c, cores)
        self._clock = clock
        levels = (each.levels_hz for each in (self._board.cpu, self._board.gpu, self._board.memory))
        self._space = _space(*levels)
        self._found: dict[int, int] | None = None
        self._ours: dict[int, int] = {}
        self._found_cores = self._our_cores = cores
        self._lock = threading.RLock()
        self._machine = Machine(
            self._board,
            self._table(),
            seed=seed,
            now_s=clock.now(),
            air_c=air_c,
            sensor_noise=sensor_noise,
        )
        self._machine.stand_in(room)
        settled = _default(self._scene)
        self._machine.place(settled.indices, settled.power_w)

    # -- the device -----------------------------------------------------------------------

    @property
    def info(self) -> DeviceInfo:
        """What this device is."""
        return DeviceInfo(
            name=self._board.name,
            description=f"{self._board.title} (emulated)",
            emulated=True,
            total_rail=self._board.total_rail,
            sensor_refresh_s=self._board.sensor_refresh_s,
            settle_s=max(TRANSITION_S),
            trip_c=self._board.thermal.passive_c,
            workload=self._scene.workload.name,
        )

    @property
    def space(self) -> Space:
        """All settings of the board: CPU, GPU and EMC clocks, and what was included."""
        return self._space

    @property
    def optional(self) -> tuple[str, ...]:
        """The number of CPU cores, left alone unless asked for."""
        return () if CPU_CORES in self._space.names else (CPU_CORES,)

    def include(self, knob: str) -> None:
        """Make one of :attr:`optional` part of :attr:`space`."""
        if knob in self.optional:
            counts = tuple(float(count) for count in range(1, self._board.cpu.cores + 1))
            self._space = self._space.with_knob(Knob(knob, counts))

    @property
    def clock(self) -> Clock:
        """The clock that spans and samples are stamped with."""
        return self._clock

    def read(self) -> OperatingPoint:
        """What the emulated kernel reports now."""
        with self._lock:
            self._catch_up()
            found: dict[str, float] = {}
            found.update(zip(KNOBS, self._machine.settings_hz(), strict=True))
            if CPU_CORES in self._space.names:
                found[CPU_CORES] = self._scene.cores
            return OperatingPoint(found)

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        """Pin every knob of ``point``; in force after 1, 5 and 8 ms (CPU, GPU, EMC).

        Raises:
            InputError: the point is not in :attr:`space`; nothing was written.
        """
        indices = self._indices(point)
        with self._lock:
            self._catch_up()
            if self._found is None:
                self._found = self._machine.pins()
                self._found_cores = self._our_cores = self._scene.cores
            if CPU_CORES in point:
                self._our_cores = int(point[CPU_CORES])
                self._change(cores=self._our_cores)
            self._ours = dict(enumerate(indices))
            for knob, index in enumerate(indices):
                self._machine.pin(knob, index, self._clock.now())
            return self.read()

    def release(self) -> None:
        """Give the clocks back to the kernel's governors, or pin those that were found pinned.

        What someone else has pinned since stays.
        """
        with self._lock:
            self._catch_up()
            if self._found is not None:
                pins = self._machine.pins().items()
                foreign = {knob: index for knob, index in pins if self._ours.get(knob) != index}
                self._machine.unpin()
                for knob, index in {**self._found, **foreign}.items():
                    self._machine.pin(knob, index, self._clock.now())
                if self._scene.cores == self._our_cores != self._found_cores:
                    self._change(cores=self._found_cores)
                self._found = None

    def sample(self) -> Sample:
        """Read the sensors: each rail's mean over the last refresh interval, with noise."""
        with self._lock:
            self._catch_up()
            machine = self._machine
            return Sample(
                time_s=self._clock.now(),
                power_w=dict(machine.rail_w),
                temperature_c=machine.temperatures_c(),
                throttle_events=dict(machine.throttle_events),
            )

    def close(self) -> None:
        """:meth:`release`; there is nothing else to let go of."""
        self.release()

    # -- what happens to the board --------------------------------------------------------

    def set_workload(self, workload: str | Workload, batch_size: int = 1) -> None:
        """From the next inference on, run something else (drift)."""
        chosen = load_workload(workload) if isinstance(workload, str) else workload
        self._change(workload=chosen, batch_size=batch_size)

    def set_ambient(self, ambient_c: float | Room) -> None:
        """Change the air's temperature, or the course of it; the board follows slowly."""
        room = ambient_c if callable(ambient_c) else Course((0.0, ambient_c))
        with self._lock:
            self._catch_up()
            self._machine.stand_in(room)

    def cool_down(self) -> None:
        """Let it be as cold as its room, as after a night without power."""
        with self._lock:
            self._catch_up()
            self._machine.cool_down()

    def set_contention(
        self,
        cpu_cores: float = 0.0,
        gpu_share: float = 0.0,
        memory_bytes_per_s: float = 0.0,
    ) -> None:
        """Another process takes so many cores, so much GPU time and memory traffic.

        Raises:
            InputError: a negative amount, or a GPU share not below 1.
        """
        if min(cpu_cores, gpu_share, memory_bytes_per_s) < 0 or gpu_share >= 1:
            raise InputError("contention needs amounts of at least 0 and a GPU share below 1")
        self._change(contention=Contention(cpu_cores, gpu_share, memory_bytes_per_s))

    def set_cores(self, cores: int) -> None:
        """So many CPU cores are online from now on.

        Raises:
            InputError: the board has not so many, or none would be left.
        """
        self._check_cores(cores)
        self._change(cores=cores)

    def set_period(self, period_s: float | None) -> None:
        """The camera delivers a frame every so many seconds; None: the loop is closed.

        Raises:
            InputError: the period is not positive.
        """
        _check_period(period_s)
        self._change(period_s=period_s)

    def set_supply(self, share: float) -> None:
        """The supply sags to a share of its nominal voltage, as an empty battery's does.

        Raises:
            InputError: the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise InputError(f"supply {share} is no share of the nominal voltage, above 0 to 1")
        self._change(supply=share)
        with self._lock:
            self._board = self._machine.board = _hardware(self._scene.board, share)

    def write_behind(self, knob: str, value: float) -> None:
        """Someone else pins one knob, without telling whoever governs the board.

        Raises:
            InputError: no such knob or level.
        """
        if knob not in KNOBS:
            raise InputError(f"unknown knob {knob!r}; choose one of {', '.join(KNOBS)}")
        with self._lock:
            self._catch_up()
            self._machine.pin(KNOBS.index(knob), self._level(knob, value), self._clock.now())

    @property
    def spent_j(self) -> float:
        """Joules spent since the start, without sensor noise: what a test checks sensors with."""
        with self._lock:
            self._catch_up()
            return self._machine.energy_j

    @property
    def throttled_s(self) -> float:
        """Seconds since the start in which the board held a clock of its own down."""
        with self._lock:
            self._catch_up()
            return self._machine.throttled_s

    @property
    def hottest_c(self) -> float:
        """The highest temperature of the die since the start."""
        with self._lock:
            self._catch_up()
            return self._machine.hottest_c

    # -- ground truth ---------------------------------------------------------------------

    def true_latency_s(self, point: OperatingPoint) -> float:
        """Mean seconds of one inference at ``point``, once settled. It may name a batch size."""
        return float(self._table(point).latency_s[self._indices(point)])

    def true_energy_j(self, point: OperatingPoint) -> float:
        """Mean joules an item at ``point``, once settled and warm, idle time included."""
        return float(self._energy(self._table(point))[self._indices(point)])

    def true_default(self) -> tuple[float, float]:
        """(seconds an inference, joules an item) under the kernel's own governors, warm."""
        cores = self._scene.cores if self._found is None else self._found_cores
        settled = _default(replace(self._scene, air_c=self._machine.air_c, cores=cores))
        return settled.latency_s, settled.energy_j

    def truth(self) -> tuple[FloatArray, FloatArray]:
        """Of every setting, in the order of :attr:`space`: mean seconds, joules an item; ``(n,)``.

        Once settled and warm, idle time included.
        """
        counts: list[float] = [self._scene.cores]
        if CPU_CORES in self._space.names:
            counts = list(self._space.knobs[self._space.names.index(CPU_CORES)].levels)
        each = [self._table({CPU_CORES: count}) for count in counts]
        # Of a space with the number of cores, that is the last knob, and varies first.
        latency_s = np.stack([table.latency_s for table in each], axis=-1)
        energy_j = np.stack([self._energy(table) for table in each], axis=-1)
        return latency_s.ravel(), energy_j.ravel()

    def true_temperature_c(self) -> dict[str, FloatArray]:
        """Of every setting, in the order of :attr:`space`: °C by zone, once warm; ``(n,)`` each."""
        latency_s, energy_j = self.truth()
        cycle_s = np.maximum(latency_s / self._scene.batch_size, self._scene.period_s or 0.0)
        return self._machine.settled_c(energy_j / cycle_s)

    def optimum(self, slo_s: float) -> tuple[OperatingPoint, float, float]:
        """The point of least energy that keeps the bound, its seconds and joules an item.

        It is the fastest point where nothing keeps the bound.
        """
        latency, energy = self.truth()
        allowed = latency <= slo_s
        if allowed.any():
            best = int(np.where(allowed, energy, np.inf).argmin())
        else:
            best = int(latency.argmin())
        return self.space.point(best), float(latency[best]), float(energy[best])

    def _energy(self, table: Tables) -> FloatArray:
        """Joules an item over the lattice, shape (c, g, e), warm."""
        cycle_s = np.maximum(table.latency_s, (self._scene.period_s or 0.0) * table.items)
        busy = (table.latency_s / cycle_s)[..., None]
        cold_w = (busy * table.busy_w + (1 - busy) * table.idle_w).sum(axis=-1)
        leak_w = table.cpu_leak_w[:, None, None] + table.gpu_leak_w[None, :, None] + 0 * cold_w
        power_w = steady_power(self._board, cold_w, leak_w, self._machine.air_c)
        return power_w * cycle_s / table.items

    # -- inside ---------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Account the time that has passed."""

    def _table(self, point: Mapping[str, float] | None = None) -> Tables:
        point, scene = point or {}, self._scene
        items = int(point.get("batch_size", scene.batch_size))
        cores = int(point.get(CPU_CORES, scene.cores))
        return _tables(scene.board, scene.workload, items, scene.contention, cores)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._catch_up()
            self._scene = replace(self._scene, **changes)
            self._machine.use(self._table())

    def _level(self, knob: str, value: float) -> int:
        levels = self.space.knobs[KNOBS.index(knob)].levels
        if value not in levels:
            shown = ", ".join(format_knob_value(knob, level) for level in levels)
            raise InputError(
                f"{format_knob_value(knob, value)} is not a level of {knob}; choose one of {shown}"
            )
        return levels.index(value)

    def _check_cores(self, cores: float) -> None:
        if cores not in range(1, self._board.cpu.cores + 1):
            raise InputError(f"{cores:g} cores online; the board has 1 to {self._board.cpu.cores}")

    def _indices(self, point: Mapping[str, float]) -> tuple[int, int, int]:
        if set(point) - _BESIDE_CLOCKS != set(KNOBS):
            raise InputError(f"{point} must name {', '.join(KNOBS)}")
        self._check_cores(point.get(CPU_CORES, self._scene.cores))
        cpu, gpu, emc = (self._level(knob, point[knob]) for knob in KNOBS)
        return cpu, gpu, emc
