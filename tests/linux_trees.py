"""Builds trees of files that look like ``/sys`` and ``/proc`` of ordinary Linux machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CPUFREQ = "sys/devices/system/cpu/cpufreq"
RAPL = "sys/class/powercap"
RANGE_UJ = 262_143_328_850
"""``max_energy_range_uj`` of most processors since Haswell."""


@dataclass
class LinuxTree:
    """A machine's files under ``root``; every method adds a part of the machine."""

    root: Path
    policies: list[str] = field(default_factory=list)

    def write(self, path: str, content: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
        return file

    def text(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def cpu(self, model: str) -> LinuxTree:
        self.write("proc/cpuinfo", f"processor\t: 0\nmodel name\t: {model}")
        return self

    def policy(
        self,
        number: int,
        low_khz: int,
        high_khz: int,
        *,
        driver: str = "intel_pstate",
        listed_khz: tuple[int, ...] = (),
        limits_khz: tuple[int, int] | None = None,
    ) -> LinuxTree:
        folder = f"{CPUFREQ}/policy{number}"
        self.policies.append(folder)
        low, high = limits_khz or (low_khz, high_khz)
        files = {
            "cpuinfo_min_freq": low_khz,
            "cpuinfo_max_freq": high_khz,
            "scaling_min_freq": low,
            "scaling_max_freq": high,
            "scaling_cur_freq": high - 12_345,
            "scaling_driver": driver,
        }
        if listed_khz:
            files["scaling_available_frequencies"] = " ".join(map(str, listed_khz)) + " "
        for name, content in files.items():
            self.write(f"{folder}/{name}", content)
        return self

    def limits_khz(self) -> list[tuple[int, int]]:
        return [
            (
                int(self.text(f"{folder}/scaling_min_freq")),
                int(self.text(f"{folder}/scaling_max_freq")),
            )
            for folder in self.policies
        ]

    def rapl(self, zone: str, name: str, uj: int = 1_000_000, range_uj: int = RANGE_UJ) -> Path:
        self.write(f"{RAPL}/{zone}/name", name)
        self.write(f"{RAPL}/{zone}/max_energy_range_uj", range_uj)
        return self.write(f"{RAPL}/{zone}/energy_uj", uj)

    def hwmon(self, number: int, name: str, **files: object) -> LinuxTree:
        self.write(f"sys/class/hwmon/hwmon{number}/name", name)
        for file, content in files.items():
            self.write(f"sys/class/hwmon/hwmon{number}/{file}", content)
        return self

    def package_throttled(self, cpu: int, package: int, times: int) -> LinuxTree:
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        self.write(f"{folder}/topology/physical_package_id", package)
        self.write(f"{folder}/thermal_throttle/package_throttle_count", times)
        return self


def xeon(root: Path) -> LinuxTree:
    """A server: two policies of a continuous range, a package and its memory counted."""
    tree = LinuxTree(root).cpu("Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz")
    for number in range(2):
        tree.policy(number, 1_000_000, 3_900_000)
        tree.package_throttled(number, 0, 3)
    tree.rapl("intel-rapl:0", "package-0")
    tree.rapl("intel-rapl:0:0", "dram")
    tree.hwmon(0, "coretemp", temp1_input=54000, temp1_label="Package id 0")
    return tree
