"""Time and power of a workload on a board, over the whole lattice of clocks.

Time of one kernel is a roofline: about the longer of computing and moving its bytes, where
bandwidth is the smaller of what the GPU can ask for at its clock and what the memory can give at
its own. The GPU's time is the sum over kernels. The CPU launches kernels ahead of the GPU, so an
inference lasts about as long as the slower of the two streams, plus what only the CPU does.

Power follows C V² f for clocks and V² for work, on a voltage curve with a floor; leakage rises
with voltage and temperature; memory and SoC cost their clock and every byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.devices.emulated.hardware import Board
from governor.devices.emulated.workload import BYTES, Kernels, Workload, kernels
from governor.space import FloatArray

STREAM_SHARPNESS = 4.0
"""The launch and GPU streams wait for each other near the balance: a p-norm, not a sharp maximum.
Derived: Pagoda's ResNet50 at batch 4 takes 15 ms of launching and 12 to 14 ms on the GPU, and
lasts 19 ms (arXiv 2509.20189, notebook)."""

ROOFLINE_SHARPNESS = 3.0
"""Computing and moving overlap within a kernel, not perfectly: a p-norm. Derived: VGG19 on TX2
takes 51 ms of computing and 55 ms (EMC 1866 MHz) or 97 ms (1062 MHz) of moving, and lasts 67 ms
and 99 ms (github thynics/jetson_dvfs)."""

LEAKAGE_E_FOLD_C = 58.0
"""Leakage doubles every 40 °C (assumed, usual for FinFET and planar parts at these voltages)."""

LEAKAGE_REFERENCE_C = 50.0

CONTENTION_WEIGHT = 0.65
"""What of another process's memory traffic is lost to this one. Derived: 24.6 GB/s of CPU traffic
slowed the memory probe by 34 % at 61 GB/s (jetson-latency-lab, arXiv 2606.16106)."""

CORE_SHARE = 0.7
"""Of what all waiting cores draw and leak, the part that goes with each core that is turned off;
the rest is the clusters' (assumed, no published figure tells them apart)."""

SYSTEM_CORES = 0.1
"""What the system itself takes of a core: interrupts, the sensors' reader, the governor (assumed).
A single core has to share itself; of several, one is free for the inference."""


@dataclass(frozen=True, slots=True)
class Contention:
    """What another process takes.

    Attributes:
        cpu_cores: busy cores.
        gpu_share: of the GPU's time, in [0, 1).
        memory_bytes_per_s: of memory traffic.
    """

    cpu_cores: float = 0.0
    gpu_share: float = 0.0
    memory_bytes_per_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Tables:
    """One workload on one board; ``c``, ``g``, ``e`` are the numbers of CPU, GPU, EMC levels.

    Attributes:
        latency_s: shape ``(c, g, e)``, of one inference (one batch).
        gpu_share, cpu_share: shape ``(c, g, e)``, busy share of the GPU and cores while it runs.
        bytes_per_s: shape ``(c, g, e)``, memory traffic while it runs.
        busy_w, idle_w: shape ``(c, g, e, 5)``, power by component without leakage and losses.
        gpu_leak_w: shape ``(g,)``, cpu_leak_w: shape ``(c,)``, leakage at the reference.
        items: in one inference.
    """

    latency_s: FloatArray
    gpu_share: FloatArray
    cpu_share: FloatArray
    bytes_per_s: FloatArray
    busy_w: FloatArray
    idle_w: FloatArray
    gpu_leak_w: FloatArray
    cpu_leak_w: FloatArray
    items: int


def bandwidth(board: Board, taken_bytes_per_s: float = 0.0) -> FloatArray:
    """Reachable memory bandwidth in bytes/s, shape ``(g, e)``."""
    by_gpu = board.gpu.bytes_per_clock * board.gpu.hz[:, None]
    memory = board.memory
    by_emc = memory.efficiency * memory.bytes_per_clock * np.array(memory.levels_hz)
    left = np.maximum(by_emc - CONTENTION_WEIGHT * taken_bytes_per_s, 0.2 * by_emc)
    return np.minimum(by_gpu, left[None, :])


def _precisions(board: Board, workload: Workload) -> dict[str, str]:
    """The precision that each kind of operation runs in on this board."""
    main = board.gpu.precision(workload.precision)
    gemm = board.gpu.precision(workload.gemm_precision or workload.precision)
    return {
        "conv": main,
        "winograd": main,
        "gemm": gemm,
        "probe": main,
        "depthwise": "fp32",  # no tensor cores: it has no reuse for them
        "memory": "fp32",
    }


_PLAIN = {"conv": "plain", "winograd": "plain", "gemm": "plain_gemm"}


def _flop_per_clock(board: Board, workload: Workload) -> dict[str, float]:
    """What wide operations of each kind reach."""
    efficiency = board.stacks[workload.framework].efficiency
    reached: dict[str, float] = {}
    for kind, precision in _precisions(board, workload).items():
        name = _PLAIN.get(kind, kind) if precision == "fp32" else kind
        share = efficiency.get(name, efficiency.get(kind, 1.0))
        reached[kind] = share * board.gpu.flop_per_clock[precision]
    return reached


_TILED = ("conv", "winograd", "gemm")


def traffic(board: Board, workload: Workload, work: Kernels) -> FloatArray:
    """Bytes that each kernel moves from and to memory, shape ``(n,)``.

    Weights are read once. Of activations, what fits the GPU's cache stays there: a kernel that
    touches ``a`` bytes of them moves ``a * a / (a + cache)``, times the framework's factor.
    Tiled products read their operands again for every tile, in proportion to their FLOP.
    """
    stack, size = board.stacks[workload.framework], BYTES[workload.precision]
    touched = work.activations * size
    missed = touched * touched / (touched + board.gpu.cache_bytes)
    tiled = work.flops * [kind in _TILED for kind in work.kinds]
    again = tiled * board.gpu.reread_per_kflop / 1e3 * size
    return missed * stack.traffic + work.weights * size + again


def gpu_seconds(
    board: Board, workload: Workload, work: Kernels, contention: Contention
) -> FloatArray:
    """GPU time of one inference, shape ``(g, e)``: the sum of the kernels' rooflines."""
    stack, gpu = board.stacks[workload.framework], board.gpu
    peak = _flop_per_clock(board, workload)
    cycles = work.flops / [peak[kind] for kind in work.kinds]
    cycles *= 1 + stack.narrow_channels / work.widths
    moved = traffic(board, workload, work)
    rate = bandwidth(board, contention.memory_bytes_per_s)
    computing = cycles[:, None] / gpu.hz[None, :]
    moving = moved[:, None, None] / rate[None, :, :]
    p = ROOFLINE_SHARPNESS
    each = (computing[:, :, None] ** p + moving**p) ** (1 / p)
    overhead = len(cycles) * stack.kernel_cycles / gpu.hz
    return (each.sum(axis=0) + overhead[:, None]) / (1 - contention.gpu_share)


def gpu_joules(board: Board, workload: Workload, work: Kernels) -> float:
    """Switching energy of one inference's arithmetic and data in the GPU, at its voltage floor."""
    gpu = board.gpu
    precisions = _precisions(board, workload)
    flops = work.flops * [gpu.pj_per_flop[precisions[kind]] for kind in work.kinds]
    moved = gpu.pj_per_byte * traffic(board, workload, work)
    return 1e-12 * float((flops + moved).sum())


def _components(*parts: FloatArray | float, shape: tuple[int, int, int]) -> FloatArray:
    return np.stack([np.broadcast_to(part, shape) for part in parts], axis=-1)


def tables(
    board: Board,
    workload: Workload,
    batch_size: int,
    contention: Contention | None = None,
    cores: int | None = None,
) -> Tables:
    """Everything about ``workload`` on ``board`` that depends on the clocks alone.

    ``cores``: that are online, all by default.
    """
    contention = contention or Contention()
    online = board.cpu.cores if cores is None else cores
    waiting = 1 - CORE_SHARE * (1 - online / board.cpu.cores)
    cpu, gpu, memory = board.cpu, board.gpu, board.memory
    stack = board.stacks[workload.framework]
    work = kernels(workload, batch_size)
    shape = (len(cpu.levels_hz), len(gpu.levels_hz), len(memory.levels_hz))

    crowding = max(1.0, (1 + SYSTEM_CORES + contention.cpu_cores) / online)
    launch_s = len(work.kinds) * stack.launch_cycles * crowding / cpu.hz
    serial_cycles = stack.serial_cycles + workload.host_cycles * batch_size
    serial_s = serial_cycles * crowding / cpu.hz
    on_gpu_s = gpu_seconds(board, workload, work, contention)
    p = STREAM_SHARPNESS
    overlapped_s = (launch_s[:, None, None] ** p + on_gpu_s[None] ** p) ** (1 / p)
    latency_s = serial_s[:, None, None] + overlapped_s

    gpu_share = np.minimum(on_gpu_s[None] / latency_s, 1.0)
    own_share = np.minimum((serial_s + launch_s)[:, None, None] / latency_s, 1.0)
    waits = 1 - own_share if stack.spins else np.zeros(shape)
    own_cores = own_share + cpu.spin_share * waits
    busy_cores = np.minimum(own_cores + contention.cpu_cores, online)
    moved = float(traffic(board, workload, work).sum())
    rate = moved / latency_s + contention.memory_bytes_per_s

    cpu_v2f = (cpu.volts**2 * cpu.hz / 1e9)[:, None, None]
    gpu_v2 = (gpu.volts**2)[None, :, None]
    gpu_v2f = gpu_v2 * (gpu.hz / 1e9)[None, :, None]
    other_gpu_w = contention.gpu_share * gpu.busy_w_per_ghz * gpu_v2f
    waiting_w_per_ghz = waiting * cpu.idle_w_per_ghz
    idle_cpu_w = (waiting_w_per_ghz + cpu.core_w_per_ghz * contention.cpu_cores) * cpu_v2f
    clocks_w = gpu.idle_w_per_ghz + (gpu.busy_w_per_ghz - gpu.idle_w_per_ghz) * gpu_share
    gpu_w = clocks_w * gpu_v2f + gpu_joules(board, workload, work) * gpu_v2 / latency_s
    cpu_w = (waiting_w_per_ghz + cpu.core_w_per_ghz * busy_cores) * cpu_v2f
    soc_w, dram_w = np.array(memory.soc_w), np.array(memory.dram_w)
    idle_rate = contention.memory_bytes_per_s
    soc_pj, dram_pj = memory.soc_pj_per_byte * 1e-12, memory.dram_pj_per_byte * 1e-12
    return Tables(
        latency_s=latency_s,
        gpu_share=gpu_share,
        cpu_share=own_share + waits,
        bytes_per_s=rate,
        busy_w=_components(
            gpu_w, cpu_w, soc_w + soc_pj * rate, dram_w + dram_pj * rate, board.base_w, shape=shape
        ),
        idle_w=_components(
            gpu.idle_w_per_ghz * gpu_v2f + other_gpu_w, idle_cpu_w, soc_w + soc_pj * idle_rate,
            dram_w + dram_pj * idle_rate, board.base_w, shape=shape,
        ),
        gpu_leak_w=gpu.leakage_w * gpu.volts**2,
        cpu_leak_w=waiting * cpu.leakage_w * cpu.volts**2,
        items=batch_size,
    )  # fmt: skip


def leakage_factor(temperature_c: FloatArray | float) -> FloatArray:
    """Leakage at this temperature over that at the reference."""
    return np.exp((np.asarray(temperature_c) - LEAKAGE_REFERENCE_C) / LEAKAGE_E_FOLD_C)


def steady_power(board: Board, cold_w: FloatArray, leak_w: FloatArray, air_c: float) -> FloatArray:
    """Module power in watts once warm: leakage and temperature have settled on each other.

    ``cold_w`` and ``leak_w`` have one shape: power without leakage, and leakage at the reference.
    """
    rise = board.thermal.sink_c_per_w + board.thermal.die_c_per_w
    power = (cold_w + leak_w) * (1 + board.loss)
    for _ in range(12):
        power = (cold_w + leak_w * leakage_factor(air_c + rise * power)) * (1 + board.loss)
    return power
