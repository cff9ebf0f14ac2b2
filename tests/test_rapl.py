"""Energy of the processor: counters that wrap, zones that overlap, files for root only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_trees import RANGE_UJ, RAPL, LinuxTree

from governor.devices.hwmon import open_hwmon, temperature_files, temperatures
from governor.devices.rapl import grown_uj, open_rapl
from governor.errors import DeviceError


@given(start=st.integers(0, 1000), steps=st.lists(st.integers(0, 1000), min_size=1), data=st.data())
def test_a_counter_that_wraps_loses_nothing(start, steps, data):
    range_uj = data.draw(st.integers(max(1000, start), 5000))
    shown, grown = start, 0
    for step in steps:
        now = (shown + step) % (range_uj + 1)
        grown += grown_uj(shown, now, range_uj)
        shown = now
    assert grown == sum(steps)


def test_energy_goes_on_over_a_wrap(tmp_path):
    counter = LinuxTree(tmp_path).rapl(
        "intel-rapl:0", "package-0", uj=9_000_000, range_uj=9_999_999
    )
    rapl = open_rapl(tmp_path)
    counter.write_text("2000000\n")
    assert rapl.read(1.0).energy_j == pytest.approx(3.0)


def test_power_is_the_mean_since_the_reading_before(tmp_path):
    counter = LinuxTree(tmp_path).rapl("intel-rapl:0", "package-0", uj=1_000_000)
    rapl = open_rapl(tmp_path)
    assert rapl.read(10.0).total_w is None
    counter.write_text("51000000\n")
    assert rapl.read(12.0).power_w == {"package-0": pytest.approx(25.0)}


def test_the_total_is_packages_and_memory_and_no_zone_within_or_around_them(tmp_path):
    tree = LinuxTree(tmp_path)
    counters = {
        tree.rapl("intel-rapl:0", "package-0"): 10,
        tree.rapl("intel-rapl:0:0", "core"): 7,
        tree.rapl("intel-rapl:0:1", "uncore"): 1,
        tree.rapl("intel-rapl:0:2", "dram"): 3,
        tree.rapl("intel-rapl:1", "psys"): 25,
        tree.rapl("intel-rapl-mmio:0", "package-0"): 10,
    }
    rapl = open_rapl(tmp_path)
    rapl.read(0.0)
    for counter, joules in counters.items():
        counter.write_text(f"{1_000_000 * (1 + joules)}\n")
    reading = rapl.read(1.0)
    assert reading.energy_j == pytest.approx(13.0)
    assert reading.total_w == pytest.approx(13.0)
    assert reading.power_w == pytest.approx(
        {"package-0": 10, "core-0": 7, "uncore-0": 1, "dram-0": 3, "psys": 25}
    )
    assert rapl.description == "RAPL package-0 + dram-0"


def test_two_packages_are_summed_each_with_its_own_memory(tmp_path):
    tree = LinuxTree(tmp_path)
    for package in range(2):
        tree.rapl(f"intel-rapl:{package}", f"package-{package}")
        tree.rapl(f"intel-rapl:{package}:0", "dram")
    assert open_rapl(tmp_path).description == "RAPL package-0 + dram-0 + package-1 + dram-1"


def test_the_platform_counts_where_it_is_all_there_is(tmp_path):
    LinuxTree(tmp_path).rapl("intel-rapl:0", "psys")
    assert open_rapl(tmp_path).description == "RAPL psys"


def test_counters_that_stand_at_zero_are_refused(tmp_path):
    LinuxTree(tmp_path).rapl("intel-rapl:0", "package-0", uj=0)
    with pytest.raises(DeviceError, match="every package reads 0"):
        open_rapl(tmp_path)


@pytest.fixture
def folder():
    """One that an ordinary user can reach, unlike pytest's own when root runs it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def ordinary_user():
    """An effective user who is not root, where the tests are run by root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_counters_for_root_only_are_refused_with_the_command_that_opens_them(folder, request):
    counter = LinuxTree(folder).rapl("intel-rapl:0", "package-0")
    counter.chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(DeviceError, match=f"CVE-2020-8694.*sudo chgrp governor {counter}"):
        open_rapl(folder)


def test_no_zone_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DeviceError, match=f"no RAPL zone in .*{RAPL}"):
        open_rapl(tmp_path)


def test_a_zone_that_only_sets_limits_is_no_counter(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.rapl("intel-rapl:0", "package-0")
    tree.write(f"{RAPL}/intel-rapl-mmio:0/name", "package-0")
    assert [zone.rail for zone in open_rapl(tmp_path).zones] == ["package-0"]


def test_a_garbled_counter_is_a_failed_reading(tmp_path):
    counter = LinuxTree(tmp_path).rapl("intel-rapl:0", "package-0")
    rapl = open_rapl(tmp_path)
    counter.write_text("\n")
    with pytest.raises(ValueError, match="no count"):
        rapl.read(1.0)


def test_the_meter_of_the_whole_machine_is_preferred_to_that_of_the_processor(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.hwmon(0, "fam15h_power", power1_input=40_000_000)
    tree.hwmon(1, "power_meter", power1_average=180_000_000)
    sensor = open_hwmon(tmp_path)
    assert sensor.scope == "machine"
    assert sensor.read(0.0).total_w == pytest.approx(180.0)


def test_a_sensor_that_nobody_declared_is_not_taken_for_a_total(tmp_path):
    LinuxTree(tmp_path).hwmon(0, "ina226", power1_input=5_000_000)
    with pytest.raises(DeviceError, match=r"none of power_meter, fam15h_power .* only ina226"):
        open_hwmon(tmp_path)


def test_processor_temperatures_go_by_their_labels(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.hwmon(0, "coretemp", temp1_input=54_000, temp1_label="Package id 0")
    tree.hwmon(1, "k10temp", temp1_input=61_500)
    tree.hwmon(2, "nvme", temp1_input=33_000)
    assert temperatures(temperature_files(tmp_path)) == {
        "Package id 0": 54.0,
        "k10temp temp1": 61.5,
    }


@pytest.mark.parametrize(
    ("before", "now", "range_uj"),
    [(200_000_000, 3_000_000, RANGE_UJ), (9_000_000, 2_000_000, 0), (9_000_000, 2_000_000, 100)],
)
def test_a_counter_that_was_reset_gives_no_energy_that_nobody_drew(before, now, range_uj, tmp_path):
    """After a suspend, or where someone wrote 0 to it, it begins anew without having wrapped."""
    tree = LinuxTree(tmp_path)
    counter = tree.rapl("intel-rapl:0", "package-0", uj=before, range_uj=range_uj)
    rapl = open_rapl(tmp_path)
    rapl.read(1.0)
    counter.write_text(f"{now}\n")
    reading = rapl.read(1.1)
    assert 0.0 <= reading.energy_j <= 1e-6 * now
    counter.write_text(f"{now + 1_000_000}\n")
    assert rapl.read(1.2).energy_j - reading.energy_j == pytest.approx(1.0)


def test_a_zone_inside_another_that_cannot_be_read_costs_only_itself(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.rapl("intel-rapl:0", "package-0")
    core = tree.rapl("intel-rapl:0:0", "core")
    core.write_text("\n")
    assert [zone.rail for zone in open_rapl(tmp_path).zones] == ["package-0"]
    core.write_text("1000000\n")
    rapl = open_rapl(tmp_path)
    core.unlink()
    rapl.read(1.0)
    assert rapl.read(2.0).power_w == {"package-0": 0.0}


def test_where_the_platform_counts_alone_no_zone_inside_it_is_added(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.rapl("intel-rapl:0", "package-0", uj=0)
    tree.rapl("intel-rapl:0:0", "core")
    tree.rapl("intel-rapl:1", "psys")
    assert open_rapl(tmp_path).description == "RAPL psys"


@pytest.mark.parametrize("watts", ["nan", "inf", "-5000000", "", "five"])
def test_a_power_sensor_that_tells_no_power_has_failed(watts, tmp_path):
    tree = LinuxTree(tmp_path).hwmon(0, "power_meter", power1_average=180_000_000)
    sensor = open_hwmon(tmp_path)
    tree.hwmon(0, "power_meter", power1_average=watts)
    with pytest.raises(ValueError, match="power1_average"):
        sensor.read(1.0)
    with pytest.raises(DeviceError, match="power1_average"):
        open_hwmon(tmp_path)


def test_two_processors_of_one_kind_keep_their_own_temperatures(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.hwmon(3, "k10temp", temp1_input=81_000, temp1_label="Tctl")
    tree.hwmon(4, "k10temp", temp1_input=55_000, temp1_label="Tctl")
    assert sorted(temperatures(temperature_files(tmp_path)).values()) == [55.0, 81.0]


@pytest.mark.parametrize("text", ["nan", "inf", "-274000", "2147483647", "", "hot"])
def test_a_temperature_that_is_none_is_absent(text, tmp_path):
    tree = LinuxTree(tmp_path).hwmon(0, "coretemp", temp1_input=text, temp2_input=-12_500)
    assert temperatures(temperature_files(tree.root)) == {"coretemp temp2": -12.5}
