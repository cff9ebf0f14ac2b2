"""What others set during a lease stays theirs: above all a new power mode's limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jetson_kernel import Kernel, running
from sysfs_trees import KINDS, Kind, Tree, kind

from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.lease.custody import Custody
from governor.lease.errors import HardwareError
from governor.lease.jetson_controls import CappedClock, find
from governor.lease.process import Process

US = Process.of(os.getpid())
CPUS = "sys/devices/system/cpu"
GPU = "sys/class/devfreq/17000000.gpu"
SET = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "iso_cap", "clk_cap/emc")
"""How the files end that a power mode sets."""
THOR = "bwmgr"
"""Whose limits on Thor a power mode does not set, on this release."""
LOCKS = ("mrq_rate_locked", "clk_state")
LOW = {"cpu_hz": 1113.6e6, "gpu_hz": 408e6, "emc_hz": 665.6e6}
CASES = [("agx-orin", 36, 1), ("agx-orin", 36, 2), ("agx-orin", 36, 3), ("orin-nano", 36, 0),
         ("nano", 32, 1), ("xavier-nx", 35, 3), ("agx-thor", 38, 1)]  # fmt: skip


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governor.lease.custody.RESTORE_PAUSES_S", (0.0, 0.0))


def settings_of(root: Path, ends: tuple[str, ...] = SET) -> dict[str, str]:
    files = (path for path in (root / "sys").rglob("*") if str(path).endswith(ends))
    return {
        str(path): path.read_text() for path in files if path.is_file() and THOR not in str(path)
    }


def end(custody: Custody, killed: bool) -> Custody:
    """By release or, as after kill -9, by a keeper that knows only the journal."""
    if not killed:
        custody.give_back()
        return custody
    custody.lock.drop()
    after = Custody(custody._root, custody.journal.path.parent)
    after.put_back(US)
    return after


def middle(custody: Custody) -> dict[str, float]:
    """A level of each clock that has lower and higher ones."""
    knobs = custody.describe()["knobs"]
    assert isinstance(knobs, dict)
    return {name: levels[len(levels) // 2] for name, levels in knobs.items() if name[-2:] == "hz"}


# On mounted boards -----------------------------------------------------------------------------


@pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(("board", "l4t", "mode"), CASES, ids=lambda value: str(value))
def test_a_new_power_mode_keeps_its_limits_when_the_lease_ends(
    board: str, l4t: int, mode: int, killed: bool, tmp_path: Path
) -> None:
    """Also where it turns off a cluster, whose clock was pinned."""
    (tmp_path / "root").mkdir()
    with mounted(VirtualJetson(board, l4t), tmp_path / "root") as root:
        custody = Custody(root, tmp_path / "lease")
        custody.take(US)
        custody.set(middle(custody))
        (root / "run/virtual-jetson/nvpmodel").write_text(str(mode))
        theirs = settings_of(root)
        custody = end(custody, killed)
        assert settings_of(root) == theirs
        assert set(settings_of(root, LOCKS).values()) <= {"0\n"}
        assert not custody.journal.path.exists()
        custody.take(US)
        custody.set(middle(custody))
        custody.give_back()
        assert settings_of(root) == theirs


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An AGX Orin in MAXN, mounted."""
    if why_not() is not None:
        pytest.skip(f"no FUSE here: {why_not()}")
    (tmp_path / "root").mkdir()
    with mounted(VirtualJetson("agx-orin", 36), tmp_path / "root") as root:
        yield root


@pytest.fixture
def custody(root: Path, tmp_path: Path) -> Custody:
    """With the lease taken, and every clock set low."""
    custody = Custody(root, tmp_path / "lease")
    custody.take(US)
    custody.set(LOW)
    return custody


def switch(root: Path, mode: int) -> dict[str, str]:
    """To a power mode; what it sets."""
    (root / "run/virtual-jetson/nvpmodel").write_text(str(mode))
    return settings_of(root)


@pytest.mark.parametrize("killed", [False, True])
def test_setting_goes_on_within_a_new_power_mode_and_leaves_it(
    killed: bool, custody: Custody, root: Path
) -> None:
    theirs = switch(root, 2)
    assert custody.set(LOW) == LOW
    end(custody, killed)
    assert settings_of(root) == theirs | {
        # Its cores are off, and so have no limits of which one could say whose they are.
        path: text
        for path, text in settings_of(root).items()
        if "policy8" in path
    }


def test_a_new_power_mode_is_not_exceeded(custody: Custody, root: Path) -> None:
    theirs = switch(root, 2)
    with pytest.raises(HardwareError, match=r"gpu_hz cannot.*max_freq to 612 MHz meanwhile"):
        custody.set({**LOW, "gpu_hz": 816e6})
    assert settings_of(root) == theirs
    assert custody.set({**LOW, "gpu_hz": 612e6})["gpu_hz"] == 612e6
    with pytest.raises(HardwareError, match="others have set"):
        custody.set({**LOW, "gpu_hz": 816e6})
    switch(root, 0)
    assert custody.set({**LOW, "gpu_hz": 816e6})["gpu_hz"] == 816e6


def test_there_and_back_again(custody: Custody, root: Path) -> None:
    """A cluster that was off meanwhile is pinned, and put back."""
    switch(root, 1)
    custody.set(LOW)
    theirs = switch(root, 3)
    custody.set({**LOW, "gpu_hz": 306e6})
    custody.give_back()
    assert settings_of(root) == theirs


def test_a_mode_that_is_still_being_set_is_not_taken_for_ours(custody: Custody, root: Path) -> None:
    """``nvpmodel`` notes the new mode last, and a set may come before."""
    (root / GPU / "max_freq").write_text("816000000")
    (root / GPU / "min_freq").write_text("306000000")
    custody.set({**LOW, "gpu_hz": 510e6})
    custody.give_back()
    assert (root / GPU / "max_freq").read_text() == "816000000\n"


@pytest.mark.parametrize("killed", [False, True])
def test_a_limit_that_is_still_ours_goes_back_beside_one_that_others_set(
    killed: bool, custody: Custody, root: Path
) -> None:
    custody.set({**LOW, "gpu_hz": 816e6})
    (root / GPU / "max_freq").write_text("1122000000")
    end(custody, killed)
    assert (root / GPU / "min_freq").read_text() == "306000000\n"
    assert (root / GPU / "max_freq").read_text() == "1122000000\n"


def test_a_pin_above_ours_is_others(custody: Custody, root: Path) -> None:
    for limit in ("max_freq", "min_freq"):  # as jetson_clocks
        (root / GPU / limit).write_text("1300500000")
    custody.give_back()
    assert (root / GPU / "min_freq").read_text() == "1300500000\n"


def test_heat_that_holds_a_pinned_clock_down_is_nobodys_setting(
    custody: Custody, root: Path
) -> None:
    """Both limits read lower then; what was found must be put back all the same."""
    custody.set({**LOW, "gpu_hz": 816e6})
    (root / GPU / "max_freq").write_text("612000000")
    assert (root / GPU / "min_freq").read_text() == "612000000\n"
    custody.set({**LOW, "gpu_hz": 714e6})
    custody.give_back()
    assert (root / GPU / "max_freq").read_text() == "1300500000\n"
    assert (root / GPU / "min_freq").read_text() == "306000000\n"


# On trees of every board -------------------------------------------------------------------------


def test_a_cap_that_a_new_power_mode_sets_stays(tmp_path: Path) -> None:
    here = Tree(tmp_path / "root", kind("orin-nx-r36"))
    here.file("var/lib/nvpmodel/status", "pmode:0000\n")
    (debug,) = (here.root / "sys/kernel").glob("debug")
    debug.rename(tmp_path / "debug")
    hardware = find(here.root)
    assert hardware is not None
    emc = hardware.controls[-1]
    assert isinstance(emc, CappedClock)
    cap = "sys/kernel/nvpmodel_clk_cap/emc"
    snapshot = emc.heed(emc.snapshot(), 2133e6)
    emc.write(2133e6)
    here.file("var/lib/nvpmodel/status", "pmode:0001\n")
    here.file(cap, "2133000000")
    emc.restore(snapshot)
    assert here.text(cap) == "2133000000", "of the mode, though we had set the same"
    snapshot = emc.heed(emc.snapshot(), 204e6)
    emc.write(204e6)
    emc.restore(snapshot)
    assert here.text(cap) == "2133000000"


@settings(max_examples=80)
@given(
    board=st.sampled_from([each for each in KINDS if each.board != "agx-thor"]),
    draw=st.randoms(use_true_random=False),
)
def test_in_the_end_each_limit_is_as_it_was_found_or_as_others_set_it_last(
    board: Kind, draw: Random
) -> None:
    """Whatever both did in whatever order, and whether or not the keeper was killed."""
    with TemporaryDirectory() as folder, running(Kernel(board.l4t, board.emc_khz)):
        here = Tree(Path(folder) / "root", board)
        here.file("var/lib/nvpmodel/status", "pmode:0000\n")
        nodes = {here.gpu: ("", board.gpu_hz), **{
            f"{CPUS}/cpufreq/policy{number}": ("scaling_", board.cpu_khz)
            for number in board.policies
        }}  # fmt: skip
        theirs = settings_of(here.root)
        custody = Custody(here.root, Path(folder) / "lease")
        custody.take(US)
        knobs = {knob: levels for knob, levels in custody.describe()["knobs"].items() if levels}
        for turn in range(8):
            if draw.random() < 0.3:
                here.file("var/lib/nvpmodel/status", f"pmode:{turn + 1:04d} fmode:fanmode_quiet\n")
                for node, (prefix, levels) in nodes.items():
                    low = int(theirs[str(here.root / f"{node}/{prefix}min_freq")])
                    high = draw.choice([level for level in levels if level > low])
                    for name, value in (("min", low), ("max", high)):
                        path = f"{node}/{prefix}{name}_freq"
                        theirs[str(here.file(path, f"{value}"))] = f"{value}"
            else:
                point = {knob: draw.choice(levels) for knob, levels in knobs.items()}
                try:
                    custody.set(point)
                except HardwareError as error:
                    if "others have set" not in str(error):
                        raise
        end(custody, killed=draw.random() < 0.5)
        now = settings_of(here.root)
        assert {path: text.strip() for path, text in now.items()} == {
            path: text.strip() for path, text in theirs.items()
        }
