"""The files of a virtual Jetson, without a mount: what each kernel shows, takes and refuses."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.devices.emulated import VirtualClock, board_names
from governor.devices.emulated.kernel import l4t_releases
from governor.devices.emulated.limits import Emc, Limits
from governor.devices.emulated.live import LiveBoard
from governor.devices.emulated.sysfs import CONTROL, VirtualJetson
from governor.devices.emulated.tree import Fault, parse_fault
from governor.errors import InputError
from governor.space import OperatingPoint

POLICY = "/sys/devices/system/cpu/cpufreq/policy0"
EMC = "/sys/kernel/debug/bpmp/debug/clk/emc"
OVERRIDE = "/sys/kernel/debug/clk/override.emc"
CHIPS = (b"20b", b"10b", b"11b")
"""What the names of the chips' GPUs end in: gm20b, gp10b, ga10b, gv11b."""
EVERY_RELEASE = [(board, l4t) for board in board_names() for l4t in l4t_releases(board)]


class Board:
    """A virtual Jetson in virtual time; files are written and read as text."""

    def __init__(self, name: str = "agx-orin", l4t: int | None = None, **options: float) -> None:
        self.clock = VirtualClock()
        live = LiveBoard(name, clock=self.clock, noise=False)
        self.jetson = VirtualJetson(name, l4t, live=live, **options)
        self.tree, self.live = self.jetson.tree, live

    def __getitem__(self, path: str) -> str:
        return self.tree.read(path).decode().strip()

    def __setitem__(self, path: str, value: object) -> None:
        self.tree.write(path, f"{value}\n".encode())

    def exists(self, path: str) -> bool:
        try:
            self.tree.resolve(path)
        except FileNotFoundError:
            return False
        return True

    @property
    def gpu(self) -> str:
        """The GPU's devfreq directory, found as a program must: by what it is."""
        devfreq = "/sys/class/devfreq"
        for name in self.tree.names(devfreq):
            if name == "gpu-gpc-0":
                return f"{devfreq}/{name}"
            node = f"{devfreq}/{name}/device/of_node/compatible"
            if self.exists(node) and self.tree.read(node).strip(b"\0")[-3:] in CHIPS:
                return f"{devfreq}/{name}"
        raise AssertionError("no GPU")

    def hwmon(self, label: str) -> tuple[str, int]:
        """The directory and number of a rail's channel under Linux 5."""
        for name in self.tree.names("/sys/class/hwmon"):
            for channel in (1, 2, 3):
                path = f"/sys/class/hwmon/{name}"
                if (
                    self.exists(f"{path}/in{channel}_label")
                    and self[f"{path}/in{channel}_label"] == label
                ):
                    return path, channel
        raise AssertionError(f"no rail {label}")


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what counts
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


# What is there ---------------------------------------------------------------------------------


def answer(board: Board, path: str) -> str:
    try:
        content = board.tree.read(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "text" if content.endswith((b"\n", b"\0")) else "unfinished"


@pytest.mark.parametrize(("name", "l4t"), EVERY_RELEASE)
def test_every_file_answers_as_the_kernel_does(name: str, l4t: int) -> None:
    board = Board(name, l4t)
    for path in board.tree.files():
        assert answer(board, path) in ("text", "EAGAIN", "ENODATA"), path


@pytest.mark.parametrize(("name", "l4t"), EVERY_RELEASE)
def test_clock_tables_are_those_of_the_emulated_board(name: str, l4t: int) -> None:
    board = Board(name, l4t)
    cpu, gpu, _ = (knob.levels for knob in board.live.space.knobs)
    listed = board[f"{POLICY}/scaling_available_frequencies"].split()
    assert [1e3 * int(khz) for khz in listed] == list(cpu)
    listed = board[f"{board.gpu}/available_frequencies"].split()
    assert [float(hz) for hz in listed] == list(gpu)


def test_device_tree_strings_end_in_nul() -> None:
    tree = Board("nano").tree
    assert tree.read("/proc/device-tree/model") == b"NVIDIA Jetson Nano Developer Kit\0"
    names = tree.read("/proc/device-tree/compatible").split(b"\0")
    assert names[-2:] == [b"nvidia,tegra210", b""]


@pytest.mark.parametrize(("name", "l4t"), EVERY_RELEASE)
def test_the_release_file_names_the_release(name: str, l4t: int) -> None:
    assert Board(name, l4t)["/etc/nv_tegra_release"].startswith(f"# R{l4t} (release), REVISION: ")


@pytest.mark.parametrize(
    ("name", "l4t", "path"),
    [
        ("nano", 32, "/sys/devices/gpu.0/devfreq/57000000.gpu/cur_freq"),
        ("tx2", 32, "/sys/devices/17000000.gp10b/devfreq/17000000.gp10b/cur_freq"),
        ("agx-xavier", 35, "/sys/devices/17000000.gv11b/devfreq_dev/cur_freq"),
        ("agx-orin", 35, "/sys/class/devfreq/17000000.ga10b/cur_freq"),
        ("orin-nano", 36, "/sys/devices/platform/17000000.gpu/devfreq_dev/cur_freq"),
        ("agx-thor", 38, "/sys/class/devfreq/gpu-gpc-0/cur_freq"),
    ],
)
def test_the_gpu_lies_where_each_generation_has_it(name: str, l4t: int, path: str) -> None:
    board = Board(name, l4t)
    assert board[path] == board[f"{board.gpu}/cur_freq"]


def test_the_files_say_that_they_are_emulated() -> None:
    board = Board()
    assert "emulated" in board[f"{CONTROL}/README"]
    assert "emulated" in board["/proc/version"].lower()


def test_an_unknown_release_or_mode_is_refused() -> None:
    with pytest.raises(InputError, match="choose one of 32"):
        VirtualJetson("nano", 36)
    with pytest.raises(InputError, match=r"no power mode 9; choose one of 0 .MAXN., 1 .5W.$"):
        VirtualJetson("nano", mode=9)


# Clock limits ----------------------------------------------------------------------------------


def test_linux_4_9_refuses_a_minimum_above_the_maximum() -> None:
    board = Board("tx2", 32)
    board[f"{board.gpu}/max_freq"] = 420750000
    with refused(errno.EINVAL):
        board[f"{board.gpu}/min_freq"] = 522750000
    assert board[f"{board.gpu}/min_freq"] == "114750000"
    with refused(errno.EINVAL):
        board[f"{POLICY}/scaling_min_freq"] = 9999999


def test_linux_4_9_refuses_a_maximum_below_the_minimum() -> None:
    board = Board("tx2", 32)
    board[f"{board.gpu}/min_freq"] = 522750000
    with refused(errno.EINVAL):
        board[f"{board.gpu}/max_freq"] = 420750000


def test_linux_5_takes_the_wrong_order_and_clips_the_minimum() -> None:
    board = Board("agx-orin", 36)
    board[f"{board.gpu}/max_freq"] = 408000000
    board[f"{board.gpu}/min_freq"] = 816000000
    assert board[f"{board.gpu}/min_freq"] == "408000000"
    board[f"{board.gpu}/max_freq"] = 1020000000
    assert board[f"{board.gpu}/min_freq"] == "816000000"


def test_linux_4_9_lifts_a_minimum_of_0_to_the_table() -> None:
    board = Board("nano")
    board[f"{board.gpu}/min_freq"] = 0
    assert board[f"{board.gpu}/min_freq"] == "76800000"


def test_linux_5_takes_a_maximum_of_0_as_no_limit() -> None:
    board = Board("orin-nx", 36)
    board[f"{board.gpu}/max_freq"] = 408000000
    board[f"{board.gpu}/max_freq"] = 0
    assert board[f"{board.gpu}/max_freq"] == "918000000"


def test_a_limit_between_two_levels_is_kept_and_the_clock_is_one_of_the_table() -> None:
    board = Board("nano")
    board[f"{board.gpu}/max_freq"] = 640000000
    board[f"{board.gpu}/min_freq"] = 640000000
    assert board[f"{board.gpu}/max_freq"] == "640000000"
    assert board[f"{board.gpu}/cur_freq"] == "614400000"


def test_no_number_is_refused() -> None:
    board = Board()
    for text in ("", "fast", "-5", "1.5e9"):
        with refused(errno.EINVAL):
            board[f"{board.gpu}/max_freq"] = text


def test_a_read_only_file_refuses_even_root() -> None:
    board = Board()
    with refused(errno.EACCES):
        board[f"{board.gpu}/cur_freq"] = 1


def test_an_unknown_governor_is_refused() -> None:
    board = Board()
    with refused(errno.EINVAL):
        board[f"{board.gpu}/governor"] = "warp"


def test_the_performance_governor_holds_the_highest_clock() -> None:
    board = Board()
    board[f"{POLICY}/scaling_governor"] = "performance"
    assert board[f"{POLICY}/scaling_cur_freq"] == board[f"{POLICY}/scaling_max_freq"]


def test_the_userspace_governor_has_its_file_only_while_it_is_chosen() -> None:
    board = Board()
    path = f"{board.gpu}/userspace/set_freq"
    assert not board.exists(path)
    board[f"{board.gpu}/governor"] = "userspace"
    board[path] = 510000000
    assert board[f"{board.gpu}/cur_freq"] == "510000000"


LEVELS = [100, 200, 300, 400]
WRITES = st.lists(st.tuples(st.sampled_from(["low", "high"]), st.integers(0, 500)))


@given(writes=WRITES, strict=st.booleans(), step=st.sampled_from([1, 10]))
def test_limits_read_back_in_order_whatever_is_written(
    writes: list[tuple[str, int]], strict: bool, step: int
) -> None:
    limits = Limits(LEVELS, ["g"], strict=strict, step=step, changed=lambda: None)
    for which, value in writes:
        before = limits.low, limits.high
        try:
            (limits.write_low if which == "low" else limits.write_high)(str(value))
        except OSError:
            assert strict
            assert (limits.low, limits.high) == before
        low, high = limits.bounds()
        assert 100 <= limits.low <= limits.high <= 400
        assert 0 <= low <= high < len(LEVELS)
        assert LEVELS[high] <= limits.high


# Cores -----------------------------------------------------------------------------------------


def test_a_cluster_without_cores_online_has_no_policy() -> None:
    board = Board("orin-nano")
    for core in (4, 5):
        board[f"/sys/devices/system/cpu/cpu{core}/online"] = 0
    assert not board.exists("/sys/devices/system/cpu/cpufreq/policy4")
    assert board["/sys/devices/system/cpu/online"] == "0-3"


def test_core_0_stays_online() -> None:
    board = Board()
    with refused(errno.EBUSY):
        board["/sys/devices/system/cpu/cpu0/online"] = 0


def test_a_cluster_limited_alone_leaves_the_work_to_a_faster_one() -> None:
    board = Board("orin-nano")
    before = board.live.latency_s
    other = "/sys/devices/system/cpu/cpufreq/policy4"
    board[f"{other}/scaling_min_freq"] = 115200
    board[f"{other}/scaling_max_freq"] = 729600
    board.clock.sleep(0.01)
    assert board[f"{other}/scaling_cur_freq"] == "729600"
    assert board.live.latency_s == before


# A GPU that comes late -------------------------------------------------------------------------


def test_a_late_gpu_has_no_node_until_its_time() -> None:
    board = Board("agx-orin", 36, gpu_appears_s=30.0)
    assert "17000000.gpu" not in board.tree.names("/sys/class/devfreq")
    board.clock.sleep(31.0)
    assert "17000000.gpu" in board.tree.names("/sys/class/devfreq")


def test_opening_its_rail_gate_brings_a_late_gpu() -> None:
    board = Board("agx-orin", 36, gpu_appears_s=30.0)
    board["/sys/devices/platform/gpu.0/railgate_enable"] = 0
    assert "17000000.gpu" in board.tree.names("/sys/class/devfreq")


# Memory ----------------------------------------------------------------------------------------


def test_a_locked_rate_is_rounded_up() -> None:
    board = Board("orin-nano")
    board[f"{EMC}/mrq_rate_locked"] = 1
    for asked, got in ((408, 665.6), (1062.4, 2133), (2400, 3199), (204, 204)):
        board[f"{EMC}/rate"] = round(asked * 1e6)
        assert float(board[f"{EMC}/rate"]) == got * 1e6


def test_a_rate_above_the_table_is_ignored_silently() -> None:
    board = Board("orin-nano")
    board[f"{EMC}/mrq_rate_locked"] = 1
    board[f"{EMC}/rate"] = 665600000
    board[f"{EMC}/rate"] = 9000000000
    assert board[f"{EMC}/rate"] == "665600000"


def test_a_rate_without_lock_is_the_bandwidth_managers() -> None:
    board = Board("orin-nano")
    before = board[f"{EMC}/rate"]
    board[f"{EMC}/rate"] = 204000000
    assert board[f"{EMC}/rate"] == before


def test_a_cap_holds_for_a_locked_rate_too() -> None:
    board = Board("orin-nano")
    board["/sys/kernel/nvpmodel_clk_cap/emc"] = 2133000000
    board[f"{EMC}/mrq_rate_locked"] = 1
    board[f"{EMC}/rate"] = 3199000000
    assert board[f"{EMC}/rate"] == "2133000000"


def test_t210_overrides_a_clock_of_the_clock_framework() -> None:
    board = Board("nano")
    board[f"{OVERRIDE}/clk_state"] = 1
    board[f"{OVERRIDE}/clk_update_rate"] = 700000000
    assert board[f"{OVERRIDE}/clk_rate"] == "800000000"
    assert board["/sys/kernel/debug/tegra_bwmgr/emc_rate"] == "800000000"


def test_thors_lock_counts_once_its_bandwidth_manager_is_halted() -> None:
    board = Board("agx-thor")
    board[f"{EMC}/mrq_rate_locked"] = 1
    board[f"{EMC}/rate"] = 665600000
    assert board[f"{EMC}/rate"] != "665600000"
    board["/sys/kernel/debug/bpmp/debug/bwmgr/bwmgr_halt"] = 1
    assert board[f"{EMC}/rate"] == "665600000"


def test_thors_memory_is_pinned_by_its_devfreq_node() -> None:
    board = Board("agx-thor")
    for limit in ("min_freq", "max_freq", "min_freq"):
        board[f"/sys/class/devfreq/bwmgr/{limit}"] = 3200000000
    assert board["/sys/class/devfreq/bwmgr/cur_freq"] == "3200000000"


@given(
    rate=st.integers(0, 600), cap=st.integers(0, 600), locked=st.booleans(), halted=st.booleans()
)
def test_memory_bounds_are_levels_under_the_cap(
    rate: int, cap: int, locked: bool, halted: bool
) -> None:
    emc = Emc(LEVELS, uncapped=0, changed=lambda: None)
    emc.write_halted(str(int(halted)))
    emc.write_locked(str(int(locked)))
    emc.write_rate(str(rate))
    emc.write_cap(str(cap))
    low, high = emc.bounds()
    assert 0 <= low <= high < len(LEVELS)
    assert (low == high) == (locked and halted) or high == 0
    assert not cap or LEVELS[high] <= max(cap, LEVELS[0])


# Sensors ---------------------------------------------------------------------------------------


def test_linux_4_9_shows_power_in_milliwatts_by_iio() -> None:
    board = Board("nano")
    (chip,) = (f"/sys/bus/i2c/drivers/ina3221x/6-0040/{name}"
               for name in board.tree.names("/sys/bus/i2c/drivers/ina3221x/6-0040")
               if name.startswith("iio"))  # fmt: skip
    assert board[f"{chip}/rail_name_0"] == "POM_5V_IN"
    product = int(board[f"{chip}/in_voltage0_input"]) * int(board[f"{chip}/in_current0_input"])
    assert int(board[f"{chip}/in_power0_input"]) == product // 1000
    assert board[f"{chip}/crit_current_limit_0"].endswith(" ma")


def test_linux_5_shows_no_power_and_counts_channels_from_1() -> None:
    board = Board("orin-nano")
    path, channel = board.hwmon("VDD_IN")
    assert channel == 1
    assert not board.exists(f"{path}/power1_input")
    assert board[f"{path}/in7_label"] == "sum of shunt voltages"


def test_a_disabled_channel_has_no_data() -> None:
    board = Board("agx-orin")
    path, channel = board.hwmon("NC")
    with refused(errno.ENODATA):
        _ = board[f"{path}/curr{channel}_input"]


def test_thors_carrier_shows_microwatts() -> None:
    board = Board("agx-thor")
    folder = "/sys/bus/i2c/drivers/ina238/2-0044/hwmon"
    (hwmon,) = board.tree.names(folder)
    total_w = board.live.sample().power_w["VIN"]
    assert float(board[f"{folder}/{hwmon}/power1_input"]) == pytest.approx(1e6 * total_w, abs=1)


def test_a_reading_stays_until_the_sensor_refreshes() -> None:
    board = Board("orin-nano")
    path, channel = board.hwmon("VDD_IN")
    reading = f"{path}/curr{channel}_input"
    board.live.infer()
    board.clock.sleep(1.0)
    board.clock.sleep(0.43 - board.clock.now() % 0.43)
    seen = {board[reading]}
    for _ in range(6):
        board.clock.sleep(0.05)
        seen.add(board[reading])
    assert len(seen) <= 2
    board.clock.sleep(0.43)
    assert board[reading] not in seen or len(seen) == 1


def test_a_current_comes_in_the_steps_of_its_shunt() -> None:
    board = Board("agx-orin")
    path, channel = board.hwmon("VDD_GPU_SOC")
    assert int(board[f"{path}/curr{channel}_input"]) % 20 == 0


def test_zones_of_blocks_that_are_off_answer_eagain() -> None:
    board = Board("orin-nano")
    zones = [
        f"/sys/class/thermal/{name}"
        for name in board.tree.names("/sys/class/thermal")
        if name.startswith("thermal_zone")
    ]
    off = [zone for zone in zones if board[f"{zone}/type"].startswith("cv")]
    assert len(off) == 3
    for zone in off:
        with refused(errno.EAGAIN):
            _ = board[f"{zone}/temp"]


def test_the_pmic_always_says_100_degrees() -> None:
    board = Board("nano")
    zone = next(
        f"/sys/class/thermal/{name}"
        for name in board.tree.names("/sys/class/thermal")
        if board[f"/sys/class/thermal/{name}/type"] == "PMIC-Die"
    )
    assert board[f"{zone}/temp"] == "100000"


def test_heat_throttles_and_the_cooling_device_says_so() -> None:
    board = Board("agx-orin")
    board[f"{CONTROL}/ambient_c"] = 105
    board.clock.sleep(300.0)
    assert int(board["/sys/class/thermal/cooling_device1/cur_state"]) > 0


# Physics behind the files ----------------------------------------------------------------------


def pin(board: Board, point: OperatingPoint) -> None:
    """As a program pins clocks: maximum first where it rises, here both ways by three writes."""
    khz, hz = round(point["cpu_hz"] / 1e3), round(point["gpu_hz"])
    policies = "/sys/devices/system/cpu/cpufreq"
    for policy in board.tree.names(policies):
        for limit in ("min", "max", "min"):
            board[f"{policies}/{policy}/scaling_{limit}_freq"] = khz
    for limit in ("min", "max", "min"):
        board[f"{board.gpu}/{limit}_freq"] = hz
    board[f"{EMC}/mrq_rate_locked"] = 1
    board[f"{EMC}/rate"] = round(point["emc_hz"])
    board.clock.sleep(0.02)


@pytest.mark.parametrize("index", [0.0, 0.3, 0.6, 1.0])
def test_pinned_clocks_give_the_emulated_latency(index: float) -> None:
    board = Board("agx-orin", 36)
    space = board.live.space
    point = space.point(round(index * (len(space) - 1)))
    pin(board, point)
    span = board.live.infer()
    assert span.end_s - span.start_s == pytest.approx(board.live.true_latency_s(point), rel=1e-6)
    assert board.live.read() == point


def test_energy_at_pinned_clocks_is_the_boards_own() -> None:
    board = Board("orin-nano", 36)
    space = board.live.space
    point = space.point(space.fastest)
    pin(board, point)
    for _ in range(4000):
        board.live.infer()
    before_j = float(board[f"{CONTROL}/spent_j"])
    for _ in range(50):
        board.live.infer()
    spent_j = (float(board[f"{CONTROL}/spent_j"]) - before_j) / 50
    # The heat sink has not settled yet, and leakage follows its temperature.
    assert spent_j == pytest.approx(board.live.true_energy_j(point), rel=0.02)


def test_the_kernels_governors_run_while_nothing_is_pinned() -> None:
    board = Board("agx-orin")
    board.clock.sleep(3.0)
    idle = int(board[f"{board.gpu}/cur_freq"])
    for _ in range(60):
        board.live.infer()
    assert int(board[f"{board.gpu}/cur_freq"]) > idle


def test_governors_that_get_a_clock_back_begin_anew() -> None:
    board = Board("orin-nano")
    pin(board, board.live.space.point(0))
    board.clock.sleep(60.0)
    spent_j = float(board[f"{CONTROL}/spent_j"])
    board[f"{POLICY}/scaling_max_freq"] = 1728000
    for _ in range(20):
        board.live.infer()
        assert float(board[f"{CONTROL}/spent_j"]) > spent_j
        spent_j = float(board[f"{CONTROL}/spent_j"])
    assert board[f"{POLICY}/scaling_cur_freq"] == "1728000"


def test_one_inference_through_the_control_file_takes_the_emulated_time() -> None:
    board = Board("nano")
    start_s = board.clock.now()
    board[f"{CONTROL}/infer"] = 1
    took_s = board.clock.now() - start_s
    assert took_s == pytest.approx(float(board[f"{CONTROL}/infer"]))
    assert took_s == pytest.approx(float(board[f"{CONTROL}/latency_s"]), rel=0.3)
    with refused(errno.EINVAL):
        board[f"{CONTROL}/infer"] = 0


def test_the_workload_can_be_changed() -> None:
    board = Board()
    before_s = board.live.latency_s
    board[f"{CONTROL}/workload"] = "resnet-101"
    assert board.live.latency_s != before_s
    with refused(errno.EINVAL):
        board[f"{CONTROL}/workload"] = "doom"


# Power modes -----------------------------------------------------------------------------------


def test_a_mode_sets_the_limits_to_the_nearest_levels() -> None:
    board = Board("nano", mode=1)
    assert board[f"{POLICY}/scaling_max_freq"] == "921600"
    assert board[f"{board.gpu}/max_freq"] == "614400000"
    assert board["/sys/kernel/nvpmodel_emc_cap/emc_iso_cap"] == "1600000000"
    assert board["/sys/devices/system/cpu/online"] == "0-1"
    assert board["/var/lib/nvpmodel/status"] == "pmode:0001"


def test_a_mode_has_a_minimum_of_its_own() -> None:
    assert Board("orin-nano")[f"{POLICY}/scaling_min_freq"] == "729600"


def test_running_nvpmodel_undoes_pins() -> None:
    board = Board("orin-nano")
    board[f"{board.gpu}/max_freq"] = 408000000
    board[f"{CONTROL}/nvpmodel"] = 1
    assert board[f"{board.gpu}/max_freq"] == "918000000"


@pytest.mark.parametrize("name", board_names())
def test_the_configuration_lists_every_mode_and_real_paths(name: str) -> None:
    board = Board(name)
    text = board["/etc/nvpmodel.conf"]
    assert "Emulated" in text.splitlines()[0]
    for mode in board.jetson.kernel.modes.values():
        assert f"< POWER_MODEL ID={mode.id} NAME={mode.name} >" in text
    paths = {line.split()[1] for line in text.splitlines() if " /sys/" in line}
    assert paths
    for path in paths:
        assert board.exists(path), path


# What goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["EIO", "EINVAL", "EACCES", "ENODEV", "EAGAIN"])
@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_fault_makes_an_operation_fail(code: str, operation: str) -> None:
    board = Board()
    path = f"{board.gpu}/min_freq"
    board.tree.faults = (Fault(path, operation, code),)
    with refused(getattr(errno, code)):
        if operation == "read":
            _ = board[path]
        else:
            board[path] = 306000000
    board.tree.faults = ()
    assert board[path] == "306000000"


def test_a_fault_leaves_the_other_operation_alone() -> None:
    board = Board()
    path = f"{board.gpu}/min_freq"
    board.tree.faults = (Fault(path, "write", "EIO"),)
    assert board[path] == "306000000"


def test_garbage_and_nothing_can_be_read() -> None:
    board = Board()
    path = f"{board.gpu}/cur_freq"
    board.tree.faults = (Fault(path, "read", "empty"),)
    assert board.tree.read(path) == b""
    board.tree.faults = (Fault(path, "read", "garbage"),)
    with pytest.raises(ValueError, match="invalid literal"):
        int(board[path])


def test_a_write_can_be_lost_silently() -> None:
    board = Board()
    board.tree.faults = (Fault(f"{board.gpu}/max_freq", "write", "ignore"),)
    board[f"{board.gpu}/max_freq"] = 408000000
    assert board[f"{board.gpu}/max_freq"] == "1300500000"


def test_a_pattern_may_go_through_links() -> None:
    board = Board("agx-orin")
    board[f"{CONTROL}/faults"] = "/sys/class/thermal/thermal_zone*/temp read EIO"
    with refused(errno.EIO):
        _ = board["/sys/devices/virtual/thermal/thermal_zone0/temp"]
    board[f"{CONTROL}/faults"] = "none"
    assert int(board["/sys/devices/virtual/thermal/thermal_zone0/temp"]) > 0


@settings(max_examples=20)
@given(chance=st.floats(0.2, 0.8))
def test_a_fault_happens_about_as_often_as_asked(chance: float) -> None:
    board = Board("nano")
    path = "/var/lib/nvpmodel/status"
    board.tree.faults = (Fault(path, "read", "empty", chance),)
    lost = sum(not board.tree.read(path) for _ in range(400))
    assert lost / 400 == pytest.approx(chance, abs=0.15)


def test_a_fault_is_read_back_as_it_was_written() -> None:
    board = Board()
    line = "/sys/kernel/debug/* any EIO 0.5"
    board[f"{CONTROL}/faults"] = line
    assert board[f"{CONTROL}/faults"] == line


@pytest.mark.parametrize(
    "line", ["/sys", "/sys read", "/sys chmod EIO", "/s read EPIPE", "/s read EIO x"]
)
def test_a_malformed_fault_is_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"is not 'PATTERN|no number"):
        parse_fault(line)
    board = Board("nano")
    with refused(errno.EINVAL):
        board[f"{CONTROL}/faults"] = line
