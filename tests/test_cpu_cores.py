"""The number of CPU cores as a knob: on request, by hot-plug, and put back exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from governor import EnergyGovernor
from governor.devices.emulated.hardware import load_board
from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.physics import Contention, tables
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.emulated.tree import Fault
from governor.devices.emulated.workload import load_workload
from governor.devices.jetson import JetsonDevice
from governor.errors import InputError
from governor.lease.client import Lease
from governor.lease.custody import Custody
from governor.lease.errors import HardwareError, RestoreError
from governor.lease.process import Process
from governor.pace import Pace
from governor.space import OperatingPoint
from policies.fixed import FixedPolicy

needs_fuse = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")
CPUS = "sys/devices/system/cpu"
US = Process.of(os.getpid())


@pytest.fixture
def jetson() -> VirtualJetson:
    """A Xavier NX: six cores in three clusters, each with a clock of its own; its inferences are
    long against what a busy machine adds to them."""
    return VirtualJetson("xavier-nx", 35, "vgg19")


@pytest.fixture
def root(jetson: VirtualJetson, tmp_path: Path) -> Iterator[Path]:
    """Mounted; the last cluster's clock is limited as no other."""
    (tmp_path / "root").mkdir()
    with mounted(jetson, tmp_path / "root") as root:
        policy = root / CPUS / "cpufreq/policy4"
        (policy / "scaling_max_freq").write_text("1420800")
        (policy / "scaling_min_freq").write_text("268800")
        yield root


@pytest.fixture
def custody(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Custody:
    monkeypatch.setattr("governor.lease.custody.RESTORE_PAUSES_S", (0.0, 0.0, 0.0))
    return Custody(root, tmp_path / "lease")


def settings_of(root: Path) -> dict[str, str]:
    """What a lease may have changed: cores, and the CPU's limits."""
    names = ("online", "scaling_min_freq", "scaling_max_freq")
    files = [path for path in (root / CPUS).rglob("*") if path.name in names]
    return {str(path.relative_to(root)): path.read_text().strip() for path in files}


def online(root: Path) -> str:
    return (root / CPUS / "online").read_text().strip()


def limits(root: Path, policy: int) -> tuple[str, str]:
    folder = root / CPUS / f"cpufreq/policy{policy}"
    names = ("scaling_min_freq", "scaling_max_freq")
    low, high = ((folder / name).read_text().strip() for name in names)
    return low, high


@needs_fuse
def test_the_last_cores_go_first_and_a_cluster_that_comes_back_gets_the_clock(
    custody: Custody, root: Path
) -> None:
    before = settings_of(root)
    custody.take(US)
    assert custody.set({"cpu_cores": 3, "cpu_hz": 1190.4e6}) == {"cpu_cores": 3, "cpu_hz": 1190.4e6}
    assert online(root) == "0-2"
    assert not (root / CPUS / "cpufreq/policy4").exists()
    assert limits(root, 2) == ("1190400", "1190400")
    assert custody.set({"cpu_cores": 5, "cpu_hz": 652.8e6}) == {"cpu_cores": 5, "cpu_hz": 652.8e6}
    assert limits(root, 4) == ("652800", "652800")
    assert custody.read()["cpu_cores"] == 5
    custody.give_back()
    assert settings_of(root) == before


@needs_fuse
def test_all_is_put_back_after_the_keeper_was_killed(root: Path, tmp_path: Path) -> None:
    before = settings_of(root)
    lease = Lease.open(sysfs_root=root, folder=tmp_path / "lease")
    lease.set({"cpu_hz": 652.8e6})  # also of the clusters that go then
    lease.set({"cpu_cores": 1})
    assert lease._process is not None
    lease._process.kill()
    lease._process.wait()
    lease.forget()
    assert online(root) == "0"
    assert Custody(root, tmp_path / "lease").put_back(US) is not None
    assert settings_of(root) == before


@needs_fuse
def test_a_core_that_does_not_come_back_keeps_the_journal_with_its_clusters_clock(
    custody: Custody, jetson: VirtualJetson, root: Path
) -> None:
    before = settings_of(root)
    custody.take(US)
    custody.set({"cpu_cores": 6, "cpu_hz": 652.8e6})
    custody.set({"cpu_cores": 1})
    jetson.tree.faults = (Fault("*/cpu[45]/online", "write", "EIO"),)
    with pytest.raises(RestoreError, match=r"cpu_cores: .*cpu_hz: it waits for cpu_cores"):
        custody.give_back()
    jetson.tree.faults = (Fault("*/cpu[45]/online", "write", "ignore"),)
    with pytest.raises(RestoreError, match="did nothing"):
        custody.put_back(US)
    jetson.tree.faults = ()
    custody.put_back(US)
    assert settings_of(root) == before


@needs_fuse
def test_a_core_that_will_not_go_is_an_error_and_all_is_put_back(
    custody: Custody, jetson: VirtualJetson, root: Path
) -> None:
    before = settings_of(root)
    jetson.tree.faults = (Fault("*/cpu5/online", "write", "EINVAL"),)
    custody.take(US)
    with pytest.raises(HardwareError, match="cpu_cores cannot be set to 2"):
        custody.set({"cpu_cores": 2, "cpu_hz": 652.8e6})
    custody.give_back()
    assert settings_of(root) == before


@needs_fuse
def test_cores_of_a_lease_that_never_set_them_are_left_to_others(
    custody: Custody, root: Path
) -> None:
    custody.take(US)
    custody.set({"cpu_hz": 652.8e6})
    assert "cpu_cores" not in custody.read()
    (root / CPUS / "cpu5/online").write_text("0")
    custody.give_back()
    assert online(root) == "0-4"


@needs_fuse
def test_cores_that_the_power_mode_has_off_stay_off(
    custody: Custody, jetson: VirtualJetson, root: Path
) -> None:
    small = min(jetson.kernel.modes.values(), key=lambda mode: len(mode.cores))
    jetson.clocks.set_mode(small.id)
    before = settings_of(root)
    custody.take(US)
    knobs = custody.describe()["knobs"]
    assert isinstance(knobs, dict)
    assert knobs["cpu_cores"] == [1.0, 2.0]
    custody.set({"cpu_cores": 1})
    custody.set({"cpu_cores": 2})
    assert online(root) == "0-1"
    custody.give_back()
    assert settings_of(root) == before


def _few_cores(problem) -> FixedPolicy:
    """Holds half the clocks with the fewest cores that are allowed: a fifth less energy."""
    levels = {knob.name: knob.levels for knob in problem.space.knobs}
    half = {
        name: min(each, key=lambda level: abs(level - each[-1] / 2))
        for name, each in levels.items()
    }
    return FixedPolicy(problem, OperatingPoint({**half, "cpu_cores": levels["cpu_cores"][0]}))


@needs_fuse
def test_a_governor_offers_cores_only_where_they_are_asked_for(root: Path, tmp_path: Path) -> None:
    device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=tmp_path / "lease"))
    with pytest.raises(InputError, match="this device has cpu_hz, gpu_hz, emc_hz, cpu_cores"):
        EnergyGovernor("1s", device=device, limits={"fan": (None, None)})
    assert "cpu_cores" not in device.space.names
    device.close()


@needs_fuse
def test_a_governor_sets_cores_and_puts_them_back(root: Path, tmp_path: Path) -> None:
    before = settings_of(root)
    brisk = Pace(baseline_precision=0.1, precision=0.05, window_max_s=3.0, rest_s=0.2)
    device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=tmp_path / "lease"))
    with (
        EnergyGovernor(
            "1s", device=device, policy=_few_cores, pace=brisk, limits={"cpu_cores": (2, None)}
        ) as gov,
        (root / "run/virtual-jetson/infer").open("wb", buffering=0) as infer,
    ):
        for _ in range(2000):
            with gov.inference():
                infer.write(b"1")
            if gov.phase == "hold":
                break
        assert gov.phase == "hold"
        assert gov.operating_point is not None, gov.status()
        assert gov.operating_point["cpu_cores"] == 2
        assert online(root) == "0-1"
    device.close()
    assert settings_of(root) == before


def test_fewer_cores_draw_less_and_slow_nobody_who_needs_no_more() -> None:
    board, workload = load_board("xavier-nx"), load_workload("resnet-18")
    every, two, one = (tables(board, workload, 1, cores=cores) for cores in (6, 2, 1))
    assert (two.idle_w.sum(-1) < every.idle_w.sum(-1)).all()
    assert (two.busy_w.sum(-1) < every.busy_w.sum(-1)).all()
    assert (two.cpu_leak_w < every.cpu_leak_w).all()
    assert (two.latency_s == every.latency_s).all()
    assert (one.latency_s > every.latency_s).all()
    busy = Contention(cpu_cores=2.0)
    crowded, roomy = (tables(board, workload, 1, busy, cores) for cores in (2, 3))
    assert (crowded.latency_s > roomy.latency_s).all()


@needs_fuse
def test_a_cluster_that_someone_else_has_turned_off_is_owed_its_clock(
    custody: Custody, root: Path
) -> None:
    before = settings_of(root)
    custody.take(US)
    custody.set({"cpu_hz": 652.8e6})
    for core in (4, 5):
        (root / CPUS / f"cpu{core}/online").write_text("0")
    assert custody.read()["cpu_hz"] == 652.8e6
    with pytest.raises(RestoreError, match="cpu_hz"):
        custody.give_back()
    assert online(root) == "0-3"
    assert limits(root, 0) == (before[f"{CPUS}/cpufreq/policy0/scaling_min_freq"],
                               before[f"{CPUS}/cpufreq/policy0/scaling_max_freq"])  # fmt: skip
    for core in (4, 5):
        (root / CPUS / f"cpu{core}/online").write_text("1")
    custody.put_back(US)
    assert settings_of(root) == before
