"""EnergyGovernor as a user holds it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path

import pytest
from toy import ToyBoard, ToyPolicy

import governor
from governor import Battery, EnergyGovernor, GovernorError, InputError, NoDeviceError, Pace
from governor.devices.emulated import EmulatedBoard
from policies.policy import Problem

TESTS = str(Path(__file__).parent)


def govern(board, slo="40ms", policy=ToyPolicy, **kwargs):
    return EnergyGovernor(slo, device=board, policy=policy, **kwargs)


def loop(gov, board, inferences):
    for _ in gov.watch(range(inferences)):
        board.infer()


# the main job


def test_it_finds_holds_and_puts_back():
    board = ToyBoard()
    with govern(board) as gov:
        loop(gov, board, 2500)
        assert gov.phase == "hold"
        assert gov.operating_point == board.now_set != board.found
        assert gov.slo_feasible is True
        assert gov.saving > 0.2
        assert gov.baseline.point is None
        assert len(gov.trials) == 12
    assert board.now_set == board.found
    assert gov.saving > 0.2  # still known after the block


@pytest.mark.parametrize("latency", ["40ms", 0.04, timedelta(milliseconds=40), "25fps"])
def test_the_slo_is_read_as_people_write_it(latency):
    assert govern(ToyBoard(), latency).slo_s == pytest.approx(0.04)


def test_every_way_to_show_an_inference_counts():
    board = ToyBoard()
    with govern(board) as gov:

        @gov.inference
        def decorated():
            board.infer()

        with gov.inference():
            board.infer()
        with gov.inference(items=4):
            board.infer()
        decorated()
        loop(gov, board, 3)
        span = board.infer()
        gov.record(span.start_s, span.end_s)
    assert gov.status().inferences == 7
    assert gov.status().items == 10


def test_ticks_count():
    board = ToyBoard()
    with govern(board) as gov:
        for _ in range(11):
            gov.tick()
            board.infer()
    assert gov.status().inferences == 10


def test_a_pause_in_a_ticking_loop_is_no_slow_inference():
    board = ToyBoard()
    with govern(board) as gov:
        for turn in range(2500):
            gov.tick()
            board.infer()
            if turn % 400 == 399:
                board.idle(10.0)
    status = gov.status()
    assert status.phase == "hold"
    assert status.inferences == 2499 - 6
    assert all(trial.mean_latency_s < 0.2 for trial in gov.trials)


def test_an_async_app_is_governed():
    board = ToyBoard()

    async def camera():
        for frame in range(2500):
            await asyncio.sleep(0)
            yield frame

    async def app():
        async with govern(board) as gov:
            async for _ in gov.watch(camera()):
                board.infer()
            assert gov.phase == "hold"
            assert board.now_set == gov.operating_point
        return gov.status()

    assert asyncio.run(app()).inferences == 2500
    assert board.now_set == board.found


def test_a_named_policy_runs_in_process_in_virtual_time():
    board = ToyBoard()
    with govern(board, policy="coordinate", trials=6) as gov:
        loop(gov, board, 2500)
        assert gov.phase == "hold"


def test_a_policy_object_is_asked_itself():
    board = ToyBoard()
    policy = ToyPolicy(Problem(board.space, 0.04))
    with govern(board, policy=policy, trials=4) as gov:
        loop(gov, board, 2500)
    assert len(policy.told) == 4


def test_bound_and_objective_change_under_a_policys_class_but_not_under_an_object_of_it():
    board = ToyBoard()
    with govern(board, policy=ToyPolicy, trials=4) as gov:
        loop(gov, board, 2500)
        gov.latency_slo = "60ms"
        gov.set_objective("edp")
        loop(gov, board, 200)
        assert (gov.slo_s, str(gov.objective)) == (0.06, "edp")
    policy = ToyPolicy(Problem(board.space, 0.04))
    with govern(board, policy=policy, trials=4) as gov:
        with pytest.raises(InputError, match="bound cannot change under the policy object Toy"):
            gov.latency_slo = "60ms"
        with pytest.raises(InputError, match="give its class, or a callable that makes a policy"):
            gov.set_objective("edp")
        loop(gov, board, 20)
        assert (gov.slo_s, str(gov.objective)) == (0.04, "energy")
    with pytest.raises(InputError, match="the objective cannot change"):
        govern(board, policy=policy, objective=Battery("20Wh", until="6h"))


def test_limits_are_kept():
    board = ToyBoard()
    limits = {"gpu_hz": ("500MHz", "1GHz"), "cpu_hz": (None, 1.5e9)}
    with govern(board, limits=limits) as gov:
        loop(gov, board, 2500)
        assert gov.phase == "hold"
    assert board.writes
    assert all(500e6 <= p["gpu_hz"] <= 1e9 and p["cpu_hz"] <= 1.5e9 for p in board.writes)


def test_batch_size_is_a_knob_that_the_loop_reads():
    class Batched(ToyBoard):
        """Launching costs as much for a batch as for one."""

        batch = 1

        def latency_s(self, point):
            return self.compute * self.batch / point["gpu_hz"] + 40e6 / point["cpu_hz"]

    board = Batched()
    board.now_set = board.space.point(board.space.fastest)
    seen = set()
    with govern(
        board,
        slo="100ms",
        batch_size=[4, 1, 2],
        limits={"gpu_hz": ("1.3GHz", None), "cpu_hz": ("2GHz", None)},
        trials=3,
    ) as gov:
        assert gov.batch_size == 1
        for _ in range(2000):
            board.batch = gov.batch_size
            seen.add(board.batch)
            with gov.inference():
                board.infer()
        assert gov.phase == "hold"
        assert gov.operating_point["batch_size"] == gov.batch_size == 4
    assert seen == {1, 2, 4}
    assert gov.batch_size == 1
    for trial in gov.trials:
        assert trial.items == trial.inferences * trial.point["batch_size"]
    assert all("batch_size" not in point for point in board.writes)


@pytest.mark.parametrize("slo", ["50ms", "1.3x"])
def test_an_emulated_board_is_never_governed_worse_than_it_governs_itself(slo):
    board = EmulatedBoard("orin-nano", "yolov8n")
    baseline_j = []
    with EnergyGovernor(slo, device=board) as gov:
        while gov.phase != "hold":
            if gov.phase == "baseline":
                baseline_j.append(board.spent_j)
            with gov.inference():
                board.infer()
        before_j = board.spent_j
        for _ in range(400):
            with gov.inference():
                board.infer()
        status = gov.status()
    held_j = (board.spent_j - before_j) / 400
    assert status.saving >= 0.0
    assert held_j <= 1.02 * (baseline_j[-1] - baseline_j[0]) / (len(baseline_j) - 1)


def test_that_the_systems_own_governors_are_held_is_in_log_and_status(caplog):
    board = ToyBoard()
    board.found = board.now_set = board.best(0.04)
    with caplog.at_level(logging.INFO, "governor"), govern(board, trials=2) as gov:
        loop(gov, board, 1500)
        status = gov.status()
        assert status.phase == "hold"
        assert status.defaults_held
        assert status.governing
        assert status.point is None
        assert board.now_set == board.found
    assert "the system's own governors keep p95 <= 40 ms" in caplog.text
    assert "saves nothing" in caplog.records[-1].message
    assert "less than the baseline" not in caplog.text


def test_what_someone_else_has_set_is_left_to_them_where_it_yields():
    board = EmulatedBoard("agx-orin", "yolov8n")
    with EnergyGovernor("50ms", device=board, on_disturbance="yield") as gov:
        for turn in range(2000):
            if turn == 1500:
                board.write_behind("gpu_hz", board.space.knobs[1].levels[2])
            with gov.inference():
                board.infer()
        assert not gov.status().governing
    assert board.read()["gpu_hz"] == board.space.knobs[1].levels[2]


def test_decisions_go_to_the_log_and_the_callback(caplog):
    board, decisions = ToyBoard(), []
    with (
        caplog.at_level(logging.INFO, "governor"),
        govern(board, callback=decisions.append, trials=4) as gov,
    ):
        loop(gov, board, 2500)
    assert [decision.kind for decision in decisions] == ["try"] * 4 + ["verify", "hold"]
    assert len(caplog.records) == len(decisions)
    assert "less than the baseline" in caplog.records[-1].message
    with pytest.raises(FrozenInstanceError):
        decisions[0].reason = ""


def test_a_callback_that_fails_does_no_harm(caplog):
    def fails(_decision):
        raise RuntimeError("screen is gone")

    board = ToyBoard()
    with govern(board, callback=fails, trials=4) as gov:
        loop(gov, board, 2500)
        assert gov.phase == "hold"
    assert "screen is gone" in caplog.text


def test_the_status_is_a_frozen_snapshot():
    board = ToyBoard()
    with govern(board) as gov:
        before = gov.status()
        assert before.inferences == 0
        assert before.saving is None
        loop(gov, board, 2500)
        status = gov.status()
    assert (status.device, status.emulated, status.phase) == ("toy", True, "hold")
    assert status.latency_s <= status.slo_s
    assert status.held_energy_j < status.baseline_energy_j
    assert status.power_w["total"] > 0
    assert status.temperature_c == {"soc": 50.0}
    assert status.trials == 12
    assert sum(status.outcomes.values()) == 12
    assert status.total_j > 0
    with pytest.raises(FrozenInstanceError):
        status.phase = "hold"


# bad input: one clear line, nothing changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slo": "0ms"}, "latency SLO must be positive"),
        ({"slo": "fast"}, "latency SLO 'fast' is not"),
        ({"slo": "50"}, "has no unit"),
        ({"slo": float("nan")}, "must be positive"),
        ({"percentile": 95}, "share between 0 and 1"),
        ({"policy": "genius"}, "unknown policy 'genius'"),
        ({"policy": 7}, "no name, no policy and no callable"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"limits": {"gpu": ("1GHz", None)}}, "unknown knob 'gpu'"),
        ({"limits": {"gpu_hz": ("1", None)}}, "has no unit"),
        ({"limits": {"gpu_hz": ("5GHz", None)}}, "leaves no setting"),
        ({"limits": {"gpu_hz": ("2GHz", "1GHz")}}, "lowest above its highest"),
        ({"limits": {"gpu_hz": "1GHz"}}, "a lowest and a highest"),
        ({"batch_size": []}, "batch_size must be sizes"),
        ({"batch_size": [0, 1]}, "batch_size must be sizes"),
        ({"percentile": "95"}, "percentile must be a share"),
        ({"trials": 2.5}, "trials must be a whole number"),
        ({"trials": True}, "trials must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"limits": ["gpu_hz"]}, "limits must be by knob"),
        ({"batch_size": 8}, "batch_size must be sizes"),
        ({"callback": "print"}, "callback must be something to call"),
        ({"workload": 3}, "workload must be a name"),
        ({"pace": 1.0}, "pace must be a governor.pace.Pace"),
        ({"instrument": 3}, "instrument must be 'auto'"),
        ({"on_drift": "cry"}, "on_drift must be"),
        ({"on_disturbance": "cry"}, "on_disturbance must be"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_changed(arguments, message):
    board = ToyBoard()
    with pytest.raises(InputError, match=message) as caught:
        govern(board, **arguments)
    assert "\n" not in str(caught.value)
    assert board.writes == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("emulated:toaster", "toaster"),
        ("emulated:agx-orin/chess", "chess"),
        ("emulated:", "unknown device"),
        ("toaster:1", "unknown device 'toaster:1'"),
        (7, "device must be 'auto'"),
    ],
)
def test_an_unknown_device_is_refused(device, message):
    with pytest.raises(InputError, match=message):
        EnergyGovernor("50ms", device=device)


def test_an_slo_that_nothing_meets_is_governed_at_the_fastest_point(caplog):
    board = ToyBoard()
    with govern(board, slo="1ms") as gov:
        loop(gov, board, 1000)
        assert gov.slo_feasible is False
        assert board.now_set == board.space.point(board.space.fastest)
    assert "nothing keeps p95 <= 1 ms" in caplog.text


def test_one_governor_governs_one_block():
    board = ToyBoard()
    with govern(board) as gov:
        loop(gov, board, 3)
    with pytest.raises(GovernorError, match="make a new one"), gov:
        pass


# nothing to govern


def test_nothing_to_govern_is_an_error_that_says_what_was_looked_for():
    with pytest.raises(NoDeviceError, match="this is no Jetson") as caught:
        EnergyGovernor("50ms")
    assert set(caught.value.refusals) == {"jetson", "nvml", "cpufreq", "rapl", "hwmon"}


def test_an_app_that_does_not_require_it_runs_ungoverned_and_is_measured(caplog, monkeypatch):
    def nothing(_name):
        raise NoDeviceError({"jetson": "this is no Jetson"})

    monkeypatch.setattr("governor.arguments.open_device", nothing)
    with EnergyGovernor("50ms", required=False) as gov:
        for _ in gov.watch(range(30)):
            time.sleep(0.005)
    status = gov.status()
    assert not status.governing
    assert status.inferences == 30
    assert status.violations == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "this is no Jetson" in caplog.text
    assert "required=" not in caplog.text


# in real time


QUICK = Pace(
    baseline_precision=0.1,
    precision=0.1,
    window_max_s=0.5,
    window_min_s=0.2,
    readings_min=1.0,
    baseline_max_s=0.5,
    warm_up=0,
)


def test_a_real_loop_is_governed_on_an_emulated_board_with_the_search_in_a_child():
    with EnergyGovernor(
        "100ms", device="emulated:agx-orin", policy="coordinate", trials=3, pace=QUICK
    ) as gov:
        deadline = time.monotonic() + 30
        while gov.phase != "hold" and time.monotonic() < deadline:
            with gov.inference():
                time.sleep(0.004)
        status = gov.status()
    assert status.phase == "hold"
    assert status.emulated
    assert len(gov.trials) == 3


def test_a_search_worker_that_is_killed_is_survived():
    killed = []
    with EnergyGovernor(
        "100ms", device="emulated:agx-orin", policy="coordinate", trials=4, pace=QUICK
    ) as gov:
        deadline = time.monotonic() + 30
        while gov.phase != "hold" and time.monotonic() < deadline:
            with gov.inference():
                time.sleep(0.004)
            if len(gov.trials) == 2 and not killed:
                killed.append(gov._policies.worker.pid)
                os.kill(killed[0], signal.SIGKILL)
        assert killed
        assert gov.phase == "hold"
        assert len(gov.trials) == 4


def run_app(body, sends=None, wait_for="GOVERNED"):
    """An application in a process of its own; returns its output and how it ended."""
    source = textwrap.dedent(
        f"""
        import os, signal, sys, threading, time
        sys.path.insert(0, {TESTS!r})
        from toy import ToyBoard, ToyPolicy
        from governor import EnergyGovernor

        class Told(ToyBoard):
            def release(self):
                super().release()
                print("RELEASED", os.getpid() == MAIN, flush=True)

        MAIN = os.getpid()
        board = Told()
        gov = EnergyGovernor("40ms", device=board, policy=ToyPolicy)

        def work(gov, inferences=400):
            for _ in gov.watch(range(inferences)):
                board.infer()
            print("GOVERNED", board.now_set != board.found, flush=True)
        """
    ) + textwrap.dedent(body)
    app = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output = ""
        if sends is not None:
            while wait_for not in output:
                output += app.stdout.readline()
            app.send_signal(sends)
        rest, errors = app.communicate(timeout=20)
    finally:
        app.kill()
        app.wait()
        app.stdout.close()
        app.stderr.close()
    return output + rest, errors, app.returncode


def test_it_is_restored_when_the_loop_raises():
    output, errors, code = run_app("""
        with gov:
            work(gov)
            raise OSError("camera unplugged")
    """)
    assert output.splitlines() == ["GOVERNED True", "RELEASED True"]
    assert "camera unplugged" in errors
    assert code == 1


def test_it_is_restored_on_sys_exit_in_a_block_that_is_never_left():
    output, _, code = run_app("""
        gov.__enter__()
        work(gov)
        sys.exit(3)
    """)
    assert output.splitlines() == ["GOVERNED True", "RELEASED True"]
    assert code == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_is_restored_on_a_deadly_signal_and_dies_of_it(number):
    output, _, code = run_app(
        """
        with gov:
            work(gov)
            time.sleep(30)
        """,
        sends=number,
    )
    assert output.splitlines() == ["GOVERNED True", "RELEASED True"]
    assert code == -number


def test_a_signal_in_the_midst_of_a_look_restores_all_the_same():
    output, _, code = run_app("""
        class Slow(Told):
            def apply(self, point):
                actual = super().apply(point)
                if len(self.writes) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                return actual

        board = Slow()
        with EnergyGovernor("40ms", device=board, policy=ToyPolicy) as gov:
            work(gov)
    """)
    assert output.splitlines() == ["RELEASED True"]
    assert code == -signal.SIGTERM


def test_it_is_restored_on_ctrl_c():
    output, errors, _ = run_app(
        """
        with gov:
            work(gov)
            time.sleep(30)
        """,
        sends=signal.SIGINT,
    )
    assert output.splitlines() == ["GOVERNED True", "RELEASED True"]
    assert "KeyboardInterrupt" in errors


def test_a_signal_that_the_application_handles_is_left_to_it():
    output, _, code = run_app(
        """
        def handler(*_):
            raise SystemExit(7)
        signal.signal(signal.SIGTERM, handler)
        with gov:
            work(gov)
            time.sleep(30)
        """,
        sends=signal.SIGTERM,
    )
    assert output.splitlines() == ["GOVERNED True", "RELEASED True"]
    assert code == 7


def test_a_forked_child_that_is_terminated_restores_nothing():
    output, _, code = run_app("""
        with gov:
            work(gov)
            child = os.fork()
            if child == 0:
                time.sleep(30)
            time.sleep(0.3)  # Python forgets signals that come while it forks
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            print("STILL", board.now_set != board.found, flush=True)
    """)
    assert output.splitlines() == ["GOVERNED True", "STILL True", "RELEASED True"]
    assert code == 0


def test_signal_handlers_are_as_before_after_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with govern(ToyBoard()):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_importing_it_is_light():
    heavy = ["scipy", "sklearn", "skopt", "matplotlib", "rich", "typer", "pydantic", "torch"]
    source = (
        "import sys, governor; governor.EnergyGovernor; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


def test_everything_public_is_there():
    assert all(getattr(governor, name) for name in governor.__all__)
    assert set(governor.__all__) <= set(dir(governor))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = governor.nonsense


def test_no_child_process_is_left():
    with EnergyGovernor("50ms", device="emulated:agx-orin", policy="coordinate") as gov:
        with gov.inference():
            time.sleep(0.01)
        child = gov._policies.worker.pid
        os.kill(child, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
