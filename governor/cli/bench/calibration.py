"""What ``governor calibrate`` states of emulated boards, against the emulation's own constants.

The calibration sees rates, watts and temperatures alone, as on a real board; only here are they
set beside what made them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from governor.calibration.file import TOLD, numbers
from governor.cli.replay import result_console, result_table
from governor.progress import with_progress

if TYPE_CHECKING:
    from governor.devices.emulated.hardware import Board
    from governor.roofline.board import Constant

BOARDS = ("nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin")
"""Those whose physics are calibrated on published figures."""
SEEDS = 3

_MEGA, _GIGA = 1e6, 1e9


@dataclass(frozen=True, slots=True)
class Stated:
    """One number of a calibration.

    Attributes:
        constant: dotted name in the board file; a list's numbers share one.
        truth: the emulation's.
        low, high: its interval.
    """

    board: str
    seed: int
    constant: str
    truth: float
    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether it is stated as a number; otherwise its interval is."""
        return max(self.high - self.value, self.value - self.low) <= TOLD * self.value

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return self.value / self.truth - 1

    @property
    def half(self) -> float:
        """Of the interval, relative to the truth."""
        return (self.high - self.low) / 2 / self.truth

    @property
    def holds(self) -> bool:
        """Whether what is stated is true."""
        return abs(self.error) <= TOLD if self.told else self.low <= self.truth <= self.high


def measure(boards: Sequence[str] = BOARDS, seeds: int = SEEDS) -> list[Stated]:
    """Calibrate each board with noise of each seed."""
    from governor.cli.calibrate import calibrate_emulated

    each = list(product(boards, range(seeds)))
    return [
        one
        for board, seed in with_progress(each, len(each), "Calibrating")
        for one in compare(board, seed, calibrate_emulated(board, seed))
    ]


def compare(name: str, seed: int, constants: Mapping[str, Constant]) -> Iterator[Stated]:
    """Each number that a calibration states, beside the emulation's."""
    from governor.devices.emulated.hardware import load_board

    lowest_w = constants["memory.w"].value[0]
    for key, truths in truth(load_board(name)).items():
        stated = numbers(constants[key])
        if key == "memory.w":  # what it draws above its lowest clock
            stated = [tuple(each - lowest_w for each in one) for one in stated[1:]]
        elif key == "energy.base_w":  # not told from the memory's lowest
            stated = [tuple(each + lowest_w for each in one) for one in stated]
        for true, (value, low, high) in zip(truths, stated, strict=True):
            yield Stated(name, seed, key, true, value, low, high)


def truth(board: Board) -> dict[str, list[float]]:
    """What a perfect calibration finds: the emulation's constants as a board file has them.

    A file's watts are those of the module's input, so they include the regulators' loss.
    """
    from governor.devices.emulated.physics import LEAKAGE_E_FOLD_C

    cpu, gpu, memory, losses = board.cpu, board.gpu, board.memory, 1 + board.loss
    memory_w = losses * (np.array(memory.soc_w) + np.array(memory.dram_w))
    bus = memory.efficiency * memory.bytes_per_clock * np.array(memory.levels_hz) / _GIGA
    memory_pj = memory.soc_pj_per_byte + memory.dram_pj_per_byte
    units = {each: "tensor" if rate > 2 * gpu.flop_per_clock["fp32"] else "cuda"
             for each, rate in gpu.flop_per_clock.items()}  # fmt: skip
    return {
        "cpu.voltage": [cpu.floor_hz / _MEGA, 1, cpu.levels_hz[-1] / _MEGA, cpu.v_top],
        "cpu.busy_w_per_ghz": [losses * cpu.core_w_per_ghz * cpu.spin_share],  # it waits
        "cpu.core_w_per_ghz": [losses * cpu.idle_w_per_ghz / cpu.cores],
        "gpu.voltage": [gpu.floor_hz / _MEGA, 1, gpu.levels_hz[-1] / _MEGA, gpu.v_top],
        "gpu.w_per_ghz": [losses * gpu.busy_w_per_ghz],
        "gpu.bytes_per_clock": [gpu.bytes_per_clock],
        **{f"gpu.{units[each]}_flop_per_clock.{each}": [rate]
           for each, rate in gpu.flop_per_clock.items()},
        "memory.gb_per_s": bus.tolist(),
        "memory.w": (memory_w - memory_w[0])[1:].tolist(),
        "energy.base_w": [losses * board.base_w + float(memory_w[0])],
        "energy.gpu_pj_per_byte": [losses * gpu.pj_per_byte],
        "energy.memory_pj_per_byte": [losses * memory_pj],
        **{f"energy.pj_per_flop.{each}": [losses * pj] for each, pj in gpu.pj_per_flop.items()},
        "leakage.cpu_w": [losses * cpu.leakage_w],
        "leakage.gpu_w": [losses * gpu.leakage_w],
        "leakage.per_degree": [1 / LEAKAGE_E_FOLD_C],
    }  # fmt: skip


def show(outcome: Sequence[Stated]) -> None:
    """A row for each constant, a column for each board."""
    boards = list(dict.fromkeys(one.board for one in outcome))
    seeds = len({one.seed for one in outcome})
    table = result_table(
        f"Calibrated and the emulation's own constants, %, furthest of {seeds} seeds",
        "constant", *(name.replace("-", "-\n") for name in boards),
    )  # fmt: skip
    for constant in dict.fromkeys(one.constant for one in reversed(outcome)):
        mine = [[one for one in outcome if (one.constant, one.board) == (constant, board)]
                for board in boards]  # fmt: skip
        table.add_row(constant.replace("_per_", "/"), *map(_cell, mine))
    console = result_console()
    console.print(table)
    missed = [one for one in outcome if not one.holds]
    intervals = sum(not one.told for one in outcome)
    console.print(
        "0.3: a number, and so far off; ±15: that wide an interval around the truth; open: at\n"
        f"least what is stated. {len(outcome)} constants, {intervals} as intervals; "
        f"{len(missed)} untrue.",
        highlight=False,
    )
    for one in missed:
        console.print(f"untrue: {one}", highlight=False)


def _cell(stated: Sequence[Stated]) -> str:
    """The furthest number, and the widest interval; an untrue one is marked."""
    if not stated:
        return ""
    parts: list[str] = []
    if told := [abs(one.error) for one in stated if one.told]:
        parts.append(f"{100 * max(told):.1f}")
    wide = [one.half for one in stated if not one.told]
    if closed := [half for half in wide if math.isfinite(half)]:
        parts.append(f"±{100 * max(closed):.0f}")
    if math.inf in wide:
        parts.append("open")
    return "\n".join(parts) + "!" * (not all(one.holds for one in stated))


def document(outcome: Sequence[Stated]) -> list[dict[str, object]]:
    """Every number as JSON has it; an interval without an end has none there."""
    return [
        {
            **{key: None if value == math.inf else value for key, value in asdict(one).items()},
            "told": one.told,
            "holds": one.holds,
        }
        for one in outcome
    ]
