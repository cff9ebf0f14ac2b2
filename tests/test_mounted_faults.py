"""Kernel files that fail, hang and lie, under a governor and an application in real time.

On a mounted board every read and write really fails; the lease and the controls are tried on
plain trees of every board; a long run is made in virtual time.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Event
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sysfs_trees import KINDS, Kind, Tree
from toy import ToyBoard, ToyPolicy

from governor import EnergyGovernor
from governor.devices.emulated import ShadowBoard
from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.emulated.tree import EFFECTS, GARBAGE, HANG_S, Fault
from governor.devices.jetson import JetsonDevice
from governor.errors import DeviceError
from governor.lease import kernel_files
from governor.lease.client import Lease
from governor.lease.custody import Custody
from governor.lease.errors import LeaseError
from governor.lease.process import Process
from governor.pace import Pace
from policies.fixed import FixedPolicy

needs_fuse = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")

CONTROL = "run/virtual-jetson"
NEVER_WAITS_S = HANG_S / 4
"""Of a file that hangs for ``HANG_S``, nothing may reach the application."""
BRISK = Pace(baseline_precision=0.1, precision=0.05, window_max_s=3.0, rest_s=0.2)
ERRORS = tuple(effect for effect in EFFECTS if hasattr(errno, effect))
LIES = ("garbage", "empty")
"""Answers to a read."""
SET = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "mrq_rate_locked", "clk_state",
       "bwmgr_halt", "iso_cap", "clk_cap/emc")  # fmt: skip
"""How the files that a pin writes end."""
CORES = ("cpu1/online", "cpu2/online", "cpu3/online")


# On a mounted board -------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """An Orin Nano that runs YOLOv8n, served by ``governor emulate`` in a process of its own."""
    (tmp_path / "root").mkdir()
    entry = "import sys; from governor.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "emulate", "--mount", str(tmp_path / "root"),
         "--board", "orin-nano", "--workload", "yolov8n"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert b"emulated" in process.stdout.readline()
    yield tmp_path / "root"
    process.terminate()
    process.communicate(timeout=20)


def opened(root: Path, folder: Path) -> JetsonDevice:
    """The real backend, with a private keeper of its own."""
    return JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=folder))


def settings_of(root: Path) -> dict[str, bytes]:
    """What the files hold that a pin writes."""
    paths = (str(path) for path in (root / "sys").rglob("*") if path.is_file())
    return {path: Path(path).read_bytes() for path in paths if path.endswith(SET)}


class App:
    """An inference loop that notes how long the governor kept it."""

    def __init__(self, gov: EnergyGovernor, root: Path) -> None:
        self.kept_s = 0.0
        self._gov = gov
        self._infer = (root / CONTROL / "infer").open("wb", buffering=0)

    def turn(self) -> None:
        began_s = time.monotonic()
        with self._gov.inference():
            inside_s = time.monotonic()
            self._infer.write(b"1")
            done_s = time.monotonic()
        self._gov.status()
        self.kept_s = max(self.kept_s, time.monotonic() - done_s + inside_s - began_s)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """So long at most; returns whether ``until`` came true."""
        deadline_s = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline_s:
            self.turn()
        return until()

    def close(self) -> None:
        self._infer.close()


def drawn(random: Random, turn: int) -> str:
    """Faults in some part of the kernel's files, as the board's file takes them.

    Within five turns every kind is among them.
    """
    where = random.choice(["/sys/*", "*/hwmon/*", "*cpufreq*", "*devfreq*", "*emc*", "*thermal*"])
    what, chance = random.choice(["read", "write", "any"]), random.choice([0.05, 0.3, 1.0])
    lines = [f"{where} {what} hang {chance / 20}"]
    errors = (ERRORS[turn % len(ERRORS)], random.choice(ERRORS))
    lines += [f"{where} {what} {effect} {chance}" for effect in errors]
    lines += [f"{where} read {LIES[turn % len(LIES)]} {chance}"]
    random.shuffle(lines)
    return "\n".join(lines)


@needs_fuse
def test_an_application_runs_on_whatever_fails_and_governing_resumes(
    served: Path, tmp_path: Path
) -> None:
    faults, random = served / CONTROL / "faults", Random(3)
    before = settings_of(served)
    with EnergyGovernor("60ms", device=opened(served, tmp_path), trials=3, pace=BRISK) as gov:
        app = App(gov, served)
        assert app.run(30.0, until=lambda: gov.operating_point is not None)
        # Every write fails until one is tried; then all sorts of things go wrong.
        faults.write_text("/sys/* write EIO 1")
        assert app.run(30.0, until=lambda: gov.status().restores.get("error", 0) > 0)
        for turn in range(15):
            faults.write_text(drawn(random, turn))
            app.run(1.0)
        faults.write_text("*/hwmon/* read EIO 1")
        assert app.run(15.0, until=lambda: gov.status().sensor_errors.get("power", 0) > 0)
        faults.write_text("none")
        assert app.run(60.0, until=lambda: gov.phase == "hold")
        status = gov.status()
    app.close()
    assert app.kept_s < NEVER_WAITS_S
    assert status.governing
    assert status.failed == 0
    assert settings_of(served) == before


@needs_fuse
def test_the_slo_is_guarded_while_the_power_sensor_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetson, go_on = VirtualJetson("orin-nano", 36, "resnet-18"), Event()
    hang = SimpleNamespace(sleep=lambda _seconds: go_on.wait(60.0))
    monkeypatch.setattr("governor.devices.emulated.tree.time", hang)
    truth = ShadowBoard("orin-nano", "resnet-18")
    usual_s = truth.true_latency_s(truth.space.point(truth.space.fastest))
    (tmp_path / "root").mkdir()
    with mounted(jetson, tmp_path / "root") as root:
        before = settings_of(root)
        device = opened(root, tmp_path)
        with EnergyGovernor(3 * usual_s, device=device, policy=_slower, pace=BRISK) as gov:
            app = App(gov, root)
            try:
                assert app.run(60.0, until=lambda: gov.phase == "hold")
                jetson.tree.faults = (Fault("*/hwmon/*", "read", "hang"),)
                app.run(1.0)
                jetson.board.run("resnet-101")
                # As long as it hangs: nothing has read the sensor since.
                assert app.run(30.0, until=lambda: gov.status().fallbacks > 0)
            finally:
                go_on.set()
                jetson.tree.faults = ()
                app.close()
        assert settings_of(root) == before


def _slower(problem) -> FixedPolicy:
    """Holds a point whose GPU clock is not the highest, so that there is one to fall back to."""
    fastest = problem.space.point(problem.space.fastest)
    levels = sorted({problem.space.point(row)["gpu_hz"] for row in range(len(problem.space))})
    return FixedPolicy(problem, type(fastest)({**fastest, "gpu_hz": levels[-3]}))


# The lease on every board's files -----------------------------------------------------------


class FailingFiles:
    """The module ``os`` to those who read and write kernel files, with what goes wrong there."""

    def __init__(self, random: Random) -> None:
        self.chance = 0.0
        self._random = random
        self._sound = False

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def read(self, file: int, size: int) -> bytes:
        effect = self._suffer((*ERRORS, *LIES))
        return {"": os.read(file, size), "empty": b"", "garbage": GARBAGE.encode()}[effect]

    def open(self, path: Path, flags: int) -> int:
        """In sysfs, opening truncates nothing. The device tree lies in memory and cannot fail."""
        self._sound = "/sys/" not in str(path)
        return os.open(path, flags & ~os.O_TRUNC)

    def write(self, file: int, data: bytes) -> int:
        self._suffer(ERRORS)
        os.ftruncate(file, 0)
        return os.write(file, data)

    def _suffer(self, effects: tuple[str, ...]) -> str:
        if self._sound or self._random.random() >= self.chance:
            return ""
        effect = self._random.choice(effects)
        code = getattr(errno, effect, None)
        if code is not None:
            raise OSError(code, os.strerror(code))
        return effect


@settings(max_examples=15, stateful_step_count=25)
class LeaseUnderFaults(RuleBasedStateMachine):
    """Whatever fails, a call of the lease does what it says or raises a LeaseError."""

    @initialize(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32))
    def begin(self, kind: Kind, seed: int) -> None:
        self.folder = TemporaryDirectory()
        tree = Tree(Path(self.folder.name) / "root", kind)
        self.root = tree.root
        tree.file("sys/devices/system/cpu/online", "0-3\n")
        for core in (1, 2, 3):
            tree.file(f"sys/devices/system/cpu/cpu{core}/online", "1\n")
        self.random = Random(seed)
        self.files = FailingFiles(self.random)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(kernel_files, "os", self.files)
        self.patch.setattr("governor.lease.custody.RESTORE_PAUSES_S", (0.0, 0.0))
        files = (path for path in self.root.rglob("*") if not path.is_symlink())
        self.set_files = [path for path in files if str(path).endswith((*SET, *CORES))]
        self.before = self.contents()
        self.custody = Custody(self.root, Path(self.folder.name) / "lease")
        self.holds = False
        self.custody.find()
        assert {"cpu_cores", "cpu_hz", "gpu_hz"} <= set(self.custody.describe()["knobs"])

    def contents(self) -> dict[str, str]:
        return {str(path): path.read_text().strip() for path in self.set_files}

    @rule(chance=st.sampled_from([0.0, 0.02, 0.2, 1.0]))
    def let_go_wrong(self, chance: float) -> None:
        self.files.chance = chance

    @precondition(lambda self: not self.holds)
    @rule()
    def take(self) -> None:
        self.holds = self.attempt(lambda: self.custody.take(Process.of(os.getpid())))

    @precondition(lambda self: self.holds)
    @rule()
    def set(self) -> None:
        knobs = self.custody.describe()["knobs"]
        assert isinstance(knobs, dict)
        point = {knob: self.random.choice(levels) for knob, levels in knobs.items()}
        self.attempt(lambda: self.custody.set(point))

    @precondition(lambda self: self.holds)
    @rule()
    def read(self) -> None:
        self.attempt(self.custody.read)

    @precondition(lambda self: self.holds)
    @rule()
    def give_back(self) -> None:
        self.holds = False
        if self.attempt(self.custody.give_back):
            assert self.contents() == self.before

    @precondition(lambda self: self.holds)
    @rule()
    def lose_the_keeper(self) -> None:
        """As kill -9 does: nothing is put back, and the lock is free."""
        self.custody.lock.drop()
        self.custody = Custody(self.root, Path(self.folder.name) / "lease")
        self.holds = False

    @invariant()
    def nothing_is_set_that_the_journal_does_not_hold(self) -> None:
        if hasattr(self, "custody") and self.custody.journal.read() is None:
            assert self.contents() == self.before

    def attempt(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except LeaseError:
            return False
        return True

    def teardown(self) -> None:
        if not hasattr(self, "custody"):
            return
        self.files.chance = 0.0
        if self.holds:
            self.custody.give_back()
        else:
            self.custody.put_back(Process.of(os.getpid()))
        after = self.contents()
        self.patch.undo()
        self.folder.cleanup()
        assert after == self.before


TestLeaseUnderFaults = LeaseUnderFaults.TestCase


# A long run in virtual time -------------------------------------------------------------------


class Unreliable(ToyBoard):
    """Each call fails with a chance; every other write does while there is one."""

    chance = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.failed: Counter[str] = Counter()
        self._asked = 0

    def _perhaps_fail(self, what: str, chance: float) -> None:
        if self._random.random() < chance:
            self.failed[what] += 1
            raise DeviceError("toy: Input/output error")

    def read(self):
        self._perhaps_fail("read", self.chance)
        return super().read()

    def apply(self, point):
        self._asked += 1
        self._perhaps_fail("apply", float(self.chance > 0 and self._asked % 2))
        return super().apply(point)

    def release(self):
        self._perhaps_fail("release", self.chance)
        super().release()

    def sample(self):
        self._perhaps_fail("sample", self.chance)
        return super().sample()


@pytest.mark.parametrize("seed", range(4))
def test_a_long_run_of_faults_is_counted_and_leaves_nothing_behind(seed: int) -> None:
    board = Unreliable(seed=seed)

    def run(inferences: int) -> None:
        for _ in range(inferences):
            with gov.inference():
                board.infer()

    with EnergyGovernor("40ms", device=board, policy=ToyPolicy, pace=Pace(rest_s=2.0)) as gov:
        for chance in (0.1, 0.5, 0.02, 0.9, 0.3):
            board.chance = chance
            run(2000)
        board.chance = 0.0
        run(15_000)
        status = gov.status()
        assert status.phase == "hold"
        assert status.governing
        assert board.failed["apply"] > 0
        assert status.restores["error"] == board.failed["apply"]
        assert status.restores.get("failed", 0) == board.failed["release"]
        assert status.sensor_errors["power"] == board.failed["sample"]
        assert status.sensor_errors["knobs"] == board.failed["read"]
        assert board.latency_s(board.now_set) <= 0.040
    assert board.now_set == board.found
