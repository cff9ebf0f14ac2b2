"""A power mode that is changed while a governor runs: it is noticed, and searched anew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governor import EnergyGovernor
from governor.decision import Decision
from governor.devices.device import DeviceInfo
from governor.devices.emulated import EmulatedBoard
from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.jetson import JetsonDevice
from governor.errors import DeviceError
from governor.lease.client import Lease
from governor.pace import Pace
from governor.records.reader import RunFile
from governor.runtime import RENEW_S
from governor.space import OperatingPoint, Space
from governor.store import ProfileStore
from policies.fixed import FixedPolicy
from policies.policy import Problem

needs_fuse = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")

SET = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "iso_cap", "clk_cap/emc")
"""How the files end that a power mode sets."""
LOCKS = ("mrq_rate_locked", "clk_state", "bwmgr_halt")
"""And those that a pin sets besides."""
BRISK = Pace(baseline_precision=0.1, precision=0.05, window_max_s=3.0, rest_s=0.2)
LONGEST_S = 60.0
KNOWN_AGAIN = ["drift", "try", "verify", "hold"]
WANTED = {"cpu_hz": 500e6, "gpu_hz": 816e6, "emc_hz": 2133e6}
CAPS_15W = OperatingPoint({"cpu_hz": 1113.6e6, "gpu_hz": 408e6, "emc_hz": 2133e6})
"""Two of three clusters are off, too."""


def near(problem: Problem) -> FixedPolicy:
    """Holds what is nearest to :data:`WANTED`; either takes less than the board's own governors."""
    levels = {knob.name: knob.levels for knob in problem.space.knobs}
    nearest = {
        name: min(levels[name], key=lambda level: abs(level - hz)) for name, hz in WANTED.items()
    }
    return FixedPolicy(problem, OperatingPoint(nearest))


def settings(jetson: VirtualJetson, ends: tuple[str, ...] = SET) -> dict[str, bytes]:
    return {path: jetson.tree.read(path) for path in jetson.tree.files() if path.endswith(ends)}


@needs_fuse
@pytest.mark.parametrize("modes", [(1,), (2, 0)], ids=["lower", "there and back"])
def test_a_mounted_board_is_held_again_within_the_limits_of_a_new_power_mode(
    modes: tuple[int, ...], tmp_path: Path
) -> None:
    """In the end all is as the latest mode has it; a mode that comes back takes two trials."""
    (tmp_path / "root").mkdir()
    jetson, decisions = VirtualJetson("agx-orin", 36, "vgg16"), list[Decision]()
    locks = settings(jetson, LOCKS)
    with mounted(jetson, tmp_path / "root") as root:
        device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=tmp_path))
        with EnergyGovernor(
            "1s", device=device, policy=near, pace=BRISK, callback=decisions.append
        ) as gov:

            def run_until_held() -> None:
                until_s = time.monotonic() + LONGEST_S
                while not decisions or decisions[-1].kind != "hold":
                    assert time.monotonic() < until_s, decisions
                    span = jetson.board.infer()
                    gov.record(span.start_s, span.end_s)

            run_until_held()
            first, joules = gov.operating_point, gov.status().total_j
            for mode in modes:
                before = len(gov.trials)
                jetson.clocks.set_mode(mode)
                theirs = settings(jetson)
                decisions.clear()
                run_until_held()
                (noticed,) = (one for one in decisions if one.kind == "drift")
                assert f"to {mode} (" in noticed.reason
            point, tried = gov.operating_point, gov.trials[before:]
            assert gov.status().total_j > joules
        device.close()
        assert settings(jetson) == theirs
        assert settings(jetson, LOCKS) == locks
    assert first is not None
    assert point is not None
    assert first["gpu_hz"] == 816e6
    if modes[-1] == 0:
        assert point == first
        kinds = [one.kind for one in decisions if one.kind != "drop"]
        assert kinds[kinds.index("drift") :] == KNOWN_AGAIN
    else:
        assert point["gpu_hz"] == CAPS_15W["gpu_hz"]
        fastest = tried[0].point
        assert fastest is not None
        assert fastest == CAPS_15W


# In virtual time ---------------------------------------------------------------------------------


class Switched(EmulatedBoard):
    """An emulated board whose power mode, a cap of the GPU's clock, others may change."""

    def __init__(self) -> None:
        super().__init__("agx-orin", "yolov8n")
        self.opens = True
        self._mode = ("MAXN", math.inf)
        self._change = ""
        self._allowed = super().space
        self._facts = {"power mode": "MAXN"}

    @property
    def space(self) -> Space:
        return self._allowed

    @property
    def info(self) -> DeviceInfo:
        return replace(super().info, facts=self._facts)

    def switch(self, name: str, gpu_hz: float) -> None:
        self._mode = (name, gpu_hz)
        self._change = f"the power mode was changed to {name}"

    def take_change(self) -> str:
        change, self._change = self._change, ""
        return change

    def renew(self) -> None:
        self.release()
        if not self.opens:
            raise DeviceError("somebody else has the lease")
        name, gpu_hz = self._mode
        self._allowed = super().space.limited({"gpu_hz": (None, gpu_hz)})
        self._facts = {"power mode": name}


class Loop:
    """A governor's loop on such a board, with all decisions."""

    def __init__(self, **kwargs: Any) -> None:
        self.board, self.decisions = Switched(), list[Decision]()
        self.gov = EnergyGovernor(
            "80ms", device=self.board, callback=self.decisions.append, **kwargs
        )

    def run(self, until: Callable[[], bool]) -> None:
        longest_s = self.board.clock.now() + 300.0
        while not until():
            assert self.board.clock.now() < longest_s, self.decisions
            with self.gov.inference():
                self.board.infer()

    def until_held(self) -> None:
        self.run(lambda: bool(self.decisions) and self.decisions[-1].kind == "hold")

    def switch(self, name: str, gpu_hz: float) -> None:
        self.decisions.clear()
        self.board.switch(name, gpu_hz)

    @property
    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decisions]


def test_each_power_mode_has_profiles_and_a_run_of_its_own(tmp_path: Path) -> None:
    """And the totals go on."""
    loop = Loop(profiles=tmp_path / "profiles.db", record=tmp_path / "run.jsonl")
    with loop.gov as gov:
        loop.until_held()
        loop.run(lambda: gov.status().saved_j > 0.0)
        first, before = gov.operating_point, gov.status()
        loop.switch("15W", 420e6)
        loop.until_held()
        assert loop.kinds[:2] == ["drift", "try"]
        assert loop.decisions[0].reason.startswith("the power mode was changed to 15W")
        assert gov.operating_point is not None
        assert gov.operating_point["gpu_hz"] <= 420e6
        assert gov.saving is not None
        loop.run(lambda: gov.status().saved_j > before.saved_j)
        assert gov.status().total_j > before.total_j
        loop.switch("MAXN", math.inf)
        loop.until_held()
        assert loop.kinds == KNOWN_AGAIN
        assert gov.operating_point == first
    with ProfileStore(tmp_path / "profiles.db") as store:
        stored = {key.power_mode: profile for key, profile in store.entries()}
    assert set(stored) == {"MAXN", "15W"}
    assert max(stored["15W"].levels["gpu_hz"]) <= 420e6 < max(stored["MAXN"].levels["gpu_hz"])
    record = RunFile(tmp_path / "run.jsonl")
    record.read()
    ends = [run.end for run in record.runs if run.end is not None]
    assert [end.reason for end in ends] == ["other settings", "other settings", "exit"]
    assert sum(end.inferences for end in ends) == loop.gov.status().inferences
    assert max(record.runs[1].header.levels["gpu_hz"]) <= 420e6
    assert {run.trials[0].role for run in record.runs} == {"baseline"}


def test_a_mode_known_from_another_run_takes_two_trials(tmp_path: Path) -> None:
    earlier = Loop(profiles=tmp_path / "profiles.db")
    with earlier.gov:
        earlier.switch("15W", 420e6)
        earlier.until_held()
    loop = Loop(profiles=tmp_path / "profiles.db")
    with loop.gov as gov:
        loop.until_held()
        assert len(gov.trials) > 2
        loop.switch("15W", 420e6)
        loop.until_held()
    assert loop.kinds == KNOWN_AGAIN


def test_a_mode_outside_the_limits_is_measured_only_until_another_one() -> None:
    loop = Loop(limits={"gpu_hz": ("500MHz", None)})
    with loop.gov as gov:
        loop.until_held()
        loop.switch("15W", 420e6)
        loop.run(lambda: "release" in loop.kinds)
        inferences = gov.status().inferences
        loop.run(lambda: gov.status().inferences > inferences + 5000)
        assert loop.kinds == ["release"]
        assert "leaves no setting" in loop.decisions[0].reason
        assert gov.operating_point is None
        loop.switch("MAXN", math.inf)
        loop.until_held()
        assert loop.kinds == KNOWN_AGAIN


def test_a_device_that_cannot_be_opened_again_is_tried_again() -> None:
    loop = Loop()
    with loop.gov as gov:
        loop.until_held()
        loop.board.opens = False
        loop.switch("15W", 420e6)
        loop.run(lambda: loop.kinds.count("release") == 2)
        gap_s = loop.decisions[1].time_s - loop.decisions[0].time_s
        assert gap_s >= RENEW_S
        assert gov.operating_point is None
        loop.board.opens = True
        loop.until_held()
        assert gov.operating_point is not None
        assert gov.operating_point["gpu_hz"] <= 420e6


def test_who_has_yielded_stays_away_whatever_the_power_mode() -> None:
    loop = Loop(on_disturbance="yield")
    with loop.gov as gov:
        loop.until_held()
        loop.board.apply(loop.board.space.point(0))
        loop.run(lambda: "release" in loop.kinds)
        loop.switch("15W", 420e6)
        inferences = gov.status().inferences
        loop.run(lambda: gov.status().inferences > inferences + 2000)
        assert not loop.kinds
