"""A virtual Jetson: the files that its Linux shows, in front of an emulated board.

Paths and behaviour are those of the L4T release that is asked for; what stands behind them is
:class:`LiveBoard`. Nothing here is a measurement of hardware, and ``/run/virtual-jetson`` says so.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Sequence
from functools import partial

from governor.devices.emulated.clocks import GPU_GOVERNORS, Clocks
from governor.devices.emulated.kernel import Kernel, load_kernel
from governor.devices.emulated.limits import Limits, parse_number, refusal
from governor.devices.emulated.live import LiveBoard
from governor.devices.emulated.machine import CPU, EMC, GPU
from governor.devices.emulated.nvpmodel import configuration, emc_cap_path
from governor.devices.emulated.sensors import Sensors
from governor.devices.emulated.tree import File, Tree, parse_fault
from governor.errors import InputError

CPU_ROOT = "/sys/devices/system/cpu"
DEVFREQ = "/sys/class/devfreq"
BPMP = "/sys/kernel/debug/bpmp/debug"
CONTROL = "/run/virtual-jetson"
THOR_PCI = "0000:01:00.0"

UP_S = 3600.0
"""For so long a board has been up when it is mounted; one whose GPU comes late has just booted."""

ABOUT = """\
The files of a {title} under L4T {l4t}. No figure in these files is a measurement of hardware.

infer      write N: run one inference of a batch of N; the write lasts as long as the inference,
           and what it took on the board alone can be read, in seconds
latency_s  mean seconds of one inference at the clocks in force
spent_j    joules spent since the start, without sensor noise
workload   what runs; can be written
ambient_c  the air's temperature in degrees Celsius; can be written, the board follows slowly
nvpmodel   the power mode's number; write one to switch to it, as `nvpmodel -m` does
faults     what goes wrong, one a line: PATTERN read|write|any EFFECT [CHANCE]; write `none` to end
"""


class VirtualJetson:
    """An emulated Jetson and the files that its kernel shows.

    Attributes:
        tree: the files, by their path on a real board.
        board: the physics behind them.
        clocks: what the kernel holds of its clocks.
        kernel: what is known of this board under this L4T release.
    """

    def __init__(
        self,
        board: str = "agx-orin",
        l4t: int | None = None,
        workload: str = "yolov8n",
        *,
        mode: int | None = None,
        seed: int = 0,
        gpu_appears_s: float = 0.0,
        live: LiveBoard | None = None,
    ) -> None:
        """
        Args:
            board, workload: names of ``board_names()`` and ``workload_names()``.
            l4t: the release of Jetson Linux; the board's usual one by default.
            mode: nvpmodel's power mode; the one that caps nothing by default.
            seed: of all noise and of the numbers that differ between boots.
            gpu_appears_s: for so long from now the GPU sleeps and has no devfreq node, unless
                its rail gate is opened.
            live: the board itself, where the caller made it; must be of the same kind.

        Raises:
            InputError: an unknown board, workload, release or mode.
        """
        self.kernel = load_kernel(board, l4t)
        self.board = live or LiveBoard(board, workload, seed=seed)
        self.tree = Tree(seed)
        self._workload = workload
        now_s = self.board.clock.now()
        self._gpu_appears_s = now_s + gpu_appears_s
        self._booted_s = now_s - (0.0 if gpu_appears_s else UP_S)
        self._rail_gate = "1"
        self._took_s = 0.0
        self.clocks = Clocks(self.kernel, self.board)
        self._build(seed)
        self.clocks.set_mode(self.kernel.uncapped_mode if mode is None else mode)

    # -- the files ----------------------------------------------------------------------------

    def _build(self, seed: int) -> None:
        self._add_identity()
        self._add_cpu()
        if self.kernel.soc_name == "t264":
            self._add_thor_gpu()
        else:
            self._add_gpu()
        self._add_emc()
        self._add_control()
        # hwmon numbers differ from boot to boot.
        Sensors(self.tree, self.kernel, self.board, hwmon=seed % 3)

    def _text(self, path: str, text: str) -> None:
        self.tree.add(path, File(lambda: text))

    def _file(
        self,
        path: str,
        read: Callable[[], object],
        write: Callable[[str], None] | None = None,
        mode: int = 0o444,
        exists: Callable[[], bool] = lambda: True,
    ) -> None:
        """A file of one line; writable by root if ``write`` is given."""
        mode = mode | 0o200 if write else mode
        self.tree.add(path, File(lambda: f"{read()}\n", write, mode, exists))

    def _add_identity(self) -> None:
        kernel, tree = self.kernel, "/sys/firmware/devicetree/base"
        self._text(f"{tree}/model", f"{kernel.model}\0")
        self._text(f"{tree}/compatible", "".join(f"{name}\0" for name in kernel.compatible))
        self.tree.link("/proc/device-tree", tree)
        self._text("/etc/nv_tegra_release", _release(kernel))
        self._text("/proc/version", f"Linux version {kernel.release.kernel}-tegra (emulated)\n")
        self._file("/proc/uptime", lambda: f"{self.board.clock.now() - self._booted_s:.2f} 0.00")
        conf = f"/etc/nvpmodel/{kernel.conf}"
        self._text(conf, configuration(kernel, self._gpu_path))
        self.tree.link("/etc/nvpmodel.conf", conf)
        self._file("/var/lib/nvpmodel/status", lambda: f"pmode:{self.clocks.mode.id:04d}")
        fuse = "/sys/module/tegra_fuse/parameters/tegra_chip_id"
        self._file(fuse, lambda: kernel.soc.chip_id)

    @property
    def _gpu_path(self) -> str:
        """The GPU's devfreq directory."""
        if self.kernel.soc_name == "t264":
            return f"{DEVFREQ}/gpu-gpc-0"
        device = self.kernel.release.gpu
        return f"{device}/devfreq/{posixpath.basename(device)}"

    # -- CPU ----------------------------------------------------------------------------------

    def _add_cpu(self) -> None:
        cores = self.kernel.cores
        self._file(f"{CPU_ROOT}/possible", lambda: _ranges(cores))
        self._file(f"{CPU_ROOT}/present", lambda: _ranges(cores))
        self._file(f"{CPU_ROOT}/online", lambda: _ranges(sorted(self.clocks.online)))
        for limits, policy in zip(self.clocks.policies, self.kernel.policies, strict=True):
            self._add_policy(limits, policy)
        for core in cores:
            self._add_core(core)

    def _add_core(self, core: int) -> None:
        directory = f"{CPU_ROOT}/cpu{core}"
        self._file(
            f"{directory}/online",
            lambda: int(core in self.clocks.online),
            partial(self._write_online, core),
        )
        policy = next(cores for cores in self.kernel.policies if core in cores)
        self.tree.link(
            f"{directory}/cpufreq",
            f"{CPU_ROOT}/cpufreq/policy{policy[0]}",
            exists=lambda: core in self.clocks.online,
        )
        for number, name in enumerate(self.kernel.soc.idle_states):
            state = f"{directory}/cpuidle/state{number}"
            self._file(f"{state}/name", lambda name=name: name)
            self._stored(f"{state}/disable", "0")

    def _write_online(self, core: int, text: str) -> None:
        self.clocks.set_online(core, parse_number(text) != 0)

    def _add_policy(self, limits: Limits, cores: Sequence[int]) -> None:
        directory = f"{CPU_ROOT}/cpufreq/policy{cores[0]}"
        self.tree.directory(directory, exists=lambda: bool(self.clocks.online & set(cores)))

        def online() -> list[int]:
            return [core for core in cores if core in self.clocks.online]

        def within(index: int) -> int:
            low, high = limits.bounds()
            return limits.levels[min(max(index, low), high)]

        add = partial(self._add_at, directory)
        add("scaling_min_freq", lambda: limits.low, limits.write_low)
        add("scaling_max_freq", lambda: limits.high, limits.write_high)
        add("scaling_cur_freq", lambda: within(self.board.clocks[CPU]))
        add("cpuinfo_cur_freq", lambda: within(self.board.clocks_in_force[CPU]), mode=0o400)
        add("cpuinfo_min_freq", lambda: limits.levels[0])
        add("cpuinfo_max_freq", lambda: limits.levels[-1])
        add("scaling_available_frequencies", lambda: _list(limits.levels))
        add("scaling_governor", lambda: limits.governor, limits.write_governor)
        add("scaling_available_governors", lambda: _list(limits.governors))
        add("scaling_setspeed", lambda: _setspeed(limits), limits.write_fixed)
        add("scaling_driver", lambda: self.kernel.soc.cpufreq_driver)
        add("affected_cpus", lambda: _list(online()))
        add("related_cpus", lambda: _list(cores))

    def _add_at(
        self,
        directory: str,
        name: str,
        read: Callable[[], object],
        write: Callable[[str], None] | None = None,
        mode: int = 0o444,
    ) -> None:
        self._file(f"{directory}/{name}", read, write, mode)

    # -- GPU ----------------------------------------------------------------------------------

    def _gpu_awake(self) -> bool:
        return self._rail_gate == "0" or self.board.clock.now() >= self._gpu_appears_s

    def _write_rail_gate(self, text: str) -> None:
        self._rail_gate = str(int(parse_number(text) != 0))

    def _add_gpu(self) -> None:
        release = self.kernel.release
        device, name = release.gpu, posixpath.basename(release.gpu)
        self._text(f"{device}/of_node/name", f"{release.gpu_node}\0")
        self._text(f"{device}/of_node/compatible", f"{self.kernel.soc.gpu_compatible}\0")
        self._file(f"{device}/railgate_enable", lambda: self._rail_gate, self._write_rail_gate)
        self._file(f"{device}/load", self._gpu_load)
        self._stored(f"{device}/power/control", "auto")
        self._stored(f"{device}/tpc_pg_mask", "0")
        if self.kernel.l4t < 39:
            self._stored(f"{device}/enable_3d_scaling", "1")
        self._add_devfreq(f"{device}/devfreq/{name}", self.clocks.gpu, GPU, self._gpu_awake)
        self.tree.link(f"{device}/devfreq_dev", f"{device}/devfreq/{name}", self._gpu_awake)
        self.tree.link(f"{DEVFREQ}/{name}", f"{device}/devfreq/{name}", self._gpu_awake)
        for link in release.gpu_links:
            self.tree.link(link, device)
        self._add_other_devfreq(posixpath.dirname(device))

    def _add_other_devfreq(self, parent: str) -> None:
        """Another engine with a clock of its own: what a search by position would hit first."""
        device = f"{parent}/15340000.vic"
        clock = Limits(
            [115200000, 729600000], ("tegra_wmark", "performance", "userspace"),
            strict=self.kernel.old, step=1, changed=_nothing,
        )  # fmt: skip
        self._text(f"{device}/of_node/name", "vic\0")
        self._text(f"{device}/of_node/compatible", f"nvidia,{self.kernel.soc_name}-vic\0")
        self._add_devfreq(f"{device}/devfreq/15340000.vic", clock, None)
        self.tree.link(f"{DEVFREQ}/15340000.vic", f"{device}/devfreq/15340000.vic")

    def _add_devfreq(
        self,
        directory: str,
        limits: Limits,
        knob: int | None,
        exists: Callable[[], bool] = lambda: True,
    ) -> None:
        """``knob``: the board's clock behind it; None: one that stands at its lower limit."""

        def current() -> int:
            index = limits.bounds()[0] if knob is None else self.board.clocks[knob]
            return limits.levels[index]

        self.tree.directory(directory, exists=exists)
        self.tree.link(f"{directory}/device", posixpath.dirname(posixpath.dirname(directory)))
        add = partial(self._add_at, directory)
        add("governor", lambda: limits.governor, limits.write_governor)
        add("available_governors", lambda: _list(limits.governors))
        add("cur_freq", current)
        add("target_freq", current)
        add("available_frequencies", lambda: _list(limits.levels))
        add("min_freq", lambda: limits.low, limits.write_low)
        add("max_freq", lambda: limits.high, limits.write_high)
        self._stored(f"{directory}/polling_interval", "25")
        self.tree.directory(f"{directory}/userspace", exists=lambda: limits.governor == "userspace")
        add("userspace/set_freq", lambda: limits.fixed, limits.write_fixed)

    def _gpu_load(self) -> int:
        """In thousandths."""
        return 990 if self.board.busy else 0

    def _add_thor_gpu(self) -> None:
        """A PCI device without device tree node; its clocks are named, not addressed."""
        device = self.kernel.release.gpu
        self._stored(f"{device}/power/control", "auto")
        self.tree.link(f"/sys/bus/pci/devices/{THOR_PCI}", device)
        self._text(f"/proc/driver/nvidia/gpus/{THOR_PCI}/power", "Runtime D3 status: Enabled\n")
        self._add_devfreq(f"{device}/devfreq/gpu-gpc-0", self.clocks.gpu, GPU, self._gpu_awake)
        self.tree.link(f"{DEVFREQ}/gpu-gpc-0", f"{device}/devfreq/gpu-gpc-0", self._gpu_awake)
        codec_hz = self.kernel.codec_hz or 0
        codec = Limits(
            [codec_hz // 2, codec_hz], GPU_GOVERNORS, strict=False, step=1000,
            changed=_nothing,
        )  # fmt: skip
        self._add_devfreq(f"{device}/devfreq/gpu-nvd-0", codec, None)
        self.tree.link(f"{DEVFREQ}/gpu-nvd-0", f"{device}/devfreq/gpu-nvd-0")

    # -- memory -------------------------------------------------------------------------------

    def _add_emc(self) -> None:
        self.tree.directory("/sys/kernel/debug", mode=0o700)
        emc = self.clocks.emc
        cap_mode = 0o660 if self.kernel.l4t < 36 else 0o444
        self._file(emc_cap_path(self.kernel), lambda: emc.cap, emc.write_cap, cap_mode)
        if self.kernel.soc.emc == "override":
            self._add_override()
        else:
            self._add_bpmp()
        if self.kernel.soc.emc == "bwmgr":
            self._add_bwmgr()

    def _emc_rate(self) -> int:
        return self.clocks.emc.levels[self.board.clocks[EMC]]

    def _add_override(self) -> None:
        """T210."""
        emc, add = self.clocks.emc, partial(self._add_at, "/sys/kernel/debug/clk/override.emc")
        add("clk_rate", self._emc_rate)
        add("clk_update_rate", self._emc_rate, emc.write_rate)
        add("clk_state", lambda: int(emc.locked), emc.write_locked)
        add = partial(self._add_at, "/sys/kernel/debug/tegra_bwmgr")
        add("emc_rate", self._emc_rate)
        add("emc_min_rate", lambda: emc.levels[0])
        add("emc_max_rate", lambda: emc.levels[-1])

    def _add_bpmp(self) -> None:
        emc, add = self.clocks.emc, partial(self._add_at, f"{BPMP}/clk/emc")
        add("rate", self._emc_rate, emc.write_rate)
        add("min_rate", lambda: emc.levels[0])
        add("max_rate", lambda: emc.levels[-1])
        add("mrq_rate_locked", lambda: int(emc.locked), emc.write_locked)
        add("state", lambda: int(emc.state), emc.write_state)
        add("pto_counter", lambda: emc.levels[self.board.clocks_in_force[EMC]])
        table = "dvfs" if self.kernel.soc.emc == "bwmgr" else "dvfs_table"
        rows = "\n".join(f"{index} {hz}" for index, hz in enumerate(emc.levels))
        add(table, lambda: rows)
        if self.kernel.soc.emc == "bpmp":
            khz = _list([hz // 1000 for hz in emc.levels])
            self._file(f"{BPMP}/emc/possible_rates", lambda: f"{khz} (kHz)")
        self._file("/sys/kernel/debug/clk/emc/clk_rate", self._emc_rate)

    def _add_bwmgr(self) -> None:
        """Thor: a devfreq node for the memory, and a bandwidth manager that must be halted."""
        emc, limits = self.clocks.emc, self.clocks.bwmgr
        self._file(f"{BPMP}/bwmgr/bwmgr_halt", lambda: int(emc.halted), emc.write_halted)
        directory = "/sys/devices/platform/bwmgr/devfreq/bwmgr"
        self.tree.link(f"{DEVFREQ}/bwmgr", directory)
        add = partial(self._add_at, directory)
        add("cur_freq", self._emc_rate)
        add("min_freq", lambda: limits.low, limits.write_low)
        add("max_freq", lambda: limits.high, limits.write_high)
        add("governor", lambda: limits.governor, limits.write_governor)

    # -- what only a virtual board has ----------------------------------------------------------

    def _add_control(self) -> None:
        board = self.board
        about = ABOUT.format(title=board.info.description, l4t=self.kernel.l4t)
        self._text(f"{CONTROL}/README", about)
        add = partial(self._add_at, CONTROL)
        add("infer", lambda: self._took_s, self._infer)
        add("latency_s", lambda: board.latency_s)
        add("spent_j", lambda: board.spent_j)
        add("workload", lambda: self._workload, self._write_workload)
        add("ambient_c", lambda: board.ambient_c, _as_einval(_ambient(board)))
        add("nvpmodel", lambda: self.clocks.mode.id, _as_einval(self._write_mode))
        add("faults", self._read_faults, _as_einval(self._write_faults))

    def _infer(self, text: str) -> None:
        items = parse_number(text)
        if items < 1:
            raise refusal(errno.EINVAL)
        span = self.board.infer(items)
        self._took_s = span.end_s - span.start_s

    def _write_workload(self, text: str) -> None:
        _as_einval(self.board.run)(text.strip())
        self._workload = text.strip()

    def _write_mode(self, text: str) -> None:
        self.clocks.set_mode(parse_number(text))

    def _read_faults(self) -> str:
        return "\n".join(map(str, self.tree.faults)) or "none"

    def _write_faults(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line.strip() not in ("", "none")]
        self.tree.faults = tuple(parse_fault(line) for line in lines)

    def _stored(self, path: str, value: str) -> None:
        """A file that keeps what is written to it and does nothing else."""
        held = [value]

        def write(text: str) -> None:
            held[0] = text.strip()

        self._file(path, lambda: held[0], write)


def _nothing() -> None:
    """Follows the limits of a clock that the emulated board has not."""


def _ambient(board: LiveBoard) -> Callable[[str], None]:
    return lambda text: board.set_ambient(float(text))


def _as_einval(write: Callable[[str], None]) -> Callable[[str], None]:
    """``write`` with the errno that a kernel would answer to bad input."""

    def checked(text: str) -> None:
        try:
            write(text)
        except (InputError, ValueError):
            raise refusal(errno.EINVAL) from None

    return checked


def _release(kernel: Kernel) -> str:
    release = kernel.release
    first = (
        f"# R{kernel.l4t} (release), REVISION: {release.revision}, GCID: 0, "
        f"BOARD: {release.release_board}, EABI: aarch64, DATE: Thu Jan  1 00:00:00 UTC 1970\n"
    )
    return first + ("# KERNEL_VARIANT: oot\n" if kernel.l4t >= 36 else "")


def _setspeed(limits: Limits) -> object:
    return limits.fixed if limits.governor == "userspace" else "<unsupported>"


def _list(values: Sequence[object]) -> str:
    return " ".join(map(str, values))


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3,6`` for 0, 1, 2, 3, 6."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
