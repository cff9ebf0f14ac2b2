"""Whatever happens to the board, these things hold."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from toy import CPU, GPU, Loop, ToyBoard, ToyPolicy

from governor.controller import Controller
from governor.slo import LatencySLO
from governor.space import OperatingPoint

POINTS = st.builds(
    lambda gpu, cpu: OperatingPoint({"gpu_hz": gpu, "cpu_hz": cpu}),
    st.sampled_from(GPU),
    st.sampled_from(CPU),
)


class Life(RuleBasedStateMachine):
    """A board to which everything happens that may happen."""

    @initialize(
        seed=st.integers(0, 1000),
        burst=st.sampled_from([0.0, 0.02, 0.2]),
        slo=st.sampled_from(["5ms", "25ms", "40ms", "1.3x", "3x"]),
        on_drift=st.sampled_from(["search", "baseline", "ignore"]),
        on_disturbance=st.sampled_from(["reassert", "yield"]),
    )
    def start(self, seed, burst, slo, on_drift, on_disturbance):
        self.board = ToyBoard(seed=seed, burst=burst)
        controller = Controller(
            self.board.space,
            LatencySLO.parse(slo),
            ToyPolicy,
            self.board.info,
            on_drift=on_drift,
            on_disturbance=on_disturbance,
        )
        self.loop = Loop(self.board, controller)

    @rule(inferences=st.integers(1, 300))
    def work(self, inferences):
        self.loop.run(inferences)

    @rule(compute=st.sampled_from([10e6, 20e6, 60e6]))
    def another_workload(self, compute):
        self.board.compute = compute

    @rule(point=POINTS)
    def someone_sets_a_knob(self, point):
        self.board.now_set = point

    @rule(times=st.integers(1, 4))
    def throttle(self, times):
        for _ in range(times):
            self.board.throttles += 1
            self.loop.run(60)

    @rule(cap_hz=st.sampled_from(GPU))
    def heat(self, cap_hz):
        self.board.heat(cap_hz)

    @rule()
    def cool(self):
        self.board.cool()

    @rule(broken=st.booleans())
    def sensor(self, broken):
        self.board.sensor_broken = broken

    @rule(seconds=st.floats(0.1, 30.0))
    def no_input(self, seconds):
        trials = len(self.loop.controller.trials)
        self.loop.pause(seconds)
        # what was measured before the pause may still be judged, once
        assert len(self.loop.controller.trials) <= trials + 1
        if seconds > 15.0 and self.loop.controller.seen.inferences:
            assert self.loop.controller.frozen

    @precondition(lambda self: self.loop.controller.frozen)
    @rule(seconds=st.floats(1.0, 100.0))
    def still_no_input(self, seconds):
        trials, writes = len(self.loop.controller.trials), len(self.board.writes)
        disturbed = self.loop.controller.disturbances["knob"]
        self.loop.pause(seconds)
        reasserted = self.loop.controller.disturbances["knob"] - disturbed
        assert len(self.loop.controller.trials) == trials
        assert len(self.board.writes) <= writes + reasserted

    @invariant()
    def it_sets_only_what_is_allowed(self):
        if hasattr(self, "board"):
            assert all(point in self.board.space for point in self.board.writes)

    @invariant()
    def it_touches_nothing_before_the_baseline(self):
        if hasattr(self, "loop") and self.loop.controller.baseline is None:
            assert self.board.writes == []

    @invariant()
    def the_policy_is_told_only_what_says_something_about_a_point(self):
        if not hasattr(self, "loop"):
            return
        for trial in self.loop.controller.trials:
            assert trial.clean
            assert trial.point in self.board.space
            assert trial.energy_j > 0
            assert math.isfinite(trial.energy_se_j)
            assert trial.latency_s > 0

    @invariant()
    def hands_off_means_hands_off(self):
        if hasattr(self, "loop") and not self.loop.controller.governing:
            assert self.loop.controller.target is None

    @invariant()
    def a_decision_always_says_why(self):
        if hasattr(self, "loop"):
            assert all(decision.reason for decision in self.loop.decisions)


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
