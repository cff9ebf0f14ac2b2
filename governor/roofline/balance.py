"""Where a board turns from memory-bound to compute-bound, in time and in energy.

All for one kind of arithmetic at given clocks, at the hardware's peak and full bandwidth: what a
framework reaches of them is left out here. An intensity is FLOP a byte. The energy roofline:
Choi, Bedard, Fowler, Vuduc, IPDPS 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.roofline.board import Board, Mode, Stack
from governor.roofline.prediction import (
    Clocks,
    bandwidth,
    idle_power,
    peak_per_clock,
    predict,
    runs_in,
    standing_power,
)
from governor.roofline.work import Layer, Work
from governor.space import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """The two rooflines at one setting, for one kind of arithmetic.

    Attributes:
        precision: of the arithmetic.
        flop_per_s, bytes_per_s: the peak and the bandwidth.
        j_per_flop, j_per_byte: at this clock's voltage.
        standing_w: drawn whatever it does.
        limit_w: the module draws no more.
    """

    precision: str
    flop_per_s: float
    bytes_per_s: float
    j_per_flop: float
    j_per_byte: float
    standing_w: float
    limit_w: float

    @property
    def ridge(self) -> float:
        """Time balance: below this intensity memory is the limit, above it arithmetic."""
        return self.flop_per_s / self.bytes_per_s

    @property
    def energy_balance(self) -> float:
        """Where a FLOP's own energy is that of its bytes, standing power left out."""
        return self.j_per_byte / self.j_per_flop

    @property
    def half_efficiency(self) -> float:
        """Where half of the best FLOP a joule is reached, standing power included."""
        best = self.j_per_flop + self.standing_w / self.flop_per_s
        bound_by_arithmetic = self.j_per_byte / best
        if bound_by_arithmetic >= self.ridge:
            return bound_by_arithmetic
        by_memory = self.j_per_byte + self.standing_w / self.bytes_per_s
        return by_memory / (2 * best - self.j_per_flop)

    def flop_rate(self, intensity: FloatArray) -> FloatArray:
        """FLOP a second that can be reached at each intensity, within the power limit."""
        roof = np.minimum(self.flop_per_s, intensity * self.bytes_per_s)
        switched_j = self.j_per_flop + self.j_per_byte / intensity
        return np.minimum(roof, max(self.limit_w - self.standing_w, 0.0) / switched_j)

    def flop_per_joule(self, intensity: FloatArray) -> FloatArray:
        """FLOP a joule that can be reached at each intensity."""
        rate = self.flop_rate(intensity)
        per_flop = self.j_per_flop + self.j_per_byte / intensity
        return 1 / (per_flop + self.standing_w / rate)


def roof(board: Board, stack: Stack, layer: Layer, mode: Mode) -> Roof:
    """The rooflines at the mode's caps for arithmetic such as ``layer``'s on that stack."""
    clocks = Clocks.at(mode)
    v2 = float(board.gpu.voltage.squared(clocks.gpu_hz)[0])
    precision = runs_in(layer, board, stack)
    energy = board.energy
    return Roof(
        precision=precision,
        flop_per_s=peak_per_clock(layer, board, stack) * mode.gpu_hz * mode.gpu_share,
        bytes_per_s=float(bandwidth(board, clocks.gpu_hz, clocks.emc_hz, clocks.gpu_share)[0]),
        j_per_flop=v2 * energy.j_per_flop_of(precision),
        j_per_byte=v2 * energy.gpu_j_per_byte + energy.memory_j_per_byte,
        standing_w=float(standing_power(board, clocks)[0]),
        limit_w=board.limit_w,
    )


def race_until_hz(board: Board, stack: Stack, work: Work, mode: Mode, *, gated: bool) -> float:
    """The GPU clock up to which racing to idle wins over running slower.

    Below it a slower clock costs more standing energy than its voltage saves; above it the
    clock is better lowered and the inference stretched. CPU and memory stay at the mode's caps.

    Args:
        gated: the board is switched off in between (or always busy), so that idling costs
            nothing; otherwise it idles at :func:`governor.roofline.prediction.idle_power`.
    """
    gpu_hz = np.array([hz for hz in board.gpu.levels_hz if hz <= mode.gpu_hz])
    clocks = Clocks(
        cpu_hz=np.full_like(gpu_hz, mode.cpu_hz),
        gpu_hz=gpu_hz,
        emc_hz=np.full_like(gpu_hz, mode.emc_hz),
        cores=mode.cores,
        gpu_share=mode.gpu_share,
    )
    found = predict(board, stack, work, clocks)
    idle_w = 0.0 if gated else idle_power(board, mode.cores)
    return float(gpu_hz[np.argmin(found.energy_j - idle_w * found.time_s)])
