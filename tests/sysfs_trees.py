"""Builds plain trees that look like a Jetson's ``/sys``, ``/proc/device-tree`` and ``/etc``.

They hold what a kernel shows and do nothing by themselves; what boards there are, and how they
differ by release, follows public board dumps.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


def stepped(first: int, step: int, last: int, *more: int) -> tuple[int, ...]:
    return (*range(first, last + 1, step), *more)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A board under one release of Jetson Linux; clocks in kHz for CPU and EMC, Hz for GPU."""

    board: str
    l4t: int
    model: str
    compatible: tuple[str, ...]
    policies: Mapping[int, str]
    cpu_khz: tuple[int, ...]
    cpu_min_khz: int = 0
    gpu_path: str
    gpu_node: tuple[str, str]
    gpu_hz: tuple[int, ...]
    emc_khz: tuple[int, ...]
    emc_cap_hz: int = 0
    rails: Mapping[str, Sequence[tuple[str, float]]]
    zones: Mapping[str, float] = field(default_factory=dict)
    mode: int = 0

    def __str__(self) -> str:
        return f"{self.board}-r{self.l4t}"


NANO_GPU = tuple(76_800_000 * step for step in range(1, 13))
TX2_GPU = (
    114750000, 216750000, 318750000, 420750000, 522750000, 624750000, 726750000,
    854250000, 930750000, 1032750000, 1122000000, 1236750000, 1300500000,
)  # fmt: skip
XAVIER_NX_GPU = (
    114750000, 204000000, 306000000, 408000000, 510000000, 599250000, 701250000, 752250000,
    803250000, 854250000, 905250000, 956250000, 1007250000, 1058250000, 1109250000,
)  # fmt: skip
AGX_XAVIER_GPU = (
    114750000, 216750000, 318750000, 420750000, 522750000, 624750000, 675750000, 828750000,
    905250000, 1032750000, 1198500000, 1236750000, 1338750000, 1377000000,
)  # fmt: skip
NANO_CPU = (
    102000, 204000, 307200, 403200, 518400, 614400, 710400, 825600, 921600, 1036800, 1132800,
    1224000, 1326000, 1428000, 1479000,
)  # fmt: skip
TX2_CPU = stepped(345600, 153600, 2035200)
ORIN_GPU = stepped(306_000_000, 102_000_000, 1_224_000_000, 1_300_500_000)
XAVIER_EMC = (204000, 408000, 665600, 800000, 1065600, 1331200, 1600000, 1866000)
ORIN_EMC = (204000, 665600, 2133000, 3199000)
CARMEL = {0: "0 1", 2: "2 3", 4: "4 5"}

NX_RAILS = {"7-0040": (("VDD_IN", 10.0), ("VDD_CPU_GPU_CV", 5.0), ("VDD_SOC", 2.0))}
ORIN_NANO_RAILS = {"1-0040": NX_RAILS["7-0040"]}
XAVIER_RAILS = {
    "1-0040": (("GPU", 4.0), ("CPU", 2.0), ("SOC", 1.5)),
    "1-0041": (("CV", 0.5), ("VDDRQ", 1.0), ("SYS5V", 3.0)),
}
AGX_ORIN_RAILS = {
    "1-0040": (("VDD_GPU_SOC", 8.0), ("VDD_CPU_CV", 3.0), ("VIN_SYS_5V0", 4.0)),
    "1-0041": (("NC", 0.0), ("VDDQ_VDD2_1V8AO", 1.5), ("NC", 0.0)),
}
TX2_RAILS = {
    "0-0040": (("VDD_SYS_GPU", 3.0), ("VDD_SYS_SOC", 1.0), ("VDD_4V0_WIFI", 0.1)),
    "0-0041": (("VDD_IN", 8.0), ("VDD_SYS_CPU", 2.0), ("VDD_SYS_DDR", 1.2)),
    "0-0042": (("VDD_MUX", 9.0), ("VDD_5V0_IO_SYS", 0.4), ("VDD_3V3_SYS", 0.3)),
    "0-0043": (("VDD_3V3_IO_SLP", 0.1), ("VDD_1V8_IO", 0.1), ("VDD_3V3_SYS_M2", 0.1)),
}
THOR_RAILS = {
    "2-0040": (("VDD_GPU", 20.0), ("VDD_CPU_SOC_MSS", 10.0), ("VIN_SYS_5V0", 6.0)),
    "2-0044": (("VIN", 45.0),),
}
TOTALS_W = {
    "nano": 5.0,
    "tx2": 8.0,
    "xavier-nx": 10.0,
    "agx-xavier": 12.0,
    "orin-nano": 10.0,
    "orin-nx": 10.0,
    "agx-orin": 15.0,
    "agx-orin-32gb": 15.0,
    "agx-thor": 45.0,
}
"""What the rails above add up to, each watt counted once."""

OLD_ZONES = {"CPU-therm": 41.5, "GPU-therm": 40.0, "PMIC-Die": 100.0}
ORIN_ZONES = {"cpu-thermal": 47.0, "gpu-thermal": 45.0, "tj-thermal": 48.0}


def _xavier(l4t: int, nx: bool) -> Kind:
    return Kind(
        board="xavier-nx" if nx else "agx-xavier",
        l4t=l4t,
        model="NVIDIA Jetson Xavier NX Developer Kit" if nx else "Jetson-AGX",
        compatible=(f"nvidia,{'p3509-0000+p3668-0000' if nx else 'p2972-0000'}", "nvidia,tegra194"),
        policies=CARMEL if nx else {**CARMEL, 6: "6 7"},
        cpu_khz=stepped(115200, 76800, 1881600, 1907200)
        if nx
        else stepped(115200, 76800, 2188800, 2265600),
        cpu_min_khz=1190400,
        gpu_path="sys/devices/17000000.gv11b/devfreq/17000000.gv11b",
        gpu_node=("gv11b", "nvidia,gv11b"),
        gpu_hz=XAVIER_NX_GPU if nx else AGX_XAVIER_GPU,
        emc_khz=XAVIER_EMC if nx else (*XAVIER_EMC, 2133000),
        emc_cap_hz=1_600_000_000 if nx else 0,
        rails=NX_RAILS if nx else XAVIER_RAILS,
        zones=OLD_ZONES,
    )  # fmt: skip


def _orin(board: str, l4t: int) -> Kind:
    modules = {
        "orin-nano": "p3768-0000+p3767-0005-super",
        "orin-nx": "p3768-0000+p3767-0000",
        "agx-orin": "p3737-0000+p3701-0005",
        "agx-orin-32gb": "p3737-0000+p3701-0004",
    }
    gpu_tops = {"orin-nano": 8, "orin-nx": 7, "agx-orin": 11, "agx-orin-32gb": 7}
    agx = board.startswith("agx")
    new = l4t >= 36
    return Kind(
        board=board,
        l4t=l4t,
        model="NVIDIA Jetson AGX Orin Developer Kit" if agx else "NVIDIA Orin NX Developer Kit",
        compatible=(f"nvidia,{modules[board]}", "nvidia,tegra234"),
        policies={0: "0 1 2 3", 4: "4 5 6 7", **({8: "8 9 10 11"} if board == "agx-orin" else {})},
        cpu_khz=stepped(115200, 76800, 1958400, 1984000),
        cpu_min_khz=729600,
        gpu_path="sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu"
        if new
        else "sys/devices/17000000.ga10b/devfreq/17000000.ga10b",
        gpu_node=("gpu" if new else "ga10b", "nvidia,ga10b"),
        gpu_hz=ORIN_GPU[: gpu_tops[board]],
        emc_khz=ORIN_EMC,
        emc_cap_hz=9223372036854775807 if new else 0,
        rails=AGX_ORIN_RAILS if agx else ORIN_NANO_RAILS,
        zones=ORIN_ZONES,
    )  # fmt: skip


def _thor(l4t: int) -> Kind:
    return Kind(
        board="agx-thor",
        l4t=l4t,
        model="NVIDIA Jetson AGX Thor Developer Kit",
        compatible=("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        policies={first: f"{first} {first + 1}" for first in range(0, 14, 2)},
        cpu_khz=(972000, 1998000, 2601000),
        gpu_path="sys/devices/platform/bus@0/pci0000:00/0000:01:00.0/devfreq/gpu-gpc-0",
        gpu_node=("", ""),
        gpu_hz=(315_000_000, 1_386_000_000, 1_530_000_000, 1_575_000_000),
        emc_khz=(665600, 2750000, 3200000, 4266000),
        emc_cap_hz=9223372036854775807,
        rails=THOR_RAILS,
        zones=ORIN_ZONES,
        mode=1,
    )


KINDS = (
    Kind(
        board="nano",
        l4t=32,
        model="NVIDIA Jetson Nano Developer Kit",
        compatible=("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,tegra210"),
        policies={0: "0 1 2 3"},
        cpu_khz=NANO_CPU,
        cpu_min_khz=102000,
        gpu_path="sys/devices/57000000.gpu/devfreq/57000000.gpu",
        gpu_node=("gpu", "nvidia,gm20b"),
        gpu_hz=NANO_GPU,
        emc_khz=(204000, 408000, 665600, 800000, 1065600, 1331200, 1600000),
        rails={"6-0040": (("POM_5V_IN", 5.0), ("POM_5V_GPU", 2.0), ("POM_5V_CPU", 1.0))},
        zones=OLD_ZONES,
    ),
    Kind(
        board="tx2",
        l4t=32,
        model="quill",
        compatible=("nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"),
        policies={0: "0 3 4 5", 1: "1 2"},
        cpu_khz=TX2_CPU,
        cpu_min_khz=345600,
        gpu_path="sys/devices/17000000.gp10b/devfreq/17000000.gp10b",
        gpu_node=("gp10b", "nvidia,gp10b"),
        gpu_hz=TX2_GPU,
        emc_khz=(40800, 68000, 102000, 204000, 408000, 665600, 800000, 1062400, 1331200, 1600000,
                 1866000),
        rails=TX2_RAILS,
        zones=OLD_ZONES,
        mode=3,
    ),
    *(_xavier(l4t, nx) for nx in (True, False) for l4t in (32, 35)),
    *(
        _orin(board, l4t)
        for board in ("orin-nano", "orin-nx", "agx-orin", "agx-orin-32gb")
        for l4t in (35, 36, 39)
    ),
    *(_thor(l4t) for l4t in (38, 39)),
)  # fmt: skip


def kind(name: str) -> Kind:
    return next(each for each in KINDS if str(each) == name)


BREAKAGES = {
    "empty": b"",
    "garbage": b"\xff\xfe~%\n",
    "NULs": b"\0\0",
    "negative": b"-1\n",
    "huge": b"9" * 40,
    "gone": None,
    "no file": None,
}
"""What a file that is broken holds."""


def _break(path: Path, how: str) -> None:
    content = BREAKAGES[how]
    if content is not None:
        path.write_bytes(content)
        return
    path.unlink()
    if how == "no file":
        path.mkdir()


class Tree:
    """One board's files under ``root``."""

    def __init__(self, root: Path, kind: Kind) -> None:
        self.root = root
        self.kind = kind
        self._identity()
        self._cpu()
        self.gpu = self._devfreq(kind.gpu_path, kind.gpu_hz)
        self._gpu_node()
        if kind.board == "nano":
            self._emc_of_t210()
        elif kind.board == "agx-thor":
            self._emc_of_thor()
        else:
            self._emc_of_bpmp()
        self._emc_cap()
        for number, chip in enumerate(kind.rails):
            self._chip(number, chip)
        self._thermal()

    def file(self, path: str, content: str | bytes = "") -> Path:
        """Write one file; text gets the newline that sysfs ends a value with."""
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        return where

    def text(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def link(self, path: str, target: str) -> None:
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.symlink_to(os.path.relpath(self.root / target, where.parent))

    def break_some_files(self, draw: random.Random, share: float) -> None:
        """Do something bad to this share of all files."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.is_symlink() and draw.random() < share:
                _break(path, draw.choice(list(BREAKAGES)))

    def _identity(self) -> None:
        kind = self.kind
        self.file("proc/device-tree/model", kind.model.encode() + b"\0")
        names = b"".join(name.encode() + b"\0" for name in kind.compatible)
        self.file("proc/device-tree/compatible", names)
        board = "generic" if kind.l4t >= 36 else "t186ref"
        self.file(
            "etc/nv_tegra_release",
            f"# R{kind.l4t} (release), REVISION: 4.3, GCID: 1, BOARD: {board}, EABI: aarch64",
        )
        self.file("var/lib/nvpmodel/status", f"pmode:{kind.mode:04d}")
        self.file(
            "etc/nvpmodel.conf",
            "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
            "< POWER_MODEL ID=0 NAME=MAXN >\n<POWER_MODEL ID=1 NAME=120W >\n"
            "< POWER_MODEL ID=3 NAME=MAXP_CORE_ARM >\n< PM_CONFIG DEFAULT=0 >",
        )

    def _cpu(self) -> None:
        kind = self.kind
        for number, cpus in kind.policies.items():
            folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
            self.file(f"{folder}/related_cpus", cpus)
            self.file(f"{folder}/scaling_governor", "schedutil")
            table = " ".join(map(str, kind.cpu_khz)) + " "
            self.file(f"{folder}/scaling_available_frequencies", table)
            self.file(f"{folder}/cpuinfo_min_freq", str(kind.cpu_khz[0]))
            self.file(f"{folder}/cpuinfo_max_freq", str(kind.cpu_khz[-1]))
            self.file(f"{folder}/scaling_min_freq", str(kind.cpu_min_khz or kind.cpu_khz[0]))
            self.file(f"{folder}/scaling_max_freq", str(kind.cpu_khz[-1]))
            self.file(f"{folder}/scaling_cur_freq", str(kind.cpu_khz[-1]))

    def _devfreq(self, path: str, levels_hz: Sequence[int]) -> str:
        self.file(f"{path}/available_frequencies", " ".join(map(str, levels_hz)))
        self.file(f"{path}/governor", "nvhost_podgov")
        self.file(f"{path}/min_freq", str(levels_hz[0]))
        self.file(f"{path}/max_freq", str(levels_hz[-1]))
        self.file(f"{path}/cur_freq", str(levels_hz[0]))
        self.link(f"sys/class/devfreq/{Path(path).name}", path)
        return path

    def _gpu_node(self) -> None:
        """The device above the devfreq folder links to its node in the device tree."""
        for other in ("15340000.vic", "15480000.nvdec"):  # engines that are no GPU
            path = f"sys/devices/{other}/devfreq/{other}"
            self._devfreq(path, (115200000, 601600000))
            self.link(f"{path}/device", f"sys/devices/{other}")
            self.file(f"sys/devices/{other}/of_node/name", b"vic\0")
            self.file(f"sys/devices/{other}/of_node/compatible", b"nvidia,tegra-vic\0")
        device = str(Path(self.gpu).parents[1])
        self.link(f"{self.gpu}/device", device)
        name, compatible = self.kind.gpu_node
        if name:
            self.file(f"{device}/of_node/name", name.encode() + b"\0")
            self.file(f"{device}/of_node/compatible", compatible.encode() + b"\0")

    def _emc_of_bpmp(self) -> None:
        rates = self.kind.emc_khz
        clock = "sys/kernel/debug/bpmp/debug/clk/emc"
        self.file("sys/kernel/debug/bpmp/debug/emc/possible_rates",
                  " ".join(map(str, rates)) + " (kHz)")  # fmt: skip
        self.file(f"{clock}/rate", str(1000 * rates[-2]))
        self.file(f"{clock}/min_rate", str(1000 * rates[0]))
        self.file(f"{clock}/max_rate", str(1000 * rates[-1]))
        self.file(f"{clock}/mrq_rate_locked", "0")
        self.file(f"{clock}/state", "1")

    def _emc_of_t210(self) -> None:
        """What is written as the new rate is read as the rate."""
        lowest, highest = self.kind.emc_khz[0], self.kind.emc_khz[-1]
        manager = "sys/kernel/debug/tegra_bwmgr"
        self.file(f"{manager}/emc_rate", str(1000 * highest))
        self.file(f"{manager}/emc_min_rate", str(1000 * lowest))
        self.file(f"{manager}/emc_max_rate", str(1000 * highest))
        override = "sys/kernel/debug/clk/override.emc"
        self.file(f"{override}/clk_state", "0")
        self.file(f"{override}/clk_rate", str(1000 * highest))
        self.link(f"{override}/clk_update_rate", f"{override}/clk_rate")

    def _emc_of_thor(self) -> None:
        self._devfreq("sys/devices/platform/bwmgr/devfreq/bwmgr",
                      [1000 * khz for khz in self.kind.emc_khz])  # fmt: skip

    def _emc_cap(self) -> None:
        new = self.kind.l4t >= 36
        path = "nvpmodel_clk_cap/emc" if new else "nvpmodel_emc_cap/emc_iso_cap"
        self.file(f"sys/kernel/{path}", str(self.kind.emc_cap_hz))

    def _chip(self, number: int, chip: str) -> None:
        channels = self.kind.rails[chip]
        if chip == "2-0044":
            folder = f"sys/bus/i2c/drivers/ina238/{chip}/hwmon/hwmon{number}"
            self.file(f"{folder}/name", "ina238")
            self.file(f"{folder}/power1_input", str(round(channels[0][1] * 1e6)))
        elif self.kind.l4t == 32:
            self._iio(f"sys/bus/i2c/drivers/ina3221x/{chip}/iio:device{number}", channels)
        else:
            self._hwmon(f"sys/bus/i2c/drivers/ina3221/{chip}/hwmon/hwmon{number}", channels)

    def _iio(self, folder: str, channels: Sequence[tuple[str, float]]) -> None:
        for channel, (label, watts) in enumerate(channels):
            self.file(f"{folder}/rail_name_{channel}", label)
            self.file(f"{folder}/in_voltage{channel}_input", "5000")
            self.file(f"{folder}/in_current{channel}_input", str(round(watts * 200)))
            self.file(f"{folder}/in_power{channel}_input", str(round(watts * 1000)))
            self.file(f"{folder}/crit_current_limit_{channel}", "32760 ma")

    def _hwmon(self, folder: str, channels: Sequence[tuple[str, float]]) -> None:
        self.file(f"{folder}/name", "ina3221")
        self.file(f"{folder}/update_interval", "430")
        for channel, (label, watts) in enumerate(channels, start=1):
            self.file(f"{folder}/in{channel}_label", label)
            self.file(f"{folder}/in{channel}_input", "5000")
            self.file(f"{folder}/curr{channel}_input", str(round(watts * 200)))
        self.file(f"{folder}/in7_label", "sum of shunt voltages")
        self.file(f"{folder}/in7_input", "123")

    def _thermal(self) -> None:
        for number, (zone, celsius) in enumerate(self.kind.zones.items()):
            folder = f"sys/class/thermal/thermal_zone{number}"
            self.file(f"{folder}/type", zone)
            self.file(f"{folder}/temp", str(round(1000 * celsius)))
        for number, device in enumerate(("pwm-fan", "cpufreq-cpu0", "devfreq-17000000.gpu")):
            folder = f"sys/class/thermal/cooling_device{number}"
            self.file(f"{folder}/type", device)
            self.file(f"{folder}/cur_state", "3" if device == "pwm-fan" else "0")
        if self.kind.l4t >= 35 and self.kind.compatible[-1] != "nvidia,tegra194":
            folder = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon9"
            self.file(f"{folder}/name", "soctherm_oc")
            for number in (1, 2, 3):
                self.file(f"{folder}/oc{number}_event_cnt", "0")
            self.link("sys/class/hwmon/hwmon9", folder)
