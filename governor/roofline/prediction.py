"""Time and energy of a network on a board, from its layers and the board's constants alone.

Nothing here is measured or fitted to trials: that is what ``time.py``, ``energy.py`` and
``fit.py`` do, with one aggregate roofline of few parameters. This one adds up the layers:

- **time**: the GPU takes the longer of arithmetic and data movement for each layer, and some
  clocks for each kernel; the CPU launches the kernels meanwhile; the longer stream counts, and
  what the CPU does alone is added (Williams, Waterman, Patterson, CACM 52(4), 2009);
- **energy**: ``eps_flop(V) W + eps_mop(V) Q + pi0(f) T`` (Choi, Bedard, Fowler, Vuduc, IPDPS
  2013), with a voltage that has a floor;
- **power** is energy over time, and never above the module's limit: there it takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.roofline.board import Board, Mode, Stack, Unit
from governor.roofline.work import PRECISIONS, Layer, Work
from governor.space import BoolArray, FloatArray

SHARPNESS = 4.0
"""Exponent with which two streams that overlap add up: 1 their sum, infinity the longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Clocks to predict for, ``n`` settings.

    Attributes:
        cpu_hz, gpu_hz, emc_hz: shape ``(n,)``.
        cores: CPU cores that are online.
        gpu_share: of the GPU that is not power-gated.
    """

    cpu_hz: FloatArray
    gpu_hz: FloatArray
    emc_hz: FloatArray
    cores: int
    gpu_share: float = 1.0

    @classmethod
    def at(cls, mode: Mode) -> Clocks:
        """One setting: all clocks at the mode's caps."""
        return cls(
            cpu_hz=np.array([mode.cpu_hz]),
            gpu_hz=np.array([mode.gpu_hz]),
            emc_hz=np.array([mode.emc_hz]),
            cores=mode.cores,
            gpu_share=mode.gpu_share,
        )

    @classmethod
    def within(cls, mode: Mode, board: Board) -> Clocks:
        """All settings that the mode allows."""
        levels = (
            [hz for hz in levels_hz if hz <= cap]
            for levels_hz, cap in (
                (board.cpu.levels_hz, mode.cpu_hz),
                (board.gpu.levels_hz, mode.gpu_hz),
                (board.memory.levels_hz, mode.emc_hz),
            )
        )
        cpu, gpu, emc = (axis.ravel() for axis in np.meshgrid(*levels, indexing="ij"))
        return cls(cpu_hz=cpu, gpu_hz=gpu, emc_hz=emc, cores=mode.cores, gpu_share=mode.gpu_share)

    def __len__(self) -> int:
        return len(self.gpu_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is predicted at ``n`` settings; all shapes are ``(n,)``, all figures per batch.

    Attributes:
        time_s, energy_j: of one batch; infinite where the limit leaves nothing to work with.
        launch_s: of the CPU's launches, which overlap with the GPU's work.
        gpu_s: of the GPU's work.
        capped: where the module's limit slows it down.
    """

    time_s: FloatArray
    energy_j: FloatArray
    launch_s: FloatArray
    gpu_s: FloatArray
    capped: BoolArray

    @property
    def power_w(self) -> FloatArray:
        """Mean power while it works."""
        return self.energy_j / self.time_s


def predict(board: Board, stack: Stack, work: Work, clocks: Clocks) -> Prediction:
    """Time and energy of one batch of ``work`` at each of the clocks."""
    # Many settings share their GPU and memory clock: the layers are added up once for each.
    pairs = np.stack((clocks.gpu_hz, clocks.emc_hz), axis=1)
    distinct, which = np.unique(pairs, axis=0, return_inverse=True)
    per_layer = layer_seconds(board, stack, work, distinct[:, 0], distinct[:, 1], clocks.gpu_share)
    gpu_s = per_layer.sum(axis=1)[which.ravel()]
    launch_s = work.kernels * stack.launch_cycles / clocks.cpu_hz
    time_s = stack.serial_cycles / clocks.cpu_hz + _overlap(gpu_s, launch_s)

    in_gpu, in_memory = _switched(board, stack, work)
    v2 = board.gpu.voltage.squared(clocks.gpu_hz)
    switched_j = v2 * in_gpu.sum() + in_memory.sum()
    power_w = standing_power(board, clocks)
    capped = switched_j + power_w * time_s > board.limit_w * time_s
    with np.errstate(divide="ignore"):
        slowed_s = switched_j / np.maximum(board.limit_w - power_w, 0.0)
    time_s = np.where(capped, slowed_s, time_s)
    return Prediction(
        time_s=time_s,
        energy_j=switched_j + power_w * time_s,
        launch_s=launch_s,
        gpu_s=gpu_s,
        capped=capped,
    )


def layer_seconds(
    board: Board,
    stack: Stack,
    work: Work,
    gpu_hz: FloatArray,
    emc_hz: FloatArray,
    gpu_share: float = 1.0,
) -> FloatArray:
    """GPU seconds of each of ``m`` layers at each of ``n`` clocks, shape ``(n, m)``."""
    kernels = np.array([layer.kernels for layer in work.layers])
    computing, moving = _streams(board, stack, work, gpu_hz, emc_hz, gpu_share)
    return _overlap(computing, moving) + kernels * stack.kernel_cycles / gpu_hz[:, None]


def layer_joules(board: Board, stack: Stack, work: Work, mode: Mode) -> FloatArray:
    """Joules of each layer at the mode's caps, with standing power in its GPU time, ``(m,)``."""
    clocks = Clocks.at(mode)
    seconds = layer_seconds(board, stack, work, clocks.gpu_hz, clocks.emc_hz, clocks.gpu_share)[0]
    in_gpu, in_memory = _switched(board, stack, work)
    switched = board.gpu.voltage.squared(clocks.gpu_hz) * in_gpu + in_memory
    return switched + standing_power(board, clocks)[0] * seconds


def _switched(board: Board, stack: Stack, work: Work) -> tuple[FloatArray, FloatArray]:
    """Joules that the layers' FLOP and bytes cost, in the GPU at its voltage floor and in memory.

    Both of shape ``(m,)``; those in the GPU grow with its voltage squared.
    """
    energy = board.energy
    flop = np.array([layer.flop for layer in work.layers])
    moved = moved_bytes(work, stack)
    per_flop = [energy.j_per_flop_of(runs_in(layer, board, stack)) for layer in work.layers]
    return flop * per_flop + energy.gpu_j_per_byte * moved, energy.memory_j_per_byte * moved


def layer_limits(
    board: Board, stack: Stack, work: Work, mode: Mode
) -> tuple[FloatArray, FloatArray]:
    """Seconds of arithmetic and of data movement of each layer at the mode's caps, ``(m,)``."""
    clocks = Clocks.at(mode)
    computing, moving = _streams(board, stack, work, clocks.gpu_hz, clocks.emc_hz, clocks.gpu_share)
    return computing[0], moving[0]


def _streams(
    board: Board,
    stack: Stack,
    work: Work,
    gpu_hz: FloatArray,
    emc_hz: FloatArray,
    gpu_share: float,
) -> tuple[FloatArray, FloatArray]:
    """Seconds of arithmetic and of data movement, as if alone; shapes ``(n, m)``."""
    layers = work.layers
    reached = np.array([bandwidth_share(layer, stack) for layer in layers])
    flop = np.array([layer.flop for layer in layers])
    moved = moved_bytes(work, stack)
    per_clock = np.array([reached_per_clock(layer, board, stack) for layer in layers])
    computing = flop / per_clock / (gpu_share * gpu_hz[:, None])
    moving = moved / reached / bandwidth(board, gpu_hz, emc_hz, gpu_share)[:, None]
    return computing, moving


def bandwidth(
    board: Board, gpu_hz: FloatArray, emc_hz: FloatArray, gpu_share: float = 1.0
) -> FloatArray:
    """Bytes a second: the lower of what the GPU's clock and the memory's allow."""
    by_gpu = board.gpu.bytes_per_clock * gpu_share * gpu_hz
    by_memory = np.interp(emc_hz, board.memory.levels_hz, board.memory.bytes_per_s)
    return np.minimum(by_gpu, by_memory)


def standing_power(board: Board, clocks: Clocks, celsius: float | None = None) -> FloatArray:
    """Watts drawn for as long as it works, whatever it does: pi0, by the clocks.

    ``celsius``: of the chip; by default that at which the board's leakage is stated.
    """
    cpu, gpu, leakage = board.cpu, board.gpu, board.leakage
    warmth = 1.0 if celsius is None else leakage.factor(celsius)
    cpu_v2, gpu_v2 = cpu.voltage.squared(clocks.cpu_hz), gpu.voltage.squared(clocks.gpu_hz)
    cores_w_per_hz = cpu.busy_w_per_hz + cpu.core_w_per_hz * clocks.cores
    return (
        board.energy.base_w
        + np.interp(clocks.emc_hz, board.memory.levels_hz, board.memory.w)
        + (cores_w_per_hz * clocks.cpu_hz + warmth * leakage.cpu_w) * cpu_v2
        + (gpu.w_per_hz * clocks.gpu_hz + warmth * leakage.gpu_w) * clocks.gpu_share * gpu_v2
    )


def idle_power(board: Board, cores: int) -> float:
    """Watts between inferences, with every clock at its lowest."""
    cpu = board.cpu
    cores_w = cpu.core_w_per_hz * cores * cpu.levels_hz[0]
    leaks_w = board.leakage.cpu_w + board.leakage.gpu_w
    return board.energy.base_w + board.memory.w[0] + cores_w + leaks_w


def kind_of(layer: Layer) -> str:
    """Which of ``KINDS`` it is, by what share of the peak such work reaches."""
    if layer.unit != "matmul":
        return "vector"
    return "conv" if layer.operator.lower().startswith("conv") else "gemm"


def unit_of(layer: Layer) -> Unit:
    """Which units do its arithmetic, where the board has both."""
    return "tensor" if layer.unit == "matmul" else "cuda"


def peak_per_clock(layer: Layer, board: Board, stack: Stack) -> float:
    """FLOP a GPU clock of the units that run it, at their peak."""
    return board.gpu.flop_per_clock(runs_in(layer, board, stack), unit_of(layer))


def reached_per_clock(layer: Layer, board: Board, stack: Stack) -> float:
    """FLOP a GPU clock that the stack reaches on such work."""
    return stack.efficiency[kind_of(layer)] * peak_per_clock(layer, board, stack)


def moved_bytes(work: Work, stack: Stack) -> FloatArray:
    """Bytes that each layer moves, ``(m,)``: as counted, and what products read again."""
    again = stack.reread_per_flop
    return np.array(
        [
            one.bytes + again * one.flop * PRECISIONS[one.precision] * (one.unit == "matmul")
            for one in work.layers
        ]
    )


def bandwidth_share(layer: Layer, stack: Stack) -> float:
    """What such work reaches of the bandwidth."""
    return stack.bandwidth[kind_of(layer)]


def runs_in(layer: Layer, board: Board, stack: Stack) -> str:
    """The precision it really runs in: cuDNN takes TF32 for FP32 convolutions and recurrence."""
    recurrent = layer.operator.lower().startswith(("recurrent", "lstm", "gru", "rnn"))
    tf32 = (
        layer.precision == "fp32"
        and layer.unit == "matmul"
        and (recurrent or kind_of(layer) == "conv")
        and stack.tf32_convolutions
        and "tf32" in board.gpu.tensor_flop_per_clock
    )
    return "tf32" if tf32 else layer.precision


def _overlap(one: FloatArray, other: FloatArray) -> FloatArray:
    """Time of two streams that overlap, nearly the longer one; shapes broadcast."""
    longer, shorter = np.maximum(one, other), np.minimum(one, other)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    return longer * (1 + ratio**SHARPNESS) ** (1 / SHARPNESS)
