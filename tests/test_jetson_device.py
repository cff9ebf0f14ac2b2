"""A Jetson as a device: rails and totals, heat, throttling, knobs through the lease."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jetson_kernel import DirectLease, HandClock
from sysfs_trees import KINDS, TOTALS_W, Kind, Tree, kind

from governor.devices import open_device
from governor.devices.ina3221 import find_rails
from governor.devices.jetson import BOOT_S, STUCK_POINTS, STUCK_REFRESHES, JetsonDevice
from governor.devices.polled_file import PolledFile
from governor.devices.thermal import EVENT_PERIOD_S, ZONE_PERIOD_S, Temperatures
from governor.errors import DeviceError, InputError
from governor.lease.client import Lease
from governor.lease.errors import LeaseHeldError
from governor.lease.jetson_board import Board, boards, identify
from governor.lease.jetson_controls import find
from governor.space import OperatingPoint

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def direct(root: Path) -> Callable[[], DirectLease]:
    def open_lease() -> DirectLease:
        hardware = find(root)
        assert hardware is not None
        return DirectLease(hardware.controls)

    return open_lease


def open_tree(tree: Tree, clock: HandClock | None = None) -> JetsonDevice:
    return JetsonDevice.open(tree.root, direct(tree.root), clock or HandClock())


def tree(root: Path, name: str) -> Tree:
    return Tree(root, kind(name))


def rail_folder(tree: Tree, chip: str) -> str:
    pattern = "**/rail_name_1" if tree.kind.l4t == 32 else "**/in1_label"
    (label,) = (tree.root / "sys/bus/i2c/drivers").glob(f"*/{chip}/{pattern}")
    return str(label.parent.relative_to(tree.root))


# The power mode ------------------------------------------------------------------------------


def test_a_power_mode_that_changes_meanwhile_is_told_once_and_how_to_search_its_levels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file("var/lib/nvpmodel/status", "pmode:0000\n")
    device = open_tree(here)
    device.apply(device.space.point(0))
    assert not caplog.records
    here.file("var/lib/nvpmodel/status", "pmode:0002\n")
    device.apply(device.space.point(1))
    device.close()
    (record,) = caplog.records
    assert record.getMessage().startswith("the power mode was changed from 0")
    assert record.getMessage().endswith("to search its levels, start again")


# Power ---------------------------------------------------------------------------------------


@every_kind
def test_every_watt_is_in_the_total_once(kind: Kind, tmp_path: Path) -> None:
    device = open_tree(Tree(tmp_path, kind))
    sample = device.sample()
    assert sample.power_w[device.info.total_rail] == pytest.approx(TOTALS_W[kind.board])
    device.close()


@every_kind
def test_every_rail_has_its_own_name(kind: Kind, tmp_path: Path) -> None:
    device = open_tree(Tree(tmp_path, kind))
    named = {label: watts for chip in kind.rails.values() for label, watts in chip if label != "NC"}
    read = dict(device.sample().power_w)
    read.pop("total", None)
    assert read == pytest.approx(named)
    device.close()


@pytest.mark.parametrize("board", boards(), ids=lambda board: board.name)
def test_a_total_counts_no_rail_that_is_inside_another_of_it(board: Board) -> None:
    labels = {label for chip in board.rails.values() for label in chip}
    assert set(board.total) <= labels
    assert not [label for label in board.total if board.inside.get(label) in board.total]


def test_a_sum_without_one_of_its_parts_is_no_total(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    device = open_tree(here)
    (here.root / rail_folder(here, "1-0040") / "curr2_input").write_text("")
    power_w = device.sample().power_w
    assert "VDD_CPU_CV" not in power_w
    assert "total" not in power_w
    assert power_w["VDD_GPU_SOC"] == pytest.approx(8.0)


def test_a_board_whose_total_is_not_measured_is_refused(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file(f"{rail_folder(here, '1-0040')}/in1_label", "CUSTOM_IN")
    with pytest.raises(DeviceError, match="no rail VDD_IN, only CUSTOM_IN"):
        open_tree(here)


def test_an_unknown_board_s_total_is_not_guessed(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file("proc/device-tree/compatible", b"nvidia,p9999-0000\0nvidia,tegra234\0")
    with pytest.raises(DeviceError, match="which of the rails VDD_IN"):
        open_tree(here)


def test_a_board_without_power_sensors_is_refused(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    shutil.rmtree(here.root / "sys/bus")
    with pytest.raises(DeviceError, match="no power sensor"):
        open_tree(here)


def test_a_disabled_channel_is_no_rail(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    folder = here.root / rail_folder(here, "1-0041")
    (folder / "in2_input").unlink()
    (folder / "in2_input").mkdir()  # as ENODATA, a file that answers with an error
    device = open_tree(here)
    assert "VDDQ_VDD2_1V8AO" not in device.sample().power_w
    assert device.sample().power_w["total"] == pytest.approx(15.0)


def test_chips_are_found_by_their_class_where_the_driver_s_folder_is_hidden(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    chip = "sys/devices/platform/c240000.i2c/i2c-1/1-0040"
    (here.root / chip).parent.mkdir(parents=True)
    (here.root / "sys/bus/i2c/drivers/ina3221/1-0040").rename(here.root / chip)
    shutil.rmtree(here.root / "sys/bus")
    here.link("sys/class/hwmon/hwmon3", f"{chip}/hwmon/hwmon0")
    here.link(f"{chip}/hwmon/hwmon0/device", chip)
    device = open_tree(here)
    assert device.sample().power_w["VDD_IN"] == pytest.approx(10.0)


def test_the_refresh_is_the_driver_s_or_else_that_of_512_averages(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    interval = here.file(f"{rail_folder(here, '1-0040')}/update_interval", "70")
    assert open_tree(here).info.sensor_refresh_s == pytest.approx(0.07)
    interval.unlink()
    assert open_tree(here).info.sensor_refresh_s == pytest.approx(0.43)


def test_power_that_is_the_same_at_every_point_is_a_stuck_sensor(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    clock = HandClock()
    device = open_tree(here, clock)
    device.sample()
    for row in range(STUCK_POINTS):
        device.apply(device.space.point(row))
        device.sample()
        clock.sleep(1.1 * STUCK_REFRESHES / STUCK_POINTS * device.info.sensor_refresh_s)
    with pytest.raises(DeviceError, match="stuck"):
        device.sample()
    here.file(f"{rail_folder(here, '1-0040')}/curr1_input", "2100")
    assert device.sample().power_w["VDD_IN"] == pytest.approx(10.5)


def test_power_that_rests_at_one_point_is_no_stuck_sensor(tmp_path: Path) -> None:
    clock = HandClock()
    device = open_tree(tree(tmp_path, "orin-nx-r36"), clock)
    device.apply(device.space.point(0))
    device.sample()
    clock.sleep(3600.0)
    assert device.sample().power_w["VDD_IN"] == pytest.approx(10.0)


def test_no_rail_at_all_is_an_error(tmp_path: Path) -> None:
    here = tree(tmp_path, "xavier-nx-r32")
    device = open_tree(here)
    for channel in range(3):
        (here.root / rail_folder(here, "7-0040") / f"in_power{channel}_input").write_text("")
    with pytest.raises(DeviceError, match="no power rail"):
        device.sample()


def test_a_file_is_opened_once_and_again_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "power"
    path.write_text("1000\n")
    file = PolledFile(path, 1e-3)
    assert file.read() == 1.0
    path.write_text("2500 mw\0\n")
    assert file.read() == 2.5
    path.write_text("")
    assert file.read_if_there() is None
    file.close()
    path.unlink()
    assert file.read_if_there() is None
    path.write_text("3000")
    assert file.read() == 3.0
    file.close()


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "", "off"])
def test_a_file_without_a_finite_number_has_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "power"
    path.write_text(text)
    file = PolledFile(path)
    assert file.read_if_there() is None
    path.write_text("-40000\n")
    assert file.read() == -40_000.0
    file.close()


# Heat ----------------------------------------------------------------------------------------


def test_zones_that_do_not_answer_are_absent_and_constant_ones_left_out(tmp_path: Path) -> None:
    here = tree(tmp_path, "nano-r32")
    clock = HandClock()
    device = open_tree(here, clock)
    assert device.sample().temperature_c == {"CPU-therm": 41.5, "GPU-therm": 40.0}
    zone = here.root / "sys/class/thermal/thermal_zone1/temp"
    zone.write_bytes(b"")
    clock.sleep(ZONE_PERIOD_S)
    assert device.sample().temperature_c == {"CPU-therm": 41.5}
    zone.write_text("52500\n")
    clock.sleep(ZONE_PERIOD_S)
    assert device.sample().temperature_c["GPU-therm"] == 52.5


@pytest.mark.parametrize("text", ["-274000", "2147483647", "nan"])
def test_a_temperature_that_is_none_is_absent(text: str, tmp_path: Path) -> None:
    """-274000 is what the kernel's thermal framework calls invalid."""
    here = tree(tmp_path, "nano-r32")
    here.file("sys/class/thermal/thermal_zone1/temp", text)
    assert open_tree(here).sample().temperature_c == {"CPU-therm": 41.5}


def test_zones_of_one_type_are_all_read(tmp_path: Path) -> None:
    for number, milli in enumerate((41_000, 88_000, -7_000)):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text("acpitz\n")
        (zone / "temp").write_text(f"{milli}\n")
    found = Temperatures(tmp_path)
    assert sorted(found.read(0.0).values()) == [-7.0, 41.0, 88.0]
    found.close()


def test_over_current_events_are_the_hardware_s_own_counts(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nano-r36")
    clock = HandClock()
    device = open_tree(here, clock)
    assert device.sample().throttle_events["over_current"] == 0
    here.file("sys/devices/platform/soctherm-oc-event/hwmon/hwmon9/oc3_event_cnt", "17")
    clock.sleep(EVENT_PERIOD_S)
    assert device.sample().throttle_events["over_current"] == 17
    assert device.sample().throttle_events["average_over_current"] == 0


def test_a_cooling_device_counts_for_as_long_as_it_holds_a_clock_down(tmp_path: Path) -> None:
    here = tree(tmp_path, "xavier-nx-r35")
    clock = HandClock()
    device = open_tree(here, clock)
    state = "sys/class/thermal/cooling_device1/cur_state"
    counts: list[int] = []
    for hot in (0, 2, 2, 0, 0):
        here.file(state, str(hot))
        clock.sleep(EVENT_PERIOD_S)
        counts.append(device.sample().throttle_events["thermal"])
    assert counts == [0, 1, 2, 2, 2]


def test_a_board_that_throttles_at_the_start_is_restored_as_found_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = tree(tmp_path, "xavier-nx-r35")
    here.file("sys/class/thermal/cooling_device2/cur_state", "2")
    lowered = here.text(f"{here.gpu}/available_frequencies").split()[-3]
    here.file(f"{here.gpu}/max_freq", lowered)
    with caplog.at_level(logging.WARNING, logger="governor"):
        device = open_tree(here)
    assert "too hot" in caplog.text
    assert device.space.point(device.space.fastest)["gpu_hz"] == float(lowered)
    device.apply(device.space.point(0))
    device.close()
    assert here.text(f"{here.gpu}/max_freq") == lowered


# Knobs ---------------------------------------------------------------------------------------


@every_kind
def test_points_are_set_read_back_and_put_back(kind: Kind, tmp_path: Path) -> None:
    here = Tree(tmp_path, kind)
    device = open_tree(here)
    limits = here.text(f"{here.gpu}/min_freq"), here.text(f"{here.gpu}/max_freq")
    for row in (0, len(device.space) - 1, len(device.space) // 2):
        point = device.space.point(row)
        assert device.apply(point) == point == device.read()
    device.close()
    assert (here.text(f"{here.gpu}/min_freq"), here.text(f"{here.gpu}/max_freq")) == limits


def test_a_setting_off_the_lattice_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    device = open_tree(here)
    with pytest.raises(InputError, match="not one of the"):
        device.apply(OperatingPoint({"cpu_hz": 1e9, "gpu_hz": 306e6, "emc_hz": 204e6}))
    assert here.text(f"{here.gpu}/max_freq") == "918000000"


def test_after_release_the_clocks_can_still_be_read_and_set_again(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    device = open_tree(here)
    point = device.space.point(0)
    device.apply(point)
    device.release()
    assert device.read()["gpu_hz"] == 306e6
    assert here.text(f"{here.gpu}/max_freq") == "918000000"
    assert device.apply(point) == point
    device.close()


def test_a_missing_knob_is_named_and_the_others_govern(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    shutil.rmtree(here.root / "sys/kernel")
    with caplog.at_level(logging.WARNING, logger="governor"):
        device = open_tree(here)
    assert device.space.names == ("cpu_hz", "gpu_hz")
    assert "emc_hz is left alone: " in caplog.text
    assert "mount -t debugfs" in caplog.text


def test_without_any_knob_the_board_is_refused_with_all_reasons(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    for gone in ("sys/kernel", "sys/class/devfreq", "sys/devices/system"):
        shutil.rmtree(here.root / gone)
    with pytest.raises(DeviceError, match=r"no policy .* no GPU .* debugfs"):
        open_tree(here)


def test_a_gpu_that_comes_late_after_boot_is_waited_for(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file("proc/uptime", "21.35 80.11")
    entry = here.root / "sys/class/devfreq/17000000.gpu"
    away = entry.rename(here.root / "away")
    clock = HandClock()

    def appear() -> None:
        if clock.now() >= 10.0 and away.is_symlink():
            away.rename(entry)

    clock.on_sleep = appear
    assert "gpu_hz" in open_tree(here, clock).space.names
    assert clock.now() == pytest.approx(10.0)


def test_a_gpu_that_is_missing_long_after_boot_is_not_waited_for(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file("proc/uptime", f"{BOOT_S} 300.0")
    (here.root / "sys/class/devfreq/17000000.gpu").unlink()
    clock = HandClock()
    assert open_tree(here, clock).space.names == ("cpu_hz", "emc_hz")
    assert clock.now() == 0.0


def test_the_description_names_board_release_and_mode_and_that_it_is_emulated(
    tmp_path: Path,
) -> None:
    info = open_tree(tree(tmp_path, "tx2-r32")).info
    assert info.name == "tx2"
    assert info.emulated
    assert info.description == (
        "quill, Jetson Linux 32.4.3, power mode 3 (MAXP_CORE_ARM) (emulated)"
    )


def test_what_is_no_jetson_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="this is no Jetson"):
        JetsonDevice.open(tmp_path)


def test_rails_of_a_board_are_found_without_opening_it(tmp_path: Path) -> None:
    root = tree(tmp_path, "agx-xavier-r32").root
    board = identify(root)
    assert board is not None
    rails = find_rails(root, board)
    assert rails.total == ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
    rails.close()


# Through a real lease keeper ------------------------------------------------------------------


def test_the_keeper_s_process_sets_the_clocks_and_puts_them_back(tmp_path: Path) -> None:
    here = tree(tmp_path / "board", "xavier-nx-r35")
    folder = tmp_path / "journal"
    device = JetsonDevice.open(here.root, lambda: Lease.open(sysfs_root=here.root, folder=folder))
    point = device.space.point(0)
    assert device.apply(point) == point == device.read()
    assert here.text(f"{here.gpu}/max_freq") == "114750000"
    with pytest.raises(LeaseHeldError):
        JetsonDevice.open(here.root, lambda: Lease.open(sysfs_root=here.root, folder=folder))
    device.close()
    assert here.text(f"{here.gpu}/max_freq") == "1109250000"
    assert here.text("sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq") == "1190400"


def test_a_folder_can_be_named_as_the_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="this is no Jetson"):
        open_device(f"jetson:{tmp_path}")


# Broken trees ---------------------------------------------------------------------------------


@settings(max_examples=40, phases=[Phase.generate])  # a shrunk seed tells no more
@given(
    name=st.sampled_from([str(each) for each in KINDS]),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.02, 0.1, 0.5]),
)
def test_a_broken_tree_costs_knobs_or_is_refused_in_one_line(
    name: str, seed: int, share: float
) -> None:
    with TemporaryDirectory() as folder:
        here = tree(Path(folder), name)
        here.break_some_files(random.Random(seed), share)
        problem = ""
        try:
            device = open_tree(here)
            assert set(device.space.names) <= {"cpu_hz", "gpu_hz", "emc_hz"}
            device.sample()
            device.close()
        except DeviceError as error:
            problem = str(error)
        assert "\n" not in problem
