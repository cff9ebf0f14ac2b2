"""The CPU's clock through the kernel's cpufreq limits. Standard library only.

Every policy is pinned by setting its lowest and highest frequency to the same value. The
driver, the governor and boost stay as they are, so this works under acpi-cpufreq,
intel_pstate, amd-pstate, cppc_cpufreq and the ARM drivers alike.
Files and units (kHz): the kernel's Documentation/admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

from governor.lease.control import Hardware, Snapshot
from governor.lease.kernel_files import read_text, write_text

POLICIES = "sys/devices/system/cpu/cpufreq"
STEP_KHZ = 100_000
"""The bus clock of x86: drivers with a continuous range really run at its multiples."""
LOOKS = 8
"""Policies that one reading looks at besides the first. A server has one a core, and reading
each of 64 ten times a second takes 1.5 % of a core; in turns, all are seen within a second."""
MOST_LEVELS = 16
"""As many as acpi-cpufreq lists at most; a finer lattice tells no more."""


def find(root: Path) -> Hardware | None:
    """The CPU's clock as one control, None where the kernel offers no cpufreq policy.

    Args:
        root: the file system's root, ``/`` on a live machine.
    """
    policies = tuple(_policies(root))
    return Hardware(cpu_name(root), (CpuClock(policies),)) if policies else None


def cpu_name(root: Path) -> str:
    """The processor's model as one short word, ``linux`` where the kernel does not say."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return "linux"
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    if model is None:
        return "linux"
    words = re.sub(r"\((?:R|TM)\)|CPU|Processor|@.*", " ", model[1], flags=re.IGNORECASE)
    return "-".join(re.findall(r"[a-z0-9]+", words.lower())) or "linux"


class Policy:
    """Some CPUs that share one clock.

    Attributes:
        path: the policy's folder.
        levels_khz: what may be set, ascending.
    """

    def __init__(self, path: Path) -> None:
        """Reads what may be set now: no more than the limit that is found here.

        Raises:
            OSError: the files cannot be read; so it is when all of its CPUs are offline.
            ValueError: they hold no numbers.
        """
        self.path = path
        _, cap_khz = self.limits()
        listed = self._listed()
        if listed:
            levels = sorted(khz for khz in listed if khz <= cap_khz) or [min(listed)]
            self.levels_khz: tuple[int, ...] = tuple(levels)
        else:
            bottom_khz = self._number("cpuinfo_min_freq")
            top_khz = min(self._number("cpuinfo_max_freq"), cap_khz)
            self.levels_khz = _lattice(bottom_khz, max(top_khz, bottom_khz))

    def limits(self) -> tuple[int, int]:
        """The lowest and the highest frequency in kHz that are allowed now."""
        return self._number("scaling_min_freq"), self._number("scaling_max_freq")

    def has_limits(self, low_khz: int, high_khz: int) -> bool:
        """Whether those are the limits now, as far as can be read."""
        try:
            return self.limits() == (low_khz, high_khz)
        except (OSError, ValueError):
            return False

    def clock_khz(self) -> int:
        """What it is pinned to; where it is not pinned, what it runs at."""
        low, high = self.limits()
        return low if low == high else self._number("scaling_cur_freq")

    def at_most(self, khz: int) -> int:
        """The highest level that is not above ``khz``, else the lowest there is."""
        return max((level for level in self.levels_khz if level <= khz), default=self.levels_khz[0])

    def limit(self, low_khz: int, high_khz: int) -> None:
        """Set both limits. At no time may the lowest be above the highest.

        Kernels before 5.3 refuse that with EINVAL, later ones clip it silently.
        """
        _, top_khz = self.limits()
        writes = [("scaling_min_freq", low_khz), ("scaling_max_freq", high_khz)]
        for name, khz in reversed(writes) if low_khz > top_khz else writes:
            write_text(self.path / name, str(khz))

    def _listed(self) -> list[int]:
        try:
            text = read_text(self.path / "scaling_available_frequencies")
        except FileNotFoundError:  # a driver with a continuous range
            return []
        return [int(word) for word in text.split()]

    def _number(self, name: str) -> int:
        return int(read_text(self.path / name))


class CpuClock:
    """``cpu_hz``: all policies at once.

    The levels are those of the fastest policy. Slower ones (efficiency cores, little
    cores) follow at their own highest level that is not above it.
    """

    name = "cpu_hz"

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda p: p.levels_khz[-1], reverse=True))
        self.levels = tuple(1e3 * khz for khz in self.policies[0].levels_khz)
        self._turns = cycle(self.policies[1:])
        self._written = False

    def read(self) -> float:
        """The clock in Hz; that of the first policy which does not follow, if one does not.

        After a write all policies are looked at, and then some of them in turn.
        """
        others = len(self.policies) - 1
        looks = others if self._written else min(others, LOOKS)
        self._written = False
        khz = self.policies[0].clock_khz()
        for policy in islice(self._turns, looks):
            clock_khz = policy.clock_khz()
            if clock_khz != policy.at_most(khz):
                return 1e3 * clock_khz
        return 1e3 * khz

    def write(self, level: float) -> None:
        """Pin every policy."""
        self._written = True
        for policy in self.policies:
            khz = policy.at_most(round(level / 1e3))
            policy.limit(khz, khz)

    def snapshot(self) -> Snapshot:
        """Both limits of every policy, by the policy's name."""
        limits = {policy.path.name: policy.limits() for policy in self.policies}
        return {name: f"{low} {high}" for name, (low, high) in limits.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Put the limits of every policy back, and look whether they took."""
        failed: OSError | ValueError | None = None
        for policy in self.policies:
            if policy.path.name not in snapshot:
                continue
            low, high = map(int, snapshot[policy.path.name].split())
            try:
                before = policy.limits()
                policy.limit(low, high)
                if before == policy.limits() != (low, high):
                    raise ValueError(f"{policy.path} still has the limits {before} in kHz")
            except (OSError, ValueError) as error:
                if not policy.has_limits(low, high):
                    failed = error
        if failed is not None:
            raise failed


def _policies(root: Path) -> Iterator[Policy]:
    folders = (root / POLICIES).glob("policy[0-9]*")
    for folder in sorted(folders, key=lambda path: int(path.name.removeprefix("policy"))):
        with suppress(OSError, ValueError):  # its CPUs are offline, or the driver is half there
            yield Policy(folder)


def _lattice(bottom_khz: int, top_khz: int) -> tuple[int, ...]:
    """At most :data:`MOST_LEVELS` levels, multiples of the bus clock between the two ends.

    >>> _lattice(800_000, 1_250_000)
    (800000, 900000, 1000000, 1100000, 1200000, 1250000)
    """
    step = STEP_KHZ * max(1, -(-(top_khz - bottom_khz) // (STEP_KHZ * (MOST_LEVELS - 2))))
    first = (bottom_khz // step + 1) * step
    inner = [khz for khz in range(first, top_khz, step) if top_khz - khz >= step / 2]
    return tuple(sorted({bottom_khz, *inner, top_khz}))
