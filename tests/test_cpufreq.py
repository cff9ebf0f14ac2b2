"""The CPU's clock: levels of every kind of driver, order of writes, exact restore."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linux_trees import CPUFREQ, LinuxTree, xeon

from governor.devices.cpufreq import open_cpu
from governor.errors import DeviceError
from governor.lease import cpufreq_controls
from governor.lease.cpufreq_controls import MOST_LEVELS, CpuClock, Policy, find

MHZ = 1e6


def control_of(tree: LinuxTree) -> CpuClock:
    hardware = find(tree.root)
    assert hardware is not None
    (control,) = hardware.controls
    assert isinstance(control, CpuClock)
    return control


def be_strict(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A kernel before 5.3: no lowest frequency above the highest, not even for a moment.

    Returns:
        the names of the files that were written, growing.
    """
    order: list[str] = []

    def write(path: Path, text: str) -> None:
        low = int((path.parent / "scaling_min_freq").read_text())
        high = int((path.parent / "scaling_max_freq").read_text())
        khz = int(text)
        if (path.name == "scaling_min_freq" and khz > high) or (
            path.name == "scaling_max_freq" and khz < low
        ):
            raise OSError(22, "Invalid argument", str(path))
        order.append(path.name)
        path.write_text(text)

    monkeypatch.setattr(cpufreq_controls, "write_text", write)
    return order


def test_a_list_of_frequencies_is_taken_as_it_is_and_ascending(tmp_path):
    listed = (2_200_000, 1_800_000, 1_400_000)
    tree = LinuxTree(tmp_path).policy(
        0, 1_400_000, 2_200_000, driver="acpi-cpufreq", listed_khz=listed
    )
    assert control_of(tree).levels == (1400 * MHZ, 1800 * MHZ, 2200 * MHZ)


def test_a_continuous_range_becomes_few_levels_at_multiples_of_the_bus_clock(tmp_path):
    levels = control_of(LinuxTree(tmp_path).policy(0, 1_000_000, 3_900_000)).levels
    assert len(levels) <= MOST_LEVELS
    assert (levels[0], levels[-1]) == (1000 * MHZ, 3900 * MHZ)
    assert all(level % (100 * MHZ) == 0 for level in levels)


@given(low=st.integers(100, 2000), span=st.integers(0, 6000))
def test_the_lattice_of_any_range_holds_both_ends_and_ascends(low, span):
    levels = cpufreq_controls._lattice(1000 * low, 1000 * (low + span))
    assert levels[0] == 1000 * low
    assert levels[-1] == 1000 * (low + span)
    assert len(levels) <= MOST_LEVELS
    assert list(levels) == sorted(set(levels))


def test_a_cap_that_is_found_is_not_exceeded(tmp_path):
    tree = LinuxTree(tmp_path).policy(0, 1_000_000, 3_900_000, limits_khz=(1_000_000, 2_000_000))
    assert control_of(tree).levels[-1] == 2000 * MHZ


def test_boost_frequencies_are_no_levels(tmp_path):
    tree = LinuxTree(tmp_path).policy(
        0, 1_400_000, 2_200_000, driver="acpi-cpufreq", listed_khz=(1_400_000, 2_200_000)
    )
    tree.write(f"{CPUFREQ}/policy0/scaling_boost_frequencies", "3500000")
    assert control_of(tree).levels == (1400 * MHZ, 2200 * MHZ)


def test_pinning_sets_both_limits_of_every_policy(tmp_path):
    tree = xeon(tmp_path)
    control = control_of(tree)
    control.write(control.levels[3])
    khz = round(control.levels[3] / 1e3)
    assert tree.limits_khz() == [(khz, khz)] * 2
    assert control.read() == control.levels[3]


def test_slower_cores_follow_at_their_own_highest_level_below(tmp_path):
    tree = LinuxTree(tmp_path)
    tree.policy(0, 600_000, 1_800_000, driver="scmi", listed_khz=(600_000, 1_200_000, 1_800_000))
    tree.policy(4, 700_000, 2_400_000, driver="scmi", listed_khz=(700_000, 1_500_000, 2_400_000))
    control = control_of(tree)
    assert control.levels == (700 * MHZ, 1500 * MHZ, 2400 * MHZ)
    control.write(1500 * MHZ)
    assert tree.limits_khz() == [(1_200_000, 1_200_000), (1_500_000, 1_500_000)]
    assert control.read() == 1500 * MHZ


def test_one_policy_that_someone_else_wrote_shows(tmp_path):
    tree = xeon(tmp_path)
    control = control_of(tree)
    control.write(control.levels[-1])
    Policy(tmp_path / CPUFREQ / "policy1").limit(1_200_000, 1_200_000)
    assert control.read() == 1200 * MHZ


def test_where_nothing_is_pinned_the_clock_itself_is_read(tmp_path):
    tree = LinuxTree(tmp_path).policy(0, 1_000_000, 3_900_000)
    assert control_of(tree).read() == 3_887_655_000


@settings(max_examples=25)
@given(data=st.data())
def test_any_walk_over_the_levels_is_accepted_and_restored_exactly(tmp_path_factory, data):
    tree = xeon(tmp_path_factory.mktemp("cpu"))
    low = data.draw(st.integers(1000, 3900))
    found = (1000 * low, 1000 * data.draw(st.integers(low, 3900)))
    Policy(tree.root / CPUFREQ / "policy1").limit(*found)
    control = control_of(tree)
    before = tree.limits_khz()
    with pytest.MonkeyPatch.context() as patch:
        be_strict(patch)
        snapshot = control.snapshot()
        for level in data.draw(st.lists(st.sampled_from(control.levels), max_size=5)):
            control.write(level)
        control.restore(snapshot)
    assert tree.limits_khz() == before


def test_raising_writes_the_highest_first_and_lowering_the_lowest(tmp_path, monkeypatch):
    written = be_strict(monkeypatch)
    tree = LinuxTree(tmp_path).policy(0, 1_000_000, 3_900_000)
    control = control_of(tree)
    control.write(control.levels[0])
    control.write(control.levels[-1])
    assert written == [
        "scaling_min_freq",
        "scaling_max_freq",
        "scaling_max_freq",
        "scaling_min_freq",
    ]


def test_a_policy_that_is_gone_does_not_keep_the_others_from_being_restored(tmp_path):
    tree = xeon(tmp_path)
    control = control_of(tree)
    snapshot = control.snapshot()
    control.write(control.levels[0])
    (tmp_path / CPUFREQ / "policy0/scaling_min_freq").unlink()
    with pytest.raises(OSError, match="scaling_min_freq"):
        control.restore(snapshot)
    assert tree.text(f"{CPUFREQ}/policy1/scaling_max_freq") == "3900000"


def test_a_policy_whose_cpus_are_offline_is_left_out(tmp_path):
    tree = LinuxTree(tmp_path).policy(0, 1_000_000, 2_000_000)
    (tmp_path / CPUFREQ / "policy1").mkdir()
    assert len(control_of(tree).policies) == 1


def test_no_cpufreq_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DeviceError, match=f"{CPUFREQ} does not exist"):
        open_cpu(tmp_path)


def test_a_cpu_with_one_level_is_refused(tmp_path):
    LinuxTree(tmp_path).policy(0, 2_000_000, 2_000_000)
    with pytest.raises(DeviceError, match="only 2000 MHz"):
        open_cpu(tmp_path)


def test_model_and_driver_are_named(tmp_path):
    xeon(tmp_path)
    assert open_cpu(tmp_path).description == "intel-xeon-gold-6248 (intel_pstate)"


def test_throttling_is_counted_once_a_package(tmp_path):
    xeon(tmp_path)
    assert open_cpu(tmp_path).throttle_events() == {"cpu_thermal": 3}


def test_throttling_is_still_counted_when_a_cpu_is_unplugged(tmp_path):
    """With a CPU its files go; those of a package's other CPUs count the same."""
    tree = xeon(tmp_path).package_throttled(2, 1, 10)
    cpu = open_cpu(tmp_path)
    assert cpu.throttle_events() == {"cpu_thermal": 13}
    shutil.rmtree(tmp_path / "sys/devices/system/cpu/cpu0")
    tree.package_throttled(1, 0, 4)
    assert cpu.throttle_events() == {"cpu_thermal": 13}  # of which CPU 1 knew one more all along
    tree.package_throttled(1, 0, 5)
    assert cpu.throttle_events() == {"cpu_thermal": 14}
    shutil.rmtree(tmp_path / "sys/devices/system/cpu/cpu2")
    assert cpu.throttle_events() == {"cpu_thermal": 14}
    tree.package_throttled(2, 1, 10)
    assert cpu.throttle_events() == {"cpu_thermal": 14}


def test_of_many_policies_each_is_looked_at_in_its_turn(tmp_path):
    tree = LinuxTree(tmp_path)
    for number in range(64):
        tree.policy(number, 1_000_000, 2_000_000)
    control = control_of(tree)
    control.write(control.levels[-1])
    assert control.read() == control.levels[-1]
    for limit in ("scaling_min_freq", "scaling_max_freq"):
        tree.write(f"{CPUFREQ}/policy41/{limit}", 1_500_000)
    seen = [control.read() for _ in range(63 // cpufreq_controls.LOOKS + 1)]
    assert 1500 * MHZ in seen
    control.write(control.levels[0])
    for limit in ("scaling_min_freq", "scaling_max_freq"):
        tree.write(f"{CPUFREQ}/policy41/{limit}", 1_500_000)
    assert control.read() == 1500 * MHZ


def test_limits_that_the_kernel_takes_and_does_not_set_are_no_restore(tmp_path, monkeypatch):
    control = control_of(xeon(tmp_path))
    snapshot = control.snapshot()
    control.write(control.levels[0])
    with monkeypatch.context() as patch:
        patch.setattr(cpufreq_controls, "write_text", lambda path, text: None)
        with pytest.raises(ValueError, match="still has the limits"):
            control.restore(snapshot)
    control.restore(snapshot)
    assert control.snapshot() == snapshot


def test_limits_that_cannot_be_written_and_are_as_found_are_restored(tmp_path, monkeypatch):
    control = control_of(xeon(tmp_path))
    snapshot = control.snapshot()

    def refuse(path, text):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(cpufreq_controls, "write_text", refuse)
    control.restore(snapshot)
    monkeypatch.undo()
    control.write(control.levels[0])
    monkeypatch.setattr(cpufreq_controls, "write_text", refuse)
    with pytest.raises(OSError, match="scaling_min_freq"):
        control.restore(snapshot)
