"""NVIDIA GPUs: what can be set and read, knob by knob, and that locks are undone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nvml_stand_in import TURING, compiled, gpus_in, nothing_supported

from governor.devices.nvml import open_gpus
from governor.errors import DeviceError
from governor.lease import custody as custody_module
from governor.lease import nvml_controls
from governor.lease.custody import Custody
from governor.lease.errors import HardwareError, RestoreError
from governor.lease.nvml_controls import MOST_CLOCKS, find, gpus
from governor.lease.process import Process

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed; it is the extra nvml")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """One GPU that supports everything."""
    with gpus_in(tmp_path, monkeypatch) as machine:
        yield machine


@pytest.fixture
def gpu(machine):
    return machine.gpus[0]


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two such GPUs."""
    with gpus_in(tmp_path, monkeypatch, count=2) as machine:
        yield machine


def control(root, name):
    return next(each for each in find(root).controls if each.name == name)


# What can be set


def test_clocks_and_the_power_limit_are_knobs_of_each_gpu(tmp_path, two):
    hardware = find(tmp_path)
    assert hardware.name == "nvidia-stand-in"
    assert [each.name for each in hardware.controls] == [
        *("gpu0_emc_hz", "gpu0_hz", "gpu0_power_limit_w"),
        *("gpu1_emc_hz", "gpu1_hz", "gpu1_power_limit_w"),
    ]


def test_the_gpus_many_clocks_are_thinned_and_keep_both_ends(tmp_path, machine):
    levels = control(tmp_path, "gpu0_hz").levels
    assert len(levels) == MOST_CLOCKS
    assert (levels[0], levels[-1]) == (210e6, 1980e6)
    assert all((level / 1e6 - 210) % 15 == 0 for level in levels)


def test_memory_clocks_of_idle_states_are_no_levels(tmp_path, machine):
    assert control(tmp_path, "gpu0_emc_hz").levels == (1593e6, 2619e6)


def test_the_power_limit_goes_no_higher_than_it_was_found(tmp_path, machine):
    levels = control(tmp_path, "gpu0_power_limit_w").levels
    assert (levels[0], levels[-1]) == (200.0, 600.0)


def test_a_lock_is_read_back_as_the_clock_that_runs(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(nvml_controls, "SETTLE_S", 0.0)
    clock = control(tmp_path, "gpu0_hz")
    clock.write(clock.levels[5])
    assert gpu.locked_mhz == clock.levels[5] / 1e6
    assert clock.read() == clock.levels[5]
    gpu.locked_mhz = 300  # someone else
    assert clock.read() == pytest.approx(300e6, abs=30e6)


def test_an_idle_gpu_below_its_lock_is_still_locked(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(nvml_controls, "SETTLE_S", 0.0)
    clock = control(tmp_path, "gpu0_hz")
    clock.write(clock.levels[-1])
    gpu.reasons = 1
    assert clock.read() == clock.levels[-1]


def test_a_clock_on_its_way_reads_as_the_lock(tmp_path, gpu):
    clock = control(tmp_path, "gpu0_hz")
    clock.write(clock.levels[3])
    gpu.locked_mhz = 1980  # the driver has not got there yet
    assert clock.read() == clock.levels[3]
    assert time.monotonic() < clock._settled_s


def test_restore_unlocks_both_clocks_and_puts_the_limit_back(tmp_path, gpu):
    controls = find(tmp_path).controls
    saved = [each.snapshot() for each in controls]
    for each in controls:
        each.write(each.levels[0])
    assert (gpu.locked_mhz, gpu.locked_memory_mhz, gpu.limit_mw) == (210, 1593, 200_000)
    for each, snapshot in zip(controls, saved, strict=True):
        each.restore(snapshot)
    assert (gpu.locked_mhz, gpu.locked_memory_mhz, gpu.limit_mw) == (0, 0, 600_000)


@pytest.mark.parametrize("killed", [False, True])
def test_a_gpu_that_was_never_set_keeps_what_others_set(tmp_path, two, killed):
    custody = custody_of(tmp_path)
    two.gpus[1].locked_mhz = 900  # another user's
    custody.set({"gpu0_hz": 210e6})
    two.gpus[1].limit_mw = 300_000
    put_back(custody, killed)
    assert (two.gpus[0].locked_mhz, two.gpus[0].gpu_resets) == (0, 1)
    assert (two.gpus[1].locked_mhz, two.gpus[1].gpu_resets) == (900, 0)
    assert two.gpus[1].limit_mw == 300_000


@pytest.mark.parametrize("killed", [False, True])
def test_a_gpu_that_is_lost_is_named_and_the_other_is_put_back(tmp_path, two, killed, monkeypatch):
    monkeypatch.setattr(custody_module, "RESTORE_PAUSES_S", (0.0,))
    custody = custody_of(tmp_path)
    custody.set({"gpu0_hz": 210e6, "gpu1_hz": 210e6})
    two.gpus[1].lost = 1
    with pytest.raises(HardwareError, match=r"gpu1_emc_hz cannot be read: .*GPU is lost"):
        custody.read()
    with pytest.raises(RestoreError, match="not put back: gpu1_hz: "):
        put_back(custody, killed)
    assert two.gpus[0].locked_mhz == 0
    two.gpus[1].lost = 0
    put_back(custody, killed=True)
    assert two.gpus[1].locked_mhz == 0


def test_a_gpu_of_others_that_is_lost_leaves_ours_to_be_read_and_set(tmp_path, two):
    custody = custody_of(tmp_path)
    two.gpus[1].lost = 1
    ours = {"gpu0_emc_hz", "gpu0_hz", "gpu0_power_limit_w"}
    assert custody.read().keys() == ours
    custody.set({"gpu0_hz": 210e6})
    assert custody.read().keys() == ours
    two.gpus[0].lost = 1
    with pytest.raises(HardwareError, match=r"gpu0_emc_hz cannot be read: .*GPU is lost"):
        custody.read()
    two.gpus[0].lost = two.gpus[1].lost = 0
    assert len(custody.set({"gpu1_hz": 210e6, "gpu1_power_limit_w": 200.0})) == 2
    custody.give_back()
    assert [(gpu.locked_mhz, gpu.limit_mw) for gpu in two.gpus[:2]] == [(0, 600_000)] * 2


def test_a_gpu_that_is_lost_leaves_the_others_to_be_set(tmp_path, two):
    two.gpus[0].lost = 1
    assert {each.name for each in find(tmp_path).controls} == {
        "gpu1_hz", "gpu1_emc_hz", "gpu1_power_limit_w",
    }  # fmt: skip
    two.gpus[1].lost = 1
    assert find(tmp_path) is None


def test_a_gpu_that_lists_no_clocks_has_the_power_limit(tmp_path, gpu):
    gpu.memory_mhz[:] = (0, 0, 0, 0)
    (found,) = gpus(tmp_path)
    assert set(found.controls) == {"power_limit_w"}
    assert "lists nothing" in found.refused["gpu_hz"]


def custody_of(root):
    custody = Custody(root, root / "run")
    custody.take(Process.of(os.getpid()))
    return custody


def put_back(custody, killed):
    """By the keeper that set it, or by the next one after that was killed."""
    if killed:
        custody.lock.drop()
        custody.put_back(Process.of(os.getpid()))
    else:
        custody.give_back()


def test_a_keeper_that_finds_a_dead_ones_journal_unlocks(tmp_path, gpu):
    saved = control(tmp_path, "gpu0_hz").snapshot()
    gpu.locked_mhz = 900
    control(tmp_path, "gpu0_hz").restore(saved)
    assert gpu.locked_mhz == 0


def test_a_snapshot_of_another_card_is_refused(tmp_path, gpu):
    clock = control(tmp_path, "gpu0_hz")
    with pytest.raises(OSError, match="GPU 0 is GPU-0000-aaaa, saved was GPU-else"):
        clock.restore({"uuid": "GPU-else"})


def test_what_the_driver_refuses_is_named_with_its_reason(tmp_path, gpu):
    gpu.may_write = 0
    clock = control(tmp_path, "gpu0_hz")
    with pytest.raises(PermissionError, match="nvmlDeviceSetGpuLockedClocks: Insufficient"):
        clock.write(clock.levels[0])


def test_a_gpu_too_old_to_lock_its_memory_clock_has_the_other_knobs(tmp_path, gpu):
    gpu.architecture = TURING
    (found,) = gpus(tmp_path)
    assert set(found.controls) == {"gpu_hz", "power_limit_w"}
    assert "cannot be locked" in found.refused["emc_hz"]


def test_memory_with_one_clock_for_work_is_no_knob(tmp_path, gpu):
    gpu.memory_mhz[:] = (1215, 0, 0, 0)
    (found,) = gpus(tmp_path)
    assert found.refused == {"emc_hz": "the memory has one clock for work, 1215 MHz"}


def test_without_a_library_there_is_nothing_to_set(tmp_path):
    assert find(tmp_path) is None


def test_a_jetsons_gpu_is_not_set_through_nvml(tmp_path, machine):
    compatible = tmp_path / "proc/device-tree/compatible"
    compatible.parent.mkdir(parents=True)
    compatible.write_bytes(b"nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
    assert find(tmp_path) is None


def test_the_keepers_part_imports_the_standard_library_only():
    code = (
        "import sys; import governor.lease.nvml_controls, governor.lease.cpufreq_controls;"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-I", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {name for name in run.stdout.split() if not name.startswith("_")} == {"governor"}


# What can be read


def test_the_energy_counter_is_read_in_joules(tmp_path, gpu):
    seen = open_gpus(tmp_path, {})
    gpu.energy_mj = 1_250_000
    reading = seen.read(0.0)
    assert reading.energy_j == pytest.approx(1250.0)
    assert reading.power_w == {"gpu0": 200.0}
    assert seen.description == "NVIDIA Stand-in by NVML's energy counter"


def test_without_a_counter_the_power_reading_serves(tmp_path, gpu):
    gpu.supports_energy = 0
    seen = open_gpus(tmp_path, {})
    reading = seen.read(0.0)
    assert (reading.total_w, reading.energy_j) == (200.0, None)
    assert seen.refresh_s == 1.0


def test_two_gpus_are_summed(tmp_path, two):
    two.gpus[1].power_mw = 100_000
    seen = open_gpus(tmp_path, {})
    assert seen.read(0.0).total_w == pytest.approx(300.0)
    assert seen.description.startswith("2 x NVIDIA Stand-in")


def test_causes_that_hold_a_gpu_back_are_counted_and_idleness_is_not(tmp_path, gpu):
    seen = open_gpus(tmp_path, {})
    gpu.reasons = 0x1
    assert seen.throttle_events() == {}
    gpu.reasons = 0x20 | 0x4
    seen.throttle_events()
    assert seen.throttle_events() == {"gpu_thermal": 2, "gpu_power_cap": 2}


def test_temperatures_are_read_by_gpu(tmp_path, two):
    assert open_gpus(tmp_path, {}).temperatures() == {"gpu0": 55.0, "gpu1": 55.0}


def test_a_gpu_that_is_lost_fails_the_reading(tmp_path, gpu):
    seen = open_gpus(tmp_path, {})
    gpu.lost = 1
    with pytest.raises(OSError, match="GPU is lost"):
        seen.read(0.0)


def test_nvml_that_starts_and_then_supports_nothing_is_refused_knob_by_knob(tmp_path, gpu):
    nothing_supported(gpu)
    with pytest.raises(DeviceError) as refused:
        open_gpus(tmp_path, {})
    for part in ("supports nothing here", "Orin", "gpu_hz", "emc_hz", "power_limit_w", "energy"):
        assert part in str(refused.value)
    assert str(refused.value).count("Not Supported") == 5


def test_no_driver_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DeviceError, match=r"libnvidia-ml\.so\.1 cannot be loaded"):
        open_gpus(tmp_path, {})


def test_a_library_without_a_driver_is_refused_with_its_own_words(tmp_path, machine, monkeypatch):
    monkeypatch.delenv("NVML_STAND_IN")
    assert os.environ.get("NVML_STAND_IN") is None
    with pytest.raises(DeviceError, match="Driver Not Loaded"):
        open_gpus(tmp_path, {})


def test_the_example_reads_a_real_models_energy_by_meter_and_counter(gpu, torch):
    gpu.counts_since_ms = int(1e3 * time.monotonic())
    example = Path(__file__).parent.parent / "examples/nvml_loop.py"
    run = subprocess.run(
        [sys.executable, "-W", "error", example, "2"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LD_LIBRARY_PATH": str(compiled().parent), "OMP_NUM_THREADS": "1"},
    )
    assert "NVIDIA Stand-in by NVML's energy counter; the model runs on cpu" in run.stdout
    (watts,) = re.findall(r"power by the meter: ([0-9.]+) W", run.stdout)
    assert float(watts) == pytest.approx(200, rel=0.03)


# Which GPUs are meant


def chosen(root, **environ):
    return [gpu.place for gpu in open_gpus(root, environ).gpus]


def test_every_gpu_is_meant_where_nothing_says_otherwise(tmp_path, two):
    assert chosen(tmp_path) == [0, 1]


@pytest.mark.parametrize("word", ["1", "GPU-1000-aaaa", "GPU-1"])
def test_cuda_visible_devices_names_gpus_by_index_or_uuid(tmp_path, two, word):
    assert chosen(tmp_path, CUDA_VISIBLE_DEVICES=word) == [1]


def test_an_index_among_unlike_gpus_needs_the_order_of_the_bus(tmp_path, two):
    two.gpus[1].name = b"NVIDIA Other"
    with pytest.raises(DeviceError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        chosen(tmp_path, CUDA_VISIBLE_DEVICES="1")
    assert chosen(tmp_path, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID") == [1]


@pytest.mark.parametrize(
    ("word", "why"),
    [("7", "not one of the GPUs here"), ("MIG-7", "a part of a GPU"), ("", "hides every GPU")],
)
def test_a_gpu_that_cannot_be_told_is_refused(tmp_path, two, word, why):
    with pytest.raises(DeviceError, match=why):
        chosen(tmp_path, CUDA_VISIBLE_DEVICES=word)
