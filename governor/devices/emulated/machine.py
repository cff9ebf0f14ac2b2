"""The state of an emulated board while time passes: clocks, energy, heat, sensors, governors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from governor.devices.emulated import governors
from governor.devices.emulated.hardware import COMPONENTS, Board
from governor.devices.emulated.physics import (
    LEAKAGE_E_FOLD_C,
    LEAKAGE_REFERENCE_C,
    Tables,
)
from governor.devices.emulated.room import Room
from governor.space import FloatArray

Degrees = TypeVar("Degrees", float, FloatArray)

CPU, GPU, EMC = 0, 1, 2
KNOBS = ("cpu_hz", "gpu_hz", "emc_hz")

TRANSITION_S = (0.001, 0.005, 0.008)
"""From a write until the new clock is in force, by knob (measured on Orin Nano: 1.0 to 1.4,
4.8 to 5.3 and 7.5 to 8.7 ms, arXiv 2606.16106)."""

COOL_DOWN_C = 3.0
"""Throttled clocks rise again this far below the trip (assumed)."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The tables as plain lists over flattened settings: fast to read one at a time."""

    latency_s: list[float]
    gpu_share: list[float]
    cpu_share: list[float]
    bytes_per_s: list[float]
    watts: tuple[list[list[float]], list[list[float]]]
    sums: tuple[list[float], list[float]]


@lru_cache(maxsize=32)
def _rows(table: Tables) -> _Rows:
    parts = (table.idle_w, table.busy_w)
    flat = [np.stack([w[..., part].ravel() for part in range(w.shape[-1])], -1) for w in parts]
    return _Rows(
        latency_s=table.latency_s.ravel().tolist(),
        gpu_share=table.gpu_share.ravel().tolist(),
        cpu_share=table.cpu_share.ravel().tolist(),
        bytes_per_s=table.bytes_per_s.ravel().tolist(),
        watts=(flat[0].tolist(), flat[1].tolist()),
        sums=(flat[0].sum(axis=-1).tolist(), flat[1].sum(axis=-1).tolist()),
    )


class Machine:
    """A board's state. Time moves only by :meth:`advance`; nothing here reads a clock.

    Attributes:
        now_s: the time up to which everything is accounted.
        energy_j: spent since the start, without sensor noise.
        rail_w: what the sensors show: each rail's mean over the last refresh interval.
        part_w: the same by component, without sensor noise.
        throttle_events: so far, by cause.
        throttled_s: seconds in which a clock was capped to protect the board.
        hottest_c: the die's highest temperature when the sensors were read.
    """

    def __init__(
        self,
        board: Board,
        table: Tables,
        *,
        seed: int = 0,
        now_s: float = 0.0,
        air_c: float = 25.0,
        sensor_noise: float = 0.005,
    ) -> None:
        self.board = board
        self._room: Room = lambda _time_s: air_c
        self._air_c = air_c
        self.now_s = now_s
        self.energy_j = 0.0
        self.throttle_events = {"thermal": 0, "over_current": 0}
        self.throttled_s, self.hottest_c = 0.0, -math.inf
        self._sensor_noise = sensor_noise
        self._rng = np.random.default_rng([seed, 3])
        self._levels = (
            list(board.cpu.levels_hz),
            list(board.gpu.levels_hz),
            list(board.memory.levels_hz),
        )
        memory = board.memory
        self._reachable = [
            memory.efficiency * memory.bytes_per_clock * level for level in memory.levels_hz
        ]
        self._lowest_cpu = min(
            range(len(self._levels[CPU])),
            key=lambda i: abs(self._levels[CPU][i] - board.cpu.min_hz),
        )
        top = [len(levels) - 1 for levels in self._levels]
        self._force, self._wanted, self._caps = list(top), list(top), list(top)
        self._bounds = self._free_bounds()
        self._pending: list[tuple[float, int, int]] = []
        self._sink_c, self._die_c = 0.0, 0.0
        self._sums = [0.0] * len(COMPONENTS)
        self._window_s = now_s
        self._tick_s = now_s
        self._busy_gpu_s = self._busy_cpu_s = self._moved = 0.0
        self._table: Tables | None = None
        self.use(table)
        self._show([0.0] * len(COMPONENTS))
        self._schedule()

    def use(self, table: Tables) -> None:
        """From now on, run the workload of ``table``."""
        if table is self._table:
            return
        self._table = table
        self._row_data = _rows(table)
        self._gpu_leak = table.gpu_leak_w.tolist()
        self._cpu_leak = table.cpu_leak_w.tolist()
        self._locate()

    # -- settings -------------------------------------------------------------------------

    @property
    def settings(self) -> tuple[int, int, int]:
        """Levels of CPU, GPU and EMC clock as the kernel reports them."""
        cpu, gpu, emc = map(min, self._wanted, self._caps)
        return cpu, gpu, emc

    def settings_hz(self) -> list[float]:
        """CPU, GPU and EMC clocks as the kernel reports them."""
        return [levels[index] for levels, index in zip(self._levels, self.settings, strict=True)]

    @property
    def throttled(self) -> tuple[int, int, int]:
        """By how many levels each knob is capped to protect the board."""
        cpu, gpu, emc = (
            len(levels) - 1 - cap for levels, cap in zip(self._levels, self._caps, strict=True)
        )
        return cpu, gpu, emc

    def limit(self, knob: int, low: int, high: int, at_s: float) -> None:
        """Keep one knob between two levels, written at ``at_s``.

        Its governor chooses between them; a change is in force after its transition time.
        """
        if not self._governed():
            self._restart_governors()
        self._bounds[knob] = (low, high)
        self._want(knob, self._bounded(knob, self._wanted[knob]), at_s)
        self._schedule()

    def pin(self, knob: int, index: int, at_s: float) -> None:
        """Fix one knob at a level, written at ``at_s``; in force after its transition time."""
        self.limit(knob, index, index, at_s)

    def pins(self) -> dict[int, int]:
        """The knobs that are fixed, with their levels."""
        return {knob: low for knob, (low, high) in enumerate(self._bounds) if low == high}

    def unpin(self) -> None:
        """Give all knobs back to the kernel's governors."""
        if not self._governed():
            self._restart_governors()
        self._bounds = self._free_bounds()
        self._schedule()

    def place(self, indices: tuple[int, int, int], power_w: float) -> None:
        """Start from these levels, warmed up by so many watts for a long time."""
        self._wanted, self._force, self._pending = list(indices), list(indices), []
        self._sink_c = self.board.thermal.sink_c_per_w * power_w
        self._die_c = self.board.thermal.die_c_per_w * power_w
        self._locate()
        parts = self._row_data.watts[1][self._row]
        share = power_w / sum(parts)
        self._show([share * part for part in parts])
        self._schedule()

    def cool_down(self) -> None:
        """Be as cold as the air."""
        self._sink_c = self._die_c = 0.0

    @property
    def indices(self) -> tuple[int, int, int]:
        """Levels in force, by knob."""
        return (self._force[0], self._force[1], self._force[2])

    @property
    def latency_s(self) -> float:
        """Mean time of one inference at the clocks in force."""
        return self._row_data.latency_s[self._row]

    @property
    def row(self) -> int:
        """The flat index of the setting in force."""
        return self._row

    @property
    def next_event_s(self) -> float:
        """Nothing changes before this time."""
        return self._next_s

    @property
    def air_c(self) -> float:
        """Temperature of the air around it."""
        return self._air_c

    def stand_in(self, room: Room) -> None:
        """From now on, it stands in this room; it keeps its own temperature, and follows slowly."""
        self._room = room
        self._breathe()

    def _breathe(self) -> None:
        air_c = self._room(self.now_s)
        self._sink_c -= air_c - self._air_c
        self._air_c = air_c

    @property
    def die_c(self) -> float:
        """Temperature of the die."""
        return self.air_c + self._sink_c + self._die_c

    @property
    def board_c(self) -> float:
        """Temperature of the heat sink and the circuit board around it."""
        return self.air_c + self._sink_c

    def power_w(self, busy: bool) -> float:
        """Module power now, without sensor noise."""
        heat = math.exp((self.die_c - LEAKAGE_REFERENCE_C) / LEAKAGE_E_FOLD_C)
        leak = self._gpu_leak[self._force[GPU]] + self._cpu_leak[self._force[CPU]]
        cold = self._row_data.sums[busy][self._row]
        return (cold + leak * heat) * (1 + self.board.loss)

    # -- time -----------------------------------------------------------------------------

    def advance(self, until_s: float, busy: bool) -> None:
        """Let time pass up to ``until_s``, with an inference running or not."""
        while self.now_s < until_s:
            stop_s = min(until_s, self._next_s)
            self._integrate(stop_s - self.now_s, busy)
            self.now_s = stop_s
            if stop_s >= self._next_s:
                self._happen()

    def correct(self, seconds: float) -> None:
        """Account ``seconds`` that were taken for idle as busy after all (shadow mode)."""
        row = self._row
        idle, busy = self._row_data.watts[0][row], self._row_data.watts[1][row]
        for part in range(len(COMPONENTS)):
            self._sums[part] += (busy[part] - idle[part]) * seconds
        extra = self._row_data.sums[1][row] - self._row_data.sums[0][row]
        self.energy_j += extra * (1 + self.board.loss) * seconds
        self._sums[-1] += extra * self.board.loss * seconds
        self._busy_gpu_s += self._row_data.gpu_share[row] * seconds
        self._busy_cpu_s += self._row_data.cpu_share[row] * seconds
        self._moved += self._row_data.bytes_per_s[row] * seconds

    def _integrate(self, seconds: float, busy: bool) -> None:
        row, rows, board = self._row, self._row_data, self.board
        heat = math.exp((self.die_c - LEAKAGE_REFERENCE_C) / LEAKAGE_E_FOLD_C)
        gpu_leak = self._gpu_leak[self._force[GPU]] * heat
        cpu_leak = self._cpu_leak[self._force[CPU]] * heat
        total = rows.sums[busy][row] + gpu_leak + cpu_leak
        gpu, cpu, soc, dram, rest = rows.watts[busy][row]
        sums = self._sums
        sums[0] += (gpu + gpu_leak) * seconds
        sums[1] += (cpu + cpu_leak) * seconds
        sums[2] += soc * seconds
        sums[3] += dram * seconds
        sums[4] += (rest + board.loss * total) * seconds
        power = total * (1 + board.loss)
        self.energy_j += power * seconds
        thermal = board.thermal
        sink, die = thermal.sink_c_per_w * power, thermal.die_c_per_w * power
        self._sink_c = sink + (self._sink_c - sink) * math.exp(-seconds / thermal.sink_s)
        self._die_c = die + (self._die_c - die) * math.exp(-seconds / thermal.die_s)
        if busy:
            self._busy_gpu_s += rows.gpu_share[row] * seconds
            self._busy_cpu_s += rows.cpu_share[row] * seconds
            self._moved += rows.bytes_per_s[row] * seconds

    def _happen(self) -> None:
        """What is due at ``now_s``: transitions, governors, sensors, throttling."""
        now = self.now_s
        for due_s, knob, index in self._pending:
            if due_s <= now:
                self._force[knob] = index
        self._pending = [entry for entry in self._pending if entry[0] > now]
        if now >= self._window_s + self.board.sensor_refresh_s:
            self._refresh()
        if self._governed() and now >= self._tick_s + governors.INTERVAL_S:
            self._govern()
        self._locate()
        self._schedule()

    def _locate(self) -> None:
        cpu, gpu, emc = self._force
        self._row = (cpu * len(self._levels[GPU]) + gpu) * len(self._levels[EMC]) + emc

    def _schedule(self) -> None:
        times = [self._window_s + self.board.sensor_refresh_s]
        times += [entry[0] for entry in self._pending]
        if self._governed():
            times.append(self._tick_s + governors.INTERVAL_S)
        self._next_s = min(times)

    def _free_bounds(self) -> list[tuple[int, int]]:
        """What the kernel's governors may choose from when nobody has limited them."""
        cpu, gpu, emc = (len(levels) - 1 for levels in self._levels)
        return [(self._lowest_cpu, cpu), (0, gpu), (0, emc)]

    def _restart_governors(self) -> None:
        """They decide on what they see from now on, one interval from now."""
        self._tick_s = self.now_s
        self._busy_gpu_s = self._busy_cpu_s = self._moved = 0.0

    def _governed(self) -> bool:
        """Whether a governor has anything to choose."""
        return any(low != high for low, high in self._bounds)

    def _bounded(self, knob: int, index: int) -> int:
        low, high = self._bounds[knob]
        return min(max(index, low), high)

    def _want(self, knob: int, index: int, at_s: float) -> None:
        before = min(self._wanted[knob], self._caps[knob])
        self._wanted[knob] = index
        self._move(knob, before, at_s)

    def _move(self, knob: int, before: int, at_s: float) -> None:
        after = min(self._wanted[knob], self._caps[knob])
        if after != before:
            self._pending.append((at_s + TRANSITION_S[knob], knob, after))

    def _cap(self, knob: int, step: int) -> bool:
        """Move a throttling cap by one level; whether there was one to move to."""
        before, top = self._caps[knob], len(self._levels[knob]) - 1
        wanted = min(self._wanted[knob], before)
        self._caps[knob] = min(max((wanted if step < 0 else before) + step, 0), top)
        self._move(knob, wanted, self.now_s)
        return self._caps[knob] != before

    def _govern(self) -> None:
        """One decision of each of the kernel's governors, within what it may choose."""
        now = self.now_s
        seconds = now - self._tick_s
        self._tick_s = now
        load, use = self._busy_gpu_s / seconds, self._busy_cpu_s / seconds
        moved = self._moved / seconds
        self._busy_gpu_s = self._busy_cpu_s = self._moved = 0.0
        cpu, gpu, _ = self._force
        could = self.board.gpu.bytes_per_clock * self._levels[GPU][gpu]
        choices = (
            governors.schedutil(self._levels[CPU], cpu, use),
            governors.podgov(self._levels[GPU], gpu, load),
            governors.bandwidth_manager(self._reachable, moved, could),
        )
        for knob, index in enumerate(choices):
            self._want(knob, self._bounded(knob, index), now)

    def _refresh(self) -> None:
        """New sensor readings: the mean of the interval that ends now; then protect the board."""
        seconds = self.now_s - self._window_s
        means = [total / seconds for total in self._sums]
        self._sums = [0.0] * len(COMPONENTS)
        self._window_s = self.now_s
        self._show(means)
        self._breathe()
        self.hottest_c = max(self.hottest_c, self.die_c)
        self.throttled_s += seconds if any(self.throttled) else 0.0
        thermal, power = self.board.thermal, sum(means)
        hot, strong = self.die_c > thermal.passive_c, power > thermal.power_cap_w
        if hot or strong:
            self.throttle_events["thermal" if hot else "over_current"] += 1
            self._cap(CPU, -1)
            self._cap(GPU, -1)
        elif self.die_c < thermal.passive_c - COOL_DOWN_C and power < 0.9 * thermal.power_cap_w:
            self._cap(CPU, +1)
            self._cap(GPU, +1)

    def _show(self, means: list[float]) -> None:
        """Let the sensors show these mean powers of the components."""
        self.part_w = by_part = dict(zip(COMPONENTS, means, strict=True))
        rails = {
            rail: sum(by_part[part] for part in parts)
            * (1 + self._sensor_noise * float(self._rng.standard_normal()))
            for rail, parts in self.board.rails.items()
        }
        if self.board.total_rail not in rails:
            rails[self.board.total_rail] = sum(rails.values())
        self.rail_w = rails

    def temperatures_c(self) -> dict[str, float]:
        """By zone."""
        return _zones_c(self.board_c, self._die_c)

    def settled_c(self, power_w: FloatArray) -> dict[str, FloatArray]:
        """By zone, once warm at so many watts and in the air that there is now."""
        thermal = self.board.thermal
        return _zones_c(self.air_c + thermal.sink_c_per_w * power_w, thermal.die_c_per_w * power_w)


def _zones_c(board_c: Degrees, die_c: Degrees) -> dict[str, Degrees]:
    """By zone, with the die so much warmer than the board."""
    return {"cpu": board_c + 0.8 * die_c, "gpu": board_c + die_c, "tj": board_c + die_c}
