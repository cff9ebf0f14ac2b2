"""An ordinary Linux machine as a device: any subset of its parts, the lease behind it."""

from __future__ import annotations

import math
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linux_trees import CPUFREQ, RAPL, LinuxTree, xeon
from nvml_stand_in import gpus_in
from toy import VirtualClock

from governor import EnergyGovernor
from governor.devices.linux import TOTAL, find_parts, open_linux, refusals
from governor.errors import DeviceError, InputError, NoDeviceError
from governor.lease.client import Lease
from governor.space import OperatingPoint


@pytest.fixture
def tree(tmp_path):
    """A server without GPUs."""
    return xeon(tmp_path / "root")


@pytest.fixture
def opened(tmp_path):
    """Opens a tree as a device whose lease a real keeper process holds."""
    devices = []

    def open_tree(tree: LinuxTree, **environ: str):
        take = partial(Lease.open, sysfs_root=tree.root, folder=tmp_path / "journal")
        devices.append(open_linux(tree.root, environ, take))
        return devices[-1]

    yield open_tree
    for device in devices:
        device.close()


@pytest.fixture
def two_gpus(tree, monkeypatch):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed; it is the extra nvml")
    with gpus_in(tree.root, monkeypatch, count=2) as machine:
        yield machine


def test_a_cpu_is_set_through_the_keeper_and_put_back(tree, opened):
    device = opened(tree)
    before = tree.limits_khz()
    point = device.space.point(2)
    assert device.apply(point) == point == device.read()
    assert tree.limits_khz() != before
    device.release()
    assert tree.limits_khz() == before


def test_after_a_release_it_can_be_set_again(tree, opened):
    device = opened(tree)
    device.apply(device.space.point(0))
    device.release()
    device.apply(device.space.point(1))
    assert device.read() == device.space.point(1)


def test_a_point_off_the_lattice_is_refused_and_nothing_is_written(tree, opened):
    before = tree.limits_khz()
    with pytest.raises(InputError, match="not one of the"):
        opened(tree).apply(OperatingPoint({"cpu_hz": 1e9 + 1}))
    assert tree.limits_khz() == before


def test_someone_elses_write_shows(tree, opened):
    device = opened(tree)
    point = device.space.point(device.space.fastest)
    device.apply(point)
    for name in ("scaling_min_freq", "scaling_max_freq"):
        tree.write(f"{CPUFREQ}/policy1/{name}", 1_500_000)
    assert device.read() == OperatingPoint({"cpu_hz": 1.5e9})


def test_energy_temperature_and_throttling_of_a_cpu_are_sampled(tree, opened):
    device = opened(tree)
    device.sample()
    tree.write(f"{RAPL}/intel-rapl:0/energy_uj", 5_000_000)
    tree.write(f"{RAPL}/intel-rapl:0:0/energy_uj", 2_000_000)
    sample = device.sample()
    assert sample.energy_j == pytest.approx(5.0)
    assert sample.power_w[TOTAL] == pytest.approx(
        sample.power_w["package-0"] + sample.power_w["dram-0"]
    )
    assert sample.temperature_c == {"Package id 0": 54.0}
    assert sample.throttle_events == {"cpu_thermal": 3}


def test_a_counter_that_fails_leaves_out_its_rails(tree, opened, two_gpus):
    device = opened(tree)
    tree.write(f"{RAPL}/intel-rapl:0/energy_uj", "")
    sample = device.sample()
    assert set(sample.power_w) == {"gpu0", "gpu1"}
    assert sample.energy_j is None


def test_cpu_and_gpus_are_one_device_with_one_total(tree, opened, two_gpus):
    device = opened(tree)
    assert device.space.names == ("cpu_hz", "gpu_hz", "emc_hz")
    device.sample()
    before_j = device.sample().energy_j
    two_gpus.gpus[1].energy_mj += 3_000
    tree.write(f"{RAPL}/intel-rapl:0/energy_uj", 5_000_000)
    assert device.sample().energy_j - before_j == pytest.approx(7.0)
    assert device.info.description == (
        "intel-xeon-gold-6248 (intel_pstate), 2 x NVIDIA Stand-in by NVML's energy counter, "
        "RAPL package-0 + dram-0"
    )


def test_gpus_are_set_alike_and_unlocked_after(tree, opened, two_gpus):
    device = opened(tree)
    device.apply(device.space.point(0))
    assert [gpu.locked_mhz for gpu in two_gpus.gpus[:2]] == [210, 210]
    device.release()
    assert [gpu.locked_mhz for gpu in two_gpus.gpus[:2]] == [0, 0]


def test_a_gpu_that_cuda_hides_is_left_alone(tree, opened, two_gpus):
    two_gpus.gpus[0].locked_mhz = 900  # another user's
    device = opened(tree, CUDA_VISIBLE_DEVICES="1")
    device.apply(device.space.point(0))
    device.release()
    assert two_gpus.gpus[0].locked_mhz == 900
    assert set(device.sample().power_w) & {"gpu0", "gpu1"} == {"gpu1"}


def test_a_gpu_that_falls_off_the_bus_is_missed_only_where_it_is_ours(tree, opened, two_gpus):
    device = opened(tree, CUDA_VISIBLE_DEVICES="1")
    two_gpus.gpus[0].lost = 1
    point = device.space.point(0)
    assert device.apply(point) == device.read() == point
    device.release()
    two_gpus.gpus[0].lost = 0
    device = opened(tree)
    two_gpus.gpus[0].lost = 1
    with pytest.raises(DeviceError, match="gpu0_hz, gpu0_emc_hz cannot be read any more"):
        device.read()


def test_locks_end_with_the_application_that_was_killed(tree, tmp_path, opened, two_gpus):
    device = opened(tree)
    device.apply(device.space.point(0))
    keeper = device._lease._process
    device._lease._line.close()  # what the kernel does for a process that was killed
    keeper.wait(10)
    assert [gpu.locked_mhz for gpu in two_gpus.gpus[:2]] == [0, 0]
    assert tree.limits_khz() == [(1_000_000, 3_900_000)] * 2


def test_a_keeper_that_was_killed_while_clocks_were_low_takes_no_level_away(tree, opened):
    device = opened(tree)
    device.apply(device.space.point(0))
    keeper = device._lease._process
    keeper.kill()
    keeper.wait()
    with pytest.raises(DeviceError):  # the answer that is lost with it
        device.read()
    fastest = device.space.point(device.space.fastest)
    assert device.apply(fastest) == fastest


def test_the_power_limit_is_the_knob_of_gpus_whose_clock_cannot_be_locked(tree, opened, two_gpus):
    for gpu in two_gpus.gpus[:2]:
        gpu.architecture = 4
    assert opened(tree).space.names == ("cpu_hz", "power_limit_w")


def test_unlike_gpus_share_the_levels_that_both_have(tree, opened, two_gpus):
    two_gpus.gpus[1].most_mw = two_gpus.gpus[1].limit_mw = 400_000
    for gpu in two_gpus.gpus[:2]:
        gpu.architecture = 4
    levels = opened(tree).space.knobs[1].levels
    assert max(levels) <= 400
    assert len(levels) > 1


def test_a_knob_whose_energy_nobody_tells_is_left_alone(tree, opened, two_gpus):
    for zone in ("intel-rapl:0", "intel-rapl:0:0"):
        tree.write(f"{RAPL}/{zone}/energy_uj", 0)
    assert opened(tree).space.names == ("gpu_hz", "emc_hz")
    reasons = refusals(find_parts(tree.root, {}))
    assert "nothing tells what the CPU draws" in reasons["cpufreq"]
    assert "reads 0" in reasons["rapl"]


def test_gpus_without_energy_are_left_alone_and_the_cpu_is_governed(tree, opened, two_gpus):
    two_gpus.gpus[1].supports_energy = two_gpus.gpus[1].supports_power = 0
    assert opened(tree).space.names == ("cpu_hz",)
    assert "nothing tells what the GPU draws (gpu1" in refusals(find_parts(tree.root, {}))["nvml"]


def test_a_meter_of_the_whole_machine_is_the_whole_total(opened, tmp_path, monkeypatch):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed; it is the extra nvml")
    tree = LinuxTree(tmp_path / "root").policy(0, 1_000_000, 3_000_000)
    tree.hwmon(0, "power_meter", power1_average=500_000_000)
    with gpus_in(tree.root, monkeypatch):
        device = opened(tree)
        assert device.space.names == ("cpu_hz", "gpu_hz", "emc_hz")
        assert device.sample().power_w == {"power_meter": 500.0, TOTAL: 500.0}


def test_a_machine_with_nothing_to_set_is_refused_part_by_part(tmp_path):
    with pytest.raises(NoDeviceError) as refused:
        open_linux(tmp_path, {})
    assert set(refused.value.refusals) == {"nvml", "cpufreq", "rapl", "hwmon"}


def test_a_lease_without_one_of_the_knobs_is_given_back_and_refused(tree, two_gpus):
    """Such as of a daemon that was started before the GPU's driver."""
    released = []

    class Less:
        levels: ClassVar = {"cpu_hz": (1e9, 2e9)}

        def release(self):
            released.append(True)

    with pytest.raises(DeviceError, match=r"it cannot set gpu.*restart it"):
        open_linux(tree.root, {}, Less)
    assert released == [True]


GARBAGE = st.sampled_from(
    [None, "", "\0", "nan", "-1", "1e999", "9" * 5000, "a b\nc", "3" * 70_000]
)
"""What a file may hold; None: it is gone."""


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_no_file_of_the_kernel_s_can_make_it_fall_over(data):
    """Any of them may be gone, unreadable or hold anything, at the start or later."""
    with tempfile.TemporaryDirectory() as folder:
        tree = xeon(Path(folder))
        tree.hwmon(1, "power_meter", power1_average=180_000_000)
        files = sorted(path for path in tree.root.rglob("*") if path.is_file())

        def spoil():
            for path in data.draw(st.lists(st.sampled_from(files), max_size=6, unique=True)):
                content = data.draw(GARBAGE)
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_text(content, encoding="latin-1")

        spoil()
        parts = find_parts(tree.root, {})
        refusals(parts)
        if not parts.sources:
            return
        for second in range(3):
            try:
                sample = parts.sample(float(second))
            except DeviceError:
                continue
            told = [*sample.power_w.values(), *sample.temperature_c.values()]
            assert all(math.isfinite(value) for value in told)
            assert all(watts >= 0 for watts in sample.power_w.values())
            assert sample.energy_j is None or 0 <= sample.energy_j < 1e6
            spoil()


class Loop:
    """An application on the tree's machine, in virtual time: its clocks cost what they say."""

    def __init__(self, tree: LinuxTree, gpu=None) -> None:
        self.tree = tree
        self.gpu = gpu
        self.clock = VirtualClock()
        self.joules = 0.0
        self._random = random.Random(0)

    def cost(self, cpu_hz: float, gpu_hz: float) -> tuple[float, float]:
        """Seconds and joules of one inference."""
        seconds = 48e6 / cpu_hz + (0.0 if self.gpu is None else 60e6 / gpu_hz)
        watts = 15.0 + 1.2 * (cpu_hz / 1e9) ** 3
        return seconds, seconds * (watts + (0.0 if self.gpu is None else 30.0 * gpu_hz / 1e9))

    def infer(self) -> None:
        cpu_hz = 1e3 * int(self.tree.text(f"{CPUFREQ}/policy0/scaling_max_freq"))
        gpu_hz = 1.98e9 if self.gpu is None else 1e6 * (self.gpu.locked_mhz or 1980)
        seconds, joules = self.cost(cpu_hz, gpu_hz)
        self.clock.sleep(seconds * self._random.gauss(1.0, 0.005))
        self.joules += joules
        self.tree.write(f"{RAPL}/intel-rapl:0/energy_uj", round(1e6 * (1 + self.joules)))

    def cheapest(self, space, slo_s: float) -> float:
        """Joules an inference at the best setting that keeps the SLO."""
        points = [space.point(row) for row in range(len(space))]
        costs = [self.cost(p["cpu_hz"], p.get("gpu_hz", 1.98e9)) for p in points]
        return min(joules for seconds, joules in costs if seconds <= slo_s)


@pytest.mark.parametrize("with_gpu", [False, True])
def test_the_governor_finds_the_cheapest_clocks_and_puts_them_back(
    with_gpu, tree, tmp_path, request
):
    gpu = request.getfixturevalue("two_gpus").gpus[0] if with_gpu else None
    if gpu is not None:
        gpu.memory_mhz[1] = 0
    app = Loop(tree, gpu)
    take = partial(Lease.open, sysfs_root=tree.root, folder=tmp_path / "journal")
    device = open_linux(tree.root, {"CUDA_VISIBLE_DEVICES": "0"}, take, app.clock)
    assert device.space.names == (("cpu_hz", "gpu_hz") if with_gpu else ("cpu_hz",))
    before = tree.limits_khz()
    with EnergyGovernor("100ms", device=device, policy="coordinate") as gov:
        for _ in gov.watch(range(20_000)):
            app.infer()
            if gov.phase == "hold":
                break
        chosen = gov.operating_point
        assert gov.phase == "hold"
    _, joules = app.cost(chosen["cpu_hz"], chosen.get("gpu_hz", 1.98e9))
    assert joules < 1.02 * app.cheapest(device.space, 0.1)
    assert tree.limits_khz() == before
    assert gpu is None or gpu.locked_mhz == 0
