"""What an emulated board is made of: the constants in ``boards/*.toml``, checked and typed.

Units are in the names; ``levels_mhz`` become hertz here. Voltages are relative to the voltage
floor: 1 up to ``floor_mhz``, then a straight line to ``v_top`` at the highest level.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, cast

import numpy as np

from governor.errors import unknown_name
from governor.space import FloatArray

_toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

COMPONENTS: tuple[str, ...] = ("gpu", "cpu", "soc", "dram", "sys")
"""The parts of a module whose power is told apart; a rail is the sum of some of them."""


def load_toml(name: str) -> dict[str, Any]:
    """A data file of this package, such as ``boards/nano.toml``."""
    text = files("governor.devices.emulated").joinpath(name).read_text(encoding="utf-8")
    return cast("dict[str, Any]", _toml.loads(text))


def _hertz(mhz: float | list[float]) -> float | tuple[float, ...]:
    if isinstance(mhz, list):
        return tuple(round(level * 1e6) * 1.0 for level in mhz)
    return round(mhz * 1e6) * 1.0


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A clock domain with its voltage curve.

    Attributes:
        levels_hz: what can be set.
        floor_hz: up to here the voltage does not fall any more.
        v_top: voltage at the highest level over the floor's.
        leakage_w: leakage at the floor voltage and 50 °C.
    """

    levels_hz: tuple[float, ...]
    floor_hz: float
    v_top: float
    leakage_w: float

    @property
    def hz(self) -> FloatArray:
        """``levels_hz`` as an array."""
        return np.array(self.levels_hz)

    @property
    def volts(self) -> FloatArray:
        """Relative voltage at each level."""
        rise = (self.hz - self.floor_hz) / (self.levels_hz[-1] - self.floor_hz)
        return 1 + (self.v_top - 1) * np.maximum(rise, 0.0)


@dataclass(frozen=True, kw_only=True)
class Cpu(Domain):
    """The CPU cluster.

    Attributes:
        cores: how many are online.
        min_hz: the power mode's own lower limit, which the default governor keeps.
        core_w_per_ghz: one busy core at the floor voltage.
        spin_share: what of that a core draws that polls for the GPU's end: mostly it waits for
            the load of the word that tells.
        idle_w_per_ghz: all cores waiting, at the floor voltage.
    """

    cores: int
    min_hz: float
    core_w_per_ghz: float
    spin_share: float
    idle_w_per_ghz: float


@dataclass(frozen=True, kw_only=True)
class Gpu(Domain):
    """The GPU.

    Attributes:
        flop_per_clock: dense peak by precision.
        bytes_per_clock: what it can move at most.
        cache_bytes: its second-level cache.
        reread_per_kflop: elements that tiled products read again, per 1,000 FLOP.
        busy_w_per_ghz, idle_w_per_ghz: clock tree while it works and while it waits, at the
            floor voltage.
        pj_per_flop: switching energy by precision, at the floor voltage.
        pj_per_byte: moving a byte through its caches, at the floor voltage.
    """

    flop_per_clock: Mapping[str, float]
    bytes_per_clock: float
    cache_bytes: float
    reread_per_kflop: float
    busy_w_per_ghz: float
    idle_w_per_ghz: float
    pj_per_flop: Mapping[str, float]
    pj_per_byte: float

    def precision(self, wanted: str) -> str:
        """``wanted``, or the precision this GPU runs instead."""
        return wanted if wanted in self.flop_per_clock else "fp32"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory controller and the DRAM.

    Attributes:
        levels_hz: what can be set.
        bytes_per_clock: of the bus.
        efficiency: what of the peak can be reached.
        soc_w, dram_w: power at each level while nothing is moved.
        soc_pj_per_byte, dram_pj_per_byte: for each byte moved.
    """

    levels_hz: tuple[float, ...]
    bytes_per_clock: float
    efficiency: float
    soc_w: tuple[float, ...]
    dram_w: tuple[float, ...]
    soc_pj_per_byte: float
    dram_pj_per_byte: float


@dataclass(frozen=True, kw_only=True)
class Stack:
    """How a framework drives this board.

    Attributes:
        efficiency: of the peak, by kind of operation, ``winograd`` above 1 where it saves enough
            multiplications; ``plain`` is that of convolutions in fp32, and ``plain_gemm``, where
            it differs from ``gemm``, of products, which run on plain cores, and so nearer to a
            lower peak.
        narrow_channels: products over so many channels reach half of that efficiency.
        kernel_cycles: GPU clocks that each kernel costs however small.
        launch_cycles: CPU clocks to launch one kernel.
        serial_cycles: CPU clocks per inference that nothing overlaps (pre- and postprocessing).
        traffic: DRAM bytes of activations over those counted and not cached (above 1: layouts are
            converted, or data is written in between).
        spins: the launching core waits for the GPU by spinning.
    """

    efficiency: Mapping[str, float]
    narrow_channels: float
    kernel_cycles: float
    launch_cycles: float
    serial_cycles: float
    traffic: float
    spins: bool


MICROBENCHMARK = Stack(
    efficiency=dict.fromkeys(
        ("conv", "winograd", "depthwise", "gemm", "memory", "probe", "plain"), 1.0
    ),
    narrow_channels=0.0,
    kernel_cycles=2000,
    launch_cycles=12000,
    serial_cycles=0.0,
    traffic=1.0,
    spins=True,
)
"""Kernels written for their peak, without a framework: on every board the same (assumed)."""


@dataclass(frozen=True, kw_only=True)
class Thermal:
    """Heat.

    Attributes:
        sink_c_per_w, sink_s: the heat sink against the air, and its time constant.
        die_c_per_w, die_s: the die against the sink.
        passive_c: where the kernel starts to lower clocks.
        power_cap_w: above this the module counts an over-current and lowers clocks.
    """

    sink_c_per_w: float
    sink_s: float
    die_c_per_w: float
    die_s: float
    passive_c: float
    power_cap_w: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """One emulated board; two are the same only if they are one object.

    Attributes:
        base_w: power of the module that nothing here changes.
        loss: regulators' loss, as a share of all other power.
        rails: sensor name to the components it sees.
        total_rail: the rail, or ``total`` where it is the sum of all rails.
        stacks: by framework.
    """

    name: str
    title: str
    cpu: Cpu
    gpu: Gpu
    memory: Memory
    base_w: float
    loss: float
    stacks: Mapping[str, Stack]
    thermal: Thermal
    rails: Mapping[str, tuple[str, ...]]
    total_rail: str
    sensor_refresh_s: float


def _domain(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with its megahertz as hertz and its lists as tuples."""
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key.endswith("_mhz"):
            fields[key.replace("_mhz", "_hz")] = _hertz(value)
        else:
            fields[key] = tuple(cast("list[float]", value)) if isinstance(value, list) else value
    return fields


@cache
def load_board(name: str) -> Board:
    """The board called ``name``.

    Raises:
        InputError: no such board; the message lists those there are.
    """
    if name not in board_names():
        raise unknown_name("board", name, board_names())
    data = load_toml(f"boards/{name}.toml")
    return Board(
        name=name,
        title=data["title"],
        cpu=Cpu(**_domain(data["cpu"])),
        gpu=Gpu(**_domain(data["gpu"])),
        memory=Memory(**_domain(data["memory"])),
        base_w=data["base_w"],
        loss=data["loss"],
        stacks={
            **{key: Stack(**value) for key, value in data["stacks"].items()},
            "microbenchmark": MICROBENCHMARK,
        },
        thermal=Thermal(**data["thermal"]),
        rails={rail: tuple(parts) for rail, parts in data["rails"].items()},
        total_rail=data["total_rail"],
        sensor_refresh_s=data["sensor_refresh_s"],
    )


_ORDER = (
    "nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin-32gb", "agx-orin",
    "agx-thor",
)  # fmt: skip


def board_names() -> list[str]:
    """The boards that can be emulated, oldest first."""
    return list(_ORDER)
