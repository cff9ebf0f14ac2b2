"""What a board's Linux shows of it: the facts in ``kernels/*.toml``, checked and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from governor.devices.emulated.hardware import load_board, load_toml
from governor.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One input of a power monitor.

    Attributes:
        rail: its label; ``NC`` where nothing is connected.
        volts: of the supply.
        parts: components whose power it sees, for a rail that the emulated board has not.
        carrier_w: what else it sees.
    """

    rail: str
    volts: float = 0.0
    parts: tuple[str, ...] = ()
    carrier_w: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One power monitor: its I2C address as ``BUS-ADDRESS``, its driver, its shunts."""

    address: str
    channels: tuple[Channel, ...]
    driver: str = "ina3221"
    adapter: str = ""
    shunt_mohm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One of nvpmodel's power modes; a cap of None leaves the clock free."""

    id: int
    name: str
    cores: tuple[int, ...]
    cpu_khz: int | None = None
    gpu_hz: int | None = None
    emc_hz: int | None = None


@dataclass(frozen=True, kw_only=True)
class Release:
    """What one L4T release brings: its kernel, and where it shows things.

    Attributes:
        kernel: Linux version.
        revision, release_board: as ``/etc/nv_tegra_release`` has them.
        gpu, gpu_node, gpu_links: the GPU's device directory, its device tree node's name, and
            other paths that lead there.
        i2c: directory of the adapter with the power monitors.
        zones: thermal zones in order.
    """

    kernel: str
    revision: str
    release_board: str
    gpu: str
    i2c: str
    zones: tuple[str, ...]
    gpu_node: str = ""
    gpu_links: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Soc:
    """What all boards of a chip share.

    Attributes:
        emc: how the memory's clock is set: ``override`` (T210), ``bpmp``, or ``bwmgr`` (Thor).
        off_zones: thermal zones of blocks that are off: reading them gives EAGAIN.
        passive_mc, critical_mc: trip points in thousandths of a degree; 0: not known.
    """

    chip_id: int
    idle_states: tuple[str, ...]
    cpufreq_driver: str
    emc: str
    gpu_compatible: str = ""
    off_zones: tuple[str, ...] = ()
    passive_mc: int = 0
    critical_mc: int = 0


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One board under one L4T release.

    Attributes:
        policies: the cores of each cpufreq policy; the first core gives its number.
        boot_mode, uncapped_mode: nvpmodel's mode of a new board, and the one that caps nothing.
        emc_top_hz: the highest memory clock, where this release names it differently.
        codec_hz: the video codec's highest clock, where it has a devfreq node.
    """

    board: str
    l4t: int
    soc_name: str
    soc: Soc
    release: Release
    model: str
    compatible: tuple[str, ...]
    policies: tuple[tuple[int, ...], ...]
    chips: tuple[Chip, ...]
    conf: str
    modes: Mapping[int, Mode]
    boot_mode: int
    uncapped_mode: int
    zones: tuple[str, ...]
    emc_top_hz: int | None = None
    codec_hz: int | None = None
    cores: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        cores = sorted(core for policy in self.policies for core in policy)
        object.__setattr__(self, "cores", tuple(cores))

    @property
    def old(self) -> bool:
        """Whether this is Linux 4.9, which refuses what later ones clip."""
        return self.release.kernel.startswith("4.")


def l4t_releases(board: str) -> tuple[int, ...]:
    """The L4T releases that ``board`` can be mounted with, the usual one first.

    Raises:
        InputError: no such board.
    """
    load_board(board)
    return tuple(load_toml(f"kernels/{board}.toml")["l4t"])


@cache
def load_kernel(board: str, l4t: int | None = None) -> Kernel:
    """``board`` under this L4T release; under its usual one by default.

    Raises:
        InputError: no such board, or it has no such release.
    """
    releases = l4t_releases(board)
    l4t = releases[0] if l4t is None else l4t
    if l4t not in releases:
        known = ", ".join(map(str, sorted(releases)))
        raise InputError(f"board {board!r} is not known with L4T {l4t}; choose one of {known}")
    data = load_toml(f"kernels/{board}.toml")
    soc = load_toml(f"kernels/{data['soc']}.toml")
    release = Release(**_frozen(soc.pop("l4t")[str(l4t)]))
    return Kernel(
        board=board,
        l4t=l4t,
        soc_name=data["soc"],
        soc=Soc(**_frozen(soc)),
        release=release,
        model=data["model"],
        compatible=tuple(data["compatible"]),
        policies=tuple(tuple(cores) for cores in data["policies"]),
        chips=tuple(_chip(each) for each in data["chips"]),
        conf=data["conf"],
        modes={each["id"]: Mode(**_frozen(each)) for each in data["modes"]},
        boot_mode=data["boot_mode"],
        uncapped_mode=data["uncapped_mode"],
        zones=(*release.zones, *data.get("more_zones", ())),
        emc_top_hz=data.get("emc_top_hz", {}).get(str(l4t)),
        codec_hz=data.get("codec_hz"),
    )


def _chip(table: Mapping[str, Any]) -> Chip:
    rest = {key: value for key, value in table.items() if key != "channels"}
    return Chip(channels=tuple(Channel(**_frozen(each)) for each in table["channels"]), **rest)


def _frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with its lists as tuples."""
    return {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in table.items()
    }
