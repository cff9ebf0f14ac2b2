"""The runtime: carries decisions out, survives what fails, puts things back."""

from __future__ import annotations

import threading
import time

import pytest
from toy import ToyBoard, ToyPolicy

from governor.controller import Controller
from governor.devices.device import MonotonicClock
from governor.errors import DeviceError
from governor.instrument.explicit import SpanRecorder
from governor.pace import Pace
from governor.runtime import Runtime
from governor.slo import LatencySLO


class Rig:
    def __init__(self, board, policy=ToyPolicy, clock=None, **kwargs):
        self.board = board
        self.decisions = []
        clock = clock or board.clock
        self.controller = Controller(
            board.space, LatencySLO.parse("40ms"), policy, board.info, **kwargs
        )
        self.recorder = SpanRecorder(clock.now, on_span=lambda: self.runtime.after_span())
        self.runtime = Runtime(
            self.controller, board, clock, self.recorder, on_decision=self.decisions.append
        )
        self.runtime.start()

    def run(self, inferences):
        for _ in range(inferences):
            with self.recorder.inference():
                self.board.infer()
        return self


def test_in_virtual_time_everything_happens_in_the_loop_itself():
    before = threading.active_count()
    rig = Rig(ToyBoard()).run(2000)
    assert threading.active_count() == before
    assert rig.controller.phase == "hold"
    assert rig.board.now_set == rig.controller.target


def test_stopping_puts_the_device_back_once():
    rig = Rig(ToyBoard()).run(500)
    assert rig.board.now_set != rig.board.found
    rig.runtime.stop("exit")
    rig.runtime.stop("exit")
    assert rig.board.now_set == rig.board.found
    assert rig.board.releases == 1
    assert rig.runtime.restores == {"exit": 1}


def test_a_device_that_was_never_touched_is_not_released():
    rig = Rig(ToyBoard()).run(5)
    rig.runtime.stop("exit")
    assert rig.board.releases == 0


def test_spans_after_the_stop_change_nothing():
    rig = Rig(ToyBoard()).run(500)
    rig.runtime.stop("exit")
    writes = len(rig.board.writes)
    rig.run(500)
    assert len(rig.board.writes) == writes
    assert rig.board.now_set == rig.board.found


def test_a_sensor_that_fails_for_a_while_is_counted_and_survived(caplog):
    rig = Rig(ToyBoard()).run(300)
    rig.board.sensor_broken = True
    rig.run(60)
    rig.board.sensor_broken = False
    rig.run(2500)
    assert rig.controller.phase == "hold"
    assert rig.runtime.senses.errors["power"] >= 3
    assert sum("cannot read power" in record.message for record in caplog.records) == 1


def test_a_rail_that_is_absent_is_a_sensor_error():
    class Railless(ToyBoard):
        def sample(self):
            sample = super().sample()
            return type(sample)(time_s=sample.time_s, power_w={"gpu": 1.0})

    rig = Rig(Railless()).run(200)
    assert rig.runtime.senses.errors["power"] > 0


def test_knobs_that_cannot_be_read_back_are_survived():
    class Blind(ToyBoard):
        def read(self):
            raise DeviceError("toy: cannot read gpu_hz")

    rig = Rig(Blind()).run(2500)
    assert rig.controller.phase == "hold"
    assert rig.runtime.senses.errors["knobs"] > 0


def test_a_device_that_cannot_be_written_is_released_and_tried_again_later():
    rig = Rig(ToyBoard(write_broken=True)).run(1000)
    assert rig.board.now_set == rig.board.found
    assert [decision.kind for decision in rig.decisions] == ["release"]
    assert "Permission denied" in rig.decisions[0].reason
    assert "trying again in 30 s" in rig.decisions[0].reason
    assert rig.controller.seen.latest is not rig.controller.baseline
    rig.board.write_broken = False
    rig.run(6000)
    assert rig.controller.phase == "hold"
    assert rig.runtime.restores == {"error": 1}


def test_a_write_that_fails_midway_puts_everything_back():
    rig = Rig(ToyBoard()).run(600)
    rig.board.write_broken = True
    rig.run(600)
    assert rig.board.now_set == rig.board.found
    assert rig.runtime.restores == {"error": 1}


def test_what_would_not_go_back_is_put_back_at_the_end():
    class Hesitant(ToyBoard):
        def release(self):
            if self.write_broken:
                raise DeviceError("toy: gpu_hz is stuck")
            super().release()

    rig = Rig(Hesitant()).run(600)
    rig.board.write_broken = True
    rig.run(600)
    rig.board.write_broken = False
    assert rig.board.now_set != rig.board.found
    rig.runtime.stop("exit")
    assert rig.board.now_set == rig.board.found
    assert rig.runtime.restores == {"error": 1, "failed": 1, "exit": 1}


def test_a_release_that_fails_is_said_and_does_not_raise(caplog):
    class Stuck(ToyBoard):
        def release(self):
            raise DeviceError("toy: gpu_hz is stuck")

    rig = Rig(Stuck()).run(600)
    rig.runtime.stop("exit")
    assert "gpu_hz is stuck" in caplog.text
    assert rig.runtime.restores["failed"] == 1


def test_a_bug_in_a_policy_does_not_reach_the_application(caplog):
    class Buggy(ToyPolicy):
        def ask(self):
            raise ZeroDivisionError("oops")

    rig = Rig(ToyBoard(), policy=Buggy).run(1000)
    assert rig.board.now_set == rig.board.found
    assert not rig.controller.governing
    assert "oops" in caplog.text


class RealBoard(ToyBoard):
    """The toy board on the machine's own clock: inferences sleep."""

    def __post_init__(self):
        self.machine = MonotonicClock()
        super().__post_init__()

    def catch_up(self):
        self._pass(max(0.0, self.machine.now() - self.real_start - (self.clock.now() - 100.0)))

    def sample(self):
        self.real_start = getattr(self, "real_start", self.machine.now())
        self.catch_up()
        sample = super().sample()
        return type(sample)(time_s=self.machine.now(), power_w=sample.power_w)

    def infer(self):
        time.sleep(self.latency_s(self.now_set))


QUICK = Pace(
    baseline_precision=0.1,
    precision=0.1,
    window_max_s=0.5,
    window_min_s=0.15,
    baseline_max_s=0.5,
    warm_up=0,
)


@pytest.fixture
def real():
    board = RealBoard(compute=2e6, launch=6e5, refresh_s=0.02)
    rig = Rig(board, clock=board.machine, trials=3, pace=QUICK)
    yield rig
    rig.runtime.stop("exit")


def run_until(rig, true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        rig.run(5)
    return true()


def test_in_real_time_a_thread_drives_it_to_hold(real):
    def held():
        wanted = real.controller.target or real.board.found
        return real.controller.phase == "hold" and real.board.now_set == wanted

    assert run_until(real, held)


def test_the_thread_ends_with_the_runtime(real):
    assert run_until(real, lambda: real.controller.target is not None)
    assert any(thread.name == "governor" for thread in threading.enumerate())
    real.runtime.stop("exit")
    assert not any(thread.name == "governor" for thread in threading.enumerate())
    assert real.board.now_set == real.board.found
