"""What the roofline knows of a board: its clocks, peaks, bandwidths and energies, in SI units.

Voltages are relative to their domain's floor: the lowest that the domain falls to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from governor.errors import InputError
from governor.space import FloatArray

Status = Literal["published", "derived", "assumed", "measured", "emulated"]
"""What a constant rests on: stated by a maker, a kernel or a study; worked out (or fitted) from
such figures; plausible with no figure found; or measured by ``governor calibrate``, perhaps on
an emulated board."""

Unit = Literal["cuda", "tensor"]

KINDS = ("conv", "gemm", "vector")
"""Kinds of operation, by what share of the peak they reach."""

WIDER: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "tf32": ("fp32",),
    "bf16": ("fp16", "fp32"),
    "fp16": ("fp32",),
    "fp8": (),
    "int8": ("fp16", "fp32"),
}
"""What a precision runs in where the hardware does not have it, widest last; nothing does FP8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One constant as the file has it, in the file's unit.

    Attributes:
        status: what it rests on.
        source: where it is from, for people.
        low, high: the interval of a measured one, of the form of ``value``; ``inf``: it has no
            end there.
    """

    value: Any
    status: Status
    source: str
    low: Any = None
    high: Any = None


@dataclass(frozen=True, slots=True)
class Voltage:
    """Voltage over its floor, by clock: flat up to the first clock, then straight lines.

    Attributes:
        hz: ascending; the first is where the floor ends.
        relative: at each of ``hz``; the first is 1.
    """

    hz: tuple[float, ...]
    relative: tuple[float, ...]

    @property
    def floor_hz(self) -> float:
        """Up to here the voltage does not fall any more."""
        return self.hz[0]

    def squared(self, hz: FloatArray) -> FloatArray:
        """V^2 over the floor's, of the shape of ``hz``."""
        return np.interp(hz, self.hz, self.relative) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The CPU cores.

    Attributes:
        levels_hz: what can be set.
        cores: how many there are.
        busy_w_per_hz: the one core that launches the work, at the voltage floor.
        core_w_per_hz: each core that is online, idle, at the voltage floor.
    """

    levels_hz: tuple[float, ...]
    cores: int
    voltage: Voltage
    busy_w_per_hz: float
    core_w_per_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPU.

    Attributes:
        levels_hz: what can be set.
        cuda_flop_per_clock, tensor_flop_per_clock: dense peaks by precision, of plain cores and
            of tensor cores (empty where there are none).
        bytes_per_clock: what it can move from and to memory at most.
        w_per_hz: its clock tree while it works, at the voltage floor.
    """

    levels_hz: tuple[float, ...]
    voltage: Voltage
    cuda_flop_per_clock: Mapping[str, float]
    tensor_flop_per_clock: Mapping[str, float]
    bytes_per_clock: float
    w_per_hz: float

    def flop_per_clock(self, precision: str, unit: Unit) -> float:
        """Dense peak; what a unit lacks, plain cores do in the next wider precision.

        >>> from governor.roofline.boards import load_board
        >>> load_board("nano").gpu.flop_per_clock("int8", "tensor")
        512.0

        Raises:
            InputError: no unit has it, and nothing wider does it instead.
        """
        tables = [self.tensor_flop_per_clock] * (unit == "tensor") + [self.cuda_flop_per_clock]
        for wanted in (precision, *WIDER[precision]):
            for table in tables:
                if wanted in table:
                    return table[wanted]
        raise InputError(
            f"this board's GPU has no {precision.upper()}; choose among "
            f"{', '.join(sorted({*self.cuda_flop_per_clock, *self.tensor_flop_per_clock}))}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory and its controller.

    Attributes:
        levels_hz: what can be set.
        bytes_per_s: that can be reached at each level.
        w: drawn at each level while nothing is moved.
    """

    levels_hz: tuple[float, ...]
    bytes_per_s: tuple[float, ...]
    w: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What work costs, and what is drawn whatever the clocks.

    Attributes:
        j_per_flop: by precision, at the GPU's voltage floor.
        gpu_j_per_byte: through the GPU's caches, at its voltage floor.
        memory_j_per_byte: in the memory and its controller, whose voltage stays.
        base_w: power of the module that no clock changes.
    """

    j_per_flop: Mapping[str, float]
    gpu_j_per_byte: float
    memory_j_per_byte: float
    base_w: float

    def j_per_flop_of(self, precision: str) -> float:
        """Of ``precision``, or of the next wider one that the file has."""
        wanted = (precision, *(WIDER[precision] or ("int8", "fp16", "fp32")))
        return next(self.j_per_flop[one] for one in wanted if one in self.j_per_flop)


@dataclass(frozen=True, slots=True)
class Leakage:
    """What the chip draws for being on, growing with its voltage squared and its temperature.

    Where nothing is known of it, it is part of the watts a clock and of the base.

    Attributes:
        cpu_w, gpu_w: at the voltage floor and ``reference_c``, at which predictions are made.
        per_degree: by what share it grows with each degree Celsius, compounded.
    """

    cpu_w: float = 0.0
    gpu_w: float = 0.0
    reference_c: float = 50.0
    per_degree: float = 0.0

    def factor(self, celsius: float) -> float:
        """Leakage at this temperature over that at the reference.

        >>> round(Leakage(0.1, 0.2, reference_c=50, per_degree=0.02).factor(60), 3)
        1.221
        """
        return math.exp(self.per_degree * (celsius - self.reference_c))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """How a framework drives this board.

    Attributes:
        efficiency: share of the peak reached, by kind of operation (``KINDS``).
        reread_per_flop: values that products read again from memory, since their operands are
            needed for every tile of the result and do not all fit the caches.
        bandwidth: share of the memory's bandwidth reached, on the bytes as they are counted, by
            kind; above 1 where caches save what was counted.
        launch_cycles: CPU clocks to launch one kernel.
        serial_cycles: CPU clocks per batch that nothing overlaps.
        kernel_cycles: GPU clocks that each kernel costs however small.
        tf32_convolutions: whether it runs FP32 convolutions in TF32 where the GPU can.
    """

    efficiency: Mapping[str, float]
    reread_per_flop: float
    bandwidth: Mapping[str, float]
    launch_cycles: float
    serial_cycles: float
    kernel_cycles: float
    tf32_convolutions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A stock power mode of nvpmodel.

    Attributes:
        id: its number in the board's configuration file.
        cores: that are online.
        cpu_hz, gpu_hz, emc_hz: its caps, each one of the board's levels.
        gpu_share: of the GPU that is not power-gated.
    """

    name: str
    id: int
    cores: int
    cpu_hz: float
    gpu_hz: float
    emc_hz: float
    gpu_share: float


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board.

    Attributes:
        limit_w: the module draws no more; it slows down instead.
        stacks: by framework.
        modes: as in its configuration file; the first is the least limited.
        constants: every constant of the file as it stands there, by dotted name.
    """

    name: str
    title: str
    limit_w: float
    cpu: Cpu
    gpu: Gpu
    memory: Memory
    energy: Energy
    leakage: Leakage
    stacks: Mapping[str, Stack]
    modes: tuple[Mode, ...]
    constants: Mapping[str, Constant] = field(repr=False)

    def mode(self, name: str) -> Mode:
        """The power mode called ``name``, in whatever case.

        Raises:
            InputError: it has no such mode.
        """
        for mode in self.modes:
            if mode.name.lower() == name.lower():
                return mode
        names = ", ".join(mode.name for mode in self.modes)
        raise InputError(f"{self.name} has no power mode {name!r}; choose one of {names}")

    def stack(self, name: str) -> Stack:
        """How the framework called ``name`` drives it.

        Raises:
            InputError: the file says nothing of it.
        """
        if name not in self.stacks:
            raise InputError(
                f"nothing is known of {name!r} on {self.name}; choose one of "
                f"{', '.join(self.stacks)}"
            )
        return self.stacks[name]
