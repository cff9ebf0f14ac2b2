"""The clocks of every Jetson, found and set through its kernel's files."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jetson_kernel import Kernel, running
from sysfs_trees import KINDS, Kind, Tree, kind

from governor.lease import jetson_controls
from governor.lease.control import Control
from governor.lease.custody import Custody
from governor.lease.errors import HardwareError, RestoreError
from governor.lease.jetson_board import boards, identify, is_emulated, l4t, model, why_no_jetson
from governor.lease.jetson_controls import CappedClock, find, gpu_node, survey
from governor.lease.journal import Record
from governor.lease.process import Process

CPU = "sys/devices/system/cpu/cpufreq/policy0"
EMC = "sys/kernel/debug/bpmp/debug/clk/emc"
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def tree(root: Path, name: str) -> Tree:
    return Tree(root, kind(name))


def controls(root: Path) -> dict[str, Control]:
    hardware = find(root)
    assert hardware is not None
    return {control.name: control for control in hardware.controls}


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes().strip() for path in files}


# Finding -------------------------------------------------------------------------------------


@every_kind
def test_every_board_is_told_by_its_device_tree(kind: Kind, tmp_path: Path) -> None:
    root = Tree(tmp_path, kind).root
    board = identify(root)
    assert board is not None
    assert board.name == kind.board
    assert model(root) == kind.model
    assert l4t(root) == f"{kind.l4t}.4.3"


@every_kind
def test_every_board_has_three_knobs_with_the_kernel_s_levels(kind: Kind, tmp_path: Path) -> None:
    found = controls(Tree(tmp_path, kind).root)
    assert list(found) == ["cpu_hz", "gpu_hz", "emc_hz"]
    assert found["cpu_hz"].levels == tuple(1e3 * khz for khz in kind.cpu_khz)
    assert found["gpu_hz"].levels == tuple(map(float, kind.gpu_hz))
    cap = kind.emc_cap_hz or float("inf")
    assert found["emc_hz"].levels == tuple(1e3 * khz for khz in kind.emc_khz if 1e3 * khz <= cap)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, "agx-orin-r36").root
    before = contents(root)
    find(root)
    assert contents(root) == before


def test_every_known_board_has_a_fixture_tree() -> None:
    assert {each.board for each in KINDS} == {board.name for board in boards()}


def test_a_module_s_own_number_counts_more_than_its_family_s(tmp_path: Path) -> None:
    names = (
        identify(tree(tmp_path / each, each).root) for each in ("agx-orin-r36", "agx-orin-32gb-r36")
    )
    assert [board.name for board in names if board] == ["agx-orin", "agx-orin-32gb"]


def test_an_unknown_jetson_has_no_declared_total(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file("proc/device-tree/compatible", b"nvidia,p9999-0000+p9998-0000\0nvidia,tegra234\0")
    board = identify(here.root)
    assert board is not None
    assert (board.name, board.total) == ("tegra234", ())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "cannot be read"),
        ({"proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0"}, "raspberrypi"),
        ({"etc/nv_tegra_release": b"# R36 (release), REVISION: 4.3"}, "device tree is hidden"),
    ],
)
def test_what_is_no_jetson_says_why(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(content)
    assert find(tmp_path) is None
    assert said in why_no_jetson(tmp_path)


def test_the_release_is_taken_from_the_package_where_its_file_is_missing(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    (here.root / "etc/nv_tegra_release").unlink()
    ours = "Package: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.4-2025"
    here.file("var/lib/dpkg/status", f"Package: zlib\nVersion: 1.2\n\n{ours}")
    assert l4t(here.root) == "36.4.4"


def test_a_plain_tree_is_an_emulation_and_the_live_root_is_not(tmp_path: Path) -> None:
    assert is_emulated(tmp_path)
    assert not is_emulated(Path("/"))


def test_the_gpu_is_found_by_its_node_and_not_by_its_address(tmp_path: Path) -> None:
    here = tree(tmp_path, "xavier-nx-r35")
    entry = here.root / "sys/class/devfreq/17000000.gv11b"
    entry.rename(entry.with_name("12340000.unheard-of"))
    node = gpu_node(here.root)
    assert node is not None
    assert node.name == "12340000.unheard-of"


def test_a_mode_s_caps_are_the_highest_levels(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nano-r36")
    here.file(f"{CPU}/scaling_max_freq", "1497600")
    here.file(f"{here.gpu}/max_freq", "612000000")
    here.file("sys/kernel/nvpmodel_clk_cap/emc", "2133000000")
    found = controls(here.root)
    assert [each.levels[-1] for each in found.values()] == [1497.6e6, 612e6, 2133e6]


def test_clusters_under_different_caps_keep_to_the_lower_one(tmp_path: Path) -> None:
    here = tree(tmp_path, "tx2-r32")
    here.file("sys/devices/system/cpu/cpufreq/policy1/scaling_max_freq", "1267200")
    assert controls(here.root)["cpu_hz"].levels[-1] == 1267.2e6


def test_a_cluster_that_is_offline_is_left_out(tmp_path: Path) -> None:
    here = tree(tmp_path, "tx2-r32")
    denver = here.root / "sys/devices/system/cpu/cpufreq/policy1"
    for attribute in denver.iterdir():
        attribute.unlink()
    cpu = controls(here.root)["cpu_hz"]
    cpu.write(cpu.levels[0])
    assert cpu.read() == cpu.levels[0]
    assert list(denver.iterdir()) == []


def test_a_kernel_without_a_table_gets_even_steps_within_its_limits(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-thor-r38")
    for path in (f"{here.gpu}/available_frequencies", *(
        f"sys/devices/system/cpu/cpufreq/policy{number}/scaling_available_frequencies"
        for number in here.kind.policies
    )):  # fmt: skip
        (here.root / path).unlink()
    found = controls(here.root)
    assert (found["gpu_hz"].levels[0], found["gpu_hz"].levels[-1]) == (315e6, 1575e6)
    assert (found["cpu_hz"].levels[0], found["cpu_hz"].levels[-1]) == (972e6, 2601e6)
    assert len(found["gpu_hz"].levels) == len(found["cpu_hz"].levels) == 16


@pytest.mark.parametrize(
    ("gone", "knob", "said"),
    [
        ("sys/class/devfreq", "gpu_hz", "no GPU"),
        ("sys/devices/system/cpu/cpufreq", "cpu_hz", "no policy"),
    ],
)
def test_a_missing_knob_is_left_out_with_its_reason(
    tmp_path: Path, gone: str, knob: str, said: str
) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    shutil.rmtree(here.root / gone)
    found = survey(here.root)
    assert found is not None
    assert said in found.missing[knob].reason
    assert {each.name for each in found.controls} == {"cpu_hz", "gpu_hz", "emc_hz"} - {knob}


@pytest.mark.parametrize("content", ["", "garbage", "\0"])
def test_a_limit_that_holds_no_number_costs_only_its_own_knob(tmp_path: Path, content: str) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file(f"{here.gpu}/max_freq", content)
    found = survey(here.root)
    assert found is not None
    assert "no number" in found.missing["gpu_hz"].reason
    assert {each.name for each in found.controls} == {"cpu_hz", "emc_hz"}


def test_numbers_may_end_in_nuls(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    here.file(f"{here.gpu}/max_freq", b"918000000\0\n")
    assert controls(here.root)["gpu_hz"].levels[-1] == 918e6


def test_without_debugfs_the_memory_clock_is_capped(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    shutil.rmtree(here.root / "sys/kernel/debug")
    emc = controls(here.root)["emc_hz"]
    assert isinstance(emc, CappedClock)
    assert emc.read() == 3199e6
    before = emc.snapshot()
    emc.write(2133e6)
    assert here.text("sys/kernel/nvpmodel_clk_cap/emc") == "2133000000"
    assert emc.read() == 2133e6
    emc.restore(before)
    assert here.text("sys/kernel/nvpmodel_clk_cap/emc") == "9223372036854775807"


def test_without_debugfs_and_cap_the_fix_is_named(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    shutil.rmtree(here.root / "sys/kernel")
    found = survey(here.root)
    assert found is not None
    assert "mount -t debugfs" in found.missing["emc_hz"].fix


def test_rates_come_from_the_folder_of_tables_where_there_is_no_list(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-xavier-r35")
    bpmp = "sys/kernel/debug/bpmp/debug/emc"
    (here.root / f"{bpmp}/possible_rates").unlink()
    for khz in (204000, 1600000, 2133000):
        (here.root / f"{bpmp}/tables/regular/{khz}").mkdir(parents=True)
    assert controls(here.root)["emc_hz"].levels == (204e6, 1600e6, 2133e6)


def test_thor_without_its_bandwidth_manager_is_locked_at_the_bpmp(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-thor-r38")
    shutil.rmtree(here.root / "sys/devices/platform/bwmgr")
    (here.root / "sys/class/devfreq/bwmgr").unlink()
    for name, value in (("rate", 2750000000), ("min_rate", 665600000), ("max_rate", 4266000000),
                        ("mrq_rate_locked", 0), ("state", 1)):  # fmt: skip
        here.file(f"{EMC}/{name}", str(value))
    here.file(f"{EMC}/dvfs", "0 665600000 1\n1 3200000000 2\n2 4266000000 3")
    halt = "sys/kernel/debug/bpmp/debug/bwmgr/bwmgr_halt"
    here.file(halt, "0")
    emc = controls(here.root)["emc_hz"]
    assert emc.levels == (665.6e6, 3200e6, 4266e6)
    before = emc.snapshot()
    emc.write(3200e6)
    assert (here.text(halt), here.text(f"{EMC}/rate")) == ("1", "3200000000")
    emc.restore(before)
    assert (here.text(halt), here.text(f"{EMC}/mrq_rate_locked")) == ("0", "0")


def knobs(custody: Custody) -> set[str]:
    knobs = custody.describe()["knobs"]
    assert isinstance(knobs, dict)
    return set(knobs)


def test_a_gated_gpu_is_woken_to_be_found_and_gated_again(tmp_path: Path) -> None:
    here = tree(tmp_path, "xavier-nx-r35")
    entry = here.root / "sys/class/devfreq/17000000.gv11b"
    away = entry.rename(entry.with_name("away"))
    away = away.rename(here.root / "away")
    gate = here.file("sys/devices/gpu.0/railgate_enable", "1")
    target = here.root / here.gpu

    class Rail(Kernel):
        def write(self, path: Path, text: str) -> None:
            super().write(path, text)
            if path == gate and text == "0":
                entry.symlink_to(target)

    custody = Custody(here.root, tmp_path / "lease")
    with running(Rail(35, here.kind.emc_khz)) as rail:
        custody.find()
        assert "gpu_hz" not in knobs(custody)
        assert rail.written == []
        custody.take(Process.of(os.getpid()))
        assert "gpu_hz" in knobs(custody)
    assert rail.written == [("railgate_enable", "0"), ("railgate_enable", "1")]
    assert here.text("sys/devices/gpu.0/railgate_enable") == "1"
    assert not custody.journal.path.exists()


GATE_KILLER = """
import os, signal, sys
from pathlib import Path
from governor.lease import jetson_controls, keeper, kernel_files

def write_text(path, text):
    kernel_files.write_text(path, text)
    os.kill(os.getpid(), signal.SIGKILL)

jetson_controls.write_text = write_text
keeper.main(["serve", sys.argv[2] + "/socket", str(os.getgid()), *sys.argv[1:]])
"""


@pytest.mark.parametrize("left", [False, True], ids=["alone", "beside what another left"])
def test_a_rail_gate_is_closed_again_after_its_keeper_was_killed_with_it_open(
    left: bool, tmp_path: Path
) -> None:
    here = tree(tmp_path / "root", "xavier-nx-r35")
    us, folder = Process.of(os.getpid()), tmp_path / "lease"
    before = contents(here.root)
    custody = Custody(here.root, folder)
    custody.take(us)
    if left:
        custody.set({"cpu_hz": 1190.4e6})
    else:
        custody.journal.write(Record("of another boot", "/", [], "", {}, []))
    custody.lock.drop()
    gate = here.file("sys/devices/gpu.0/railgate_enable", "1")
    entry = here.root / "sys/class/devfreq/17000000.gv11b"
    target = os.readlink(entry)
    entry.unlink()
    words = [sys.executable, "-c", GATE_KILLER, str(here.root), str(folder)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert gate.read_text() == "0"
    if left:
        entry.symlink_to(target)  # it registered, as the gate was open
    assert Custody(here.root, folder).put_back(us) is not None
    assert gate.read_text() == "1"
    entry.unlink(missing_ok=True)
    entry.symlink_to(target)
    gate.unlink()
    assert contents(here.root) == before
    assert not custody.journal.path.exists()


def test_a_gate_that_will_not_close_is_said_and_one_that_will_not_open_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, us = tree(tmp_path / "root", "xavier-nx-r35"), Process.of(os.getpid())
    (here.root / "sys/class/devfreq/17000000.gv11b").unlink()
    gate = here.file("sys/devices/gpu.0/railgate_enable", "1")
    custody = Custody(here.root, tmp_path / "lease")

    class Stuck(Kernel):
        def write(self, path: Path, text: str) -> None:
            super().write(path, text)
            self.refuse.add(path.name)

    monkeypatch.setattr("governor.lease.custody.RESTORE_PAUSES_S", (0.0,))
    closed = pytest.raises(RestoreError, match=r"gpu_rail_gate: .*railgate_enable")
    with running(Stuck(35, here.kind.emc_khz)), closed:
        custody.take(us)
    with running(Kernel(35, here.kind.emc_khz)) as kernel:
        custody.take(us)
        assert gate.read_text() == "1"
        custody.give_back()
        kernel.refuse.add("railgate_enable")
        custody.take(us)
        assert knobs(custody) == {"cpu_hz", "emc_hz"}
        custody.give_back()


# Setting -------------------------------------------------------------------------------------


@every_kind
def test_levels_are_set_and_read_back_up_and_down_and_all_is_put_back(
    kind: Kind, tmp_path: Path
) -> None:
    here = Tree(tmp_path, kind)
    before = contents(here.root)
    found = controls(here.root)
    with running(Kernel(kind.l4t, kind.emc_khz)):
        snapshots = {name: control.snapshot() for name, control in found.items()}
        for control in found.values():
            for level in (
                control.levels[0],
                control.levels[-1],
                control.levels[len(control.levels) // 2],
            ):
                control.write(level)
                assert control.read() == level
        for name, control in found.items():
            control.restore(snapshots[name])
    assert contents(here.root) == before


def test_upper_limit_first_when_raising_lower_limit_first_when_lowering(tmp_path: Path) -> None:
    here = tree(tmp_path, "nano-r32")
    gpu = controls(here.root)["gpu_hz"]
    with running(Kernel(32, here.kind.emc_khz)) as kernel:
        gpu.write(gpu.levels[0])
        gpu.write(gpu.levels[-1])
    lowest, highest = "76800000", "921600000"
    assert kernel.written == [
        ("min_freq", lowest), ("max_freq", lowest), ("max_freq", highest), ("min_freq", highest),
    ]  # fmt: skip


def test_the_memory_clock_is_locked_before_its_rate_is_set(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    emc = controls(here.root)["emc_hz"]
    with running(Kernel(36, here.kind.emc_khz)) as kernel:
        emc.write(3199e6)
    assert kernel.written == [("mrq_rate_locked", "1"), ("rate", "3199000000")]


def test_what_the_bpmp_rounds_or_ignores_shows_when_it_is_read_back(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    emc = controls(here.root)["emc_hz"]
    with running(Kernel(36, here.kind.emc_khz)):
        emc.write(1600e6)
        assert emc.read() == 2133e6
        emc.write(5000e6)
        assert emc.read() == 2133e6


@pytest.mark.parametrize("limit", ["min_freq", "max_freq"])
def test_a_limit_that_someone_else_rewrites_is_seen(tmp_path: Path, limit: str) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    gpu = controls(here.root)["gpu_hz"]
    gpu.write(612e6)
    here.file(f"{here.gpu}/{limit}", "408000000" if limit == "min_freq" else "816000000")
    here.file(f"{here.gpu}/cur_freq", "612000000")
    assert gpu.read() != 612e6


def test_one_cluster_that_someone_else_rewrites_is_seen(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    cpu = controls(here.root)["cpu_hz"]
    cpu.write(1190.4e6)
    for limit in ("min", "max"):
        here.file(f"sys/devices/system/cpu/cpufreq/policy8/scaling_{limit}_freq", "1958400")
    assert cpu.read() == 1958.4e6


def test_limits_in_whole_khz_count_as_the_level(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    gpu = controls(here.root)["gpu_hz"]
    gpu.write(612e6)
    here.file(f"{here.gpu}/min_freq", "611999000")
    here.file(f"{here.gpu}/max_freq", "612001000")
    assert gpu.read() == 612e6


def test_limits_that_someone_else_raised_meanwhile_are_put_back_lower_one_first(
    tmp_path: Path,
) -> None:
    here = tree(tmp_path, "nano-r32")
    here.file(f"{here.gpu}/max_freq", "614400000")
    gpu = controls(here.root)["gpu_hz"]
    before = gpu.snapshot()
    for limit in ("max_freq", "min_freq"):
        here.file(f"{here.gpu}/{limit}", "921600000")
    with running(Kernel(32, here.kind.emc_khz)) as kernel:
        gpu.restore(before)
    assert kernel.written == [("min_freq", "76800000"), ("max_freq", "614400000")]


def test_a_locked_memory_clock_is_put_back_locked(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    here.file(f"{EMC}/mrq_rate_locked", "1")
    emc = controls(here.root)["emc_hz"]
    with running(Kernel(36, here.kind.emc_khz)):
        before = emc.snapshot()
        emc.write(204e6)
        emc.restore(before)
    assert (here.text(f"{EMC}/mrq_rate_locked"), here.text(f"{EMC}/rate")) == ("1", "2133000000")


@pytest.mark.parametrize(("found", "said"), [("1", True), ("0", False)])
def test_a_rate_that_was_locked_and_is_not_taken_back_is_said(
    found: str, said: bool, tmp_path: Path
) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    here.file(f"{EMC}/mrq_rate_locked", found)
    emc = controls(here.root)["emc_hz"]
    with running(Kernel(36, (204_000,))):  # the BPMP ignores all that is above
        before = emc.snapshot()
        emc.write(204e6)
        if said:
            with pytest.raises(ValueError, match="rate holds 204000000, not the 2133000000"):
                emc.restore(before)
        else:
            emc.restore(before)
    assert here.text(f"{EMC}/mrq_rate_locked") == found


def test_what_cannot_be_put_back_is_said_after_all_else_is_back(tmp_path: Path) -> None:
    here = tree(tmp_path, "agx-orin-r36")
    cpu = controls(here.root)["cpu_hz"]
    before = cpu.snapshot()
    cpu.write(cpu.levels[0])
    with running(Kernel(36, here.kind.emc_khz)) as kernel:
        kernel.refuse.add("scaling_min_freq")
        with pytest.raises(OSError, match="scaling_min_freq"):
            cpu.restore(before)
    assert here.text("sys/devices/system/cpu/cpufreq/policy8/scaling_max_freq") == "1984000"


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    cpu = controls(tree(tmp_path, "agx-orin-r36").root)["cpu_hz"]
    with pytest.raises(ValueError, match="does not hold"):
        cpu.restore({"/etc/passwd": "0"})


def test_a_vanished_file_is_an_error_of_the_system_and_is_not_made_anew(tmp_path: Path) -> None:
    here = tree(tmp_path, "orin-nx-r36")
    gpu = controls(here.root)["gpu_hz"]
    (here.root / here.gpu / "max_freq").unlink()
    with pytest.raises(FileNotFoundError):
        gpu.write(306e6)
    with pytest.raises(FileNotFoundError):
        gpu.read()
    assert not (here.root / here.gpu / "max_freq").exists()


class Broken(Kernel):
    """Nothing can be written, once that is so."""

    broken = True

    def write(self, path: Path, text: str) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        super().write(path, text)


@every_kind
def test_where_no_clock_can_be_written_all_is_as_it_was_found_and_is_said_to_be(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor.lease.custody.RESTORE_PAUSES_S", (0.0,))
    here, us = Tree(tmp_path / "root", kind), Process.of(os.getpid())
    before = contents(here.root)
    custody = Custody(here.root, tmp_path / "lease")
    custody.take(us)
    lowest = {name: each.levels[0] for name, each in controls(here.root).items()}
    with running(Broken(kind.l4t, kind.emc_khz)) as kernel:
        for name, level in lowest.items():
            with pytest.raises(HardwareError, match=f"{name} cannot be set"):
                custody.set({name: level})
        custody.give_back()
        assert not custody.journal.path.exists()
        custody.take(us)
        kernel.broken = False
        custody.set({"gpu_hz": lowest["gpu_hz"]})
        kernel.broken = True
        with pytest.raises(HardwareError):
            custody.set(lowest)
        with pytest.raises(RestoreError, match=r"not put back: gpu_hz: [^;]*The journal"):
            custody.give_back()
        kernel.broken = False
        custody.put_back(us)
    assert contents(here.root) == before


@pytest.mark.parametrize("name", ["cpu_hz", "gpu_hz"])
def test_a_limit_that_the_kernel_takes_and_does_not_set_is_no_restore(
    name: str, tmp_path: Path
) -> None:
    clock = controls(tree(tmp_path, "agx-orin-r36").root)[name]
    before = clock.snapshot()
    clock.write(clock.levels[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jetson_controls, "write_text", lambda path, text: None)
        with pytest.raises(ValueError, match="still holds"):
            clock.restore(before)
    clock.restore(before)
    assert clock.snapshot() == before


def test_levels_found_under_a_pin_grow_back_when_the_limits_are_restored(tmp_path: Path) -> None:
    root = tree(tmp_path, "orin-nx-r36").root
    first = controls(root)["gpu_hz"]
    before = first.snapshot()
    first.write(306e6)
    after_a_crash = controls(root)["gpu_hz"]
    assert after_a_crash.levels == (306e6,)
    after_a_crash.restore(before)
    assert after_a_crash.levels == first.levels


@settings(max_examples=60)
@given(
    name=st.sampled_from(["nano-r32", "tx2-r32", "xavier-nx-r32", "xavier-nx-r35", "agx-orin-r36"]),
    draw=st.randoms(use_true_random=False),
)
def test_whatever_was_set_all_files_are_as_they_were(name: str, draw: random.Random) -> None:
    """Any limits to begin with, any levels in any order; a kernel that refuses wrong orders."""
    with TemporaryDirectory() as folder:
        here = tree(Path(folder), name)
        for limits, levels in [(here.gpu, here.kind.gpu_hz), *(
            (f"sys/devices/system/cpu/cpufreq/policy{number}", here.kind.cpu_khz)
            for number in here.kind.policies
        )]:  # fmt: skip
            prefix = "scaling_" if "cpufreq" in limits else ""
            low, high = sorted((draw.choice(levels), draw.choice(levels)))
            here.file(f"{limits}/{prefix}min_freq", str(low))
            here.file(f"{limits}/{prefix}max_freq", str(high))
        before = contents(here.root)
        found = list(controls(here.root).values())
        with running(Kernel(here.kind.l4t, here.kind.emc_khz)):
            snapshots = [control.snapshot() for control in found]
            for _ in range(6):
                control = draw.choice(found)
                level = draw.choice(control.levels)
                control.write(level)
                assert control.read() == level
            for control, snapshot in zip(found, snapshots, strict=True):
                control.restore(snapshot)
        assert contents(here.root) == before
