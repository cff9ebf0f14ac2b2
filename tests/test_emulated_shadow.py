"""An emulated board that follows a real application."""

from __future__ import annotations

import threading
import time

import pytest

from governor.devices.device import ShadowDevice
from governor.devices.emulated import ShadowBoard, VirtualClock
from governor.space import OperatingPoint

SLOW = OperatingPoint({"cpu_hz": 1190.4e6, "gpu_hz": 408e6, "emc_hz": 2133e6})
WORK_S = 0.05


@pytest.fixture
def clock() -> VirtualClock:
    """Stands for the machine's clock, so that no test depends on the machine's speed."""
    return VirtualClock(100.0)


def work(board: ShadowBoard, clock: VirtualClock, seconds: float = WORK_S) -> float:
    """One inference of the application, slept through to its stretched end."""
    start_s = clock.now()
    clock.sleep(seconds)
    stretch_s = board.follow(start_s, clock.now(), 1)
    clock.sleep(stretch_s)
    return stretch_s


def pin(board: ShadowBoard, clock: VirtualClock, point: OperatingPoint) -> None:
    board.apply(point)
    clock.sleep(1.0)


def test_it_is_a_shadow_device_and_says_that_it_is_emulated() -> None:
    board = ShadowBoard()
    assert isinstance(board, ShadowDevice)
    assert board.info.emulated


def test_at_all_max_nothing_is_stretched(clock: VirtualClock) -> None:
    board = ShadowBoard(clock=clock)
    pin(board, clock, board.space.point(board.space.fastest))
    assert work(board, clock) == 0


def test_at_lower_clocks_an_inference_is_stretched_as_the_physics_say(clock: VirtualClock) -> None:
    board = ShadowBoard(clock=clock)
    pin(board, clock, SLOW)
    top = board.space.point(board.space.fastest)
    slowdown = board.true_latency_s(SLOW) / board.true_latency_s(top)
    assert slowdown > 1.3
    assert WORK_S + work(board, clock) == pytest.approx(WORK_S * slowdown)


def test_energy_is_that_of_busy_and_idle_time(clock: VirtualClock) -> None:
    board = ShadowBoard("agx-orin", "yolov8n-trt", clock=clock)
    pin(board, clock, board.space.point(board.space.fastest))
    clock.sleep(1.0)
    idle_j = -board.spent_j
    clock.sleep(10.0)
    idle_j += board.spent_j
    busy_j = -board.spent_j
    for _ in range(200):
        work(board, clock)
    clock.sleep(1.0)
    busy_j += board.spent_j
    assert busy_j > 1.5 * idle_j


def test_a_reading_in_the_middle_of_an_inference_loses_no_energy(clock: VirtualClock) -> None:
    spent_j: list[float] = []
    for reads in (0, 5):
        board = ShadowBoard(clock=clock)
        pin(board, clock, SLOW)
        before_j = board.spent_j
        for _ in range(10):
            start_s = clock.now()
            for _ in range(reads):
                clock.sleep(0.19)
                board.sample()
            clock.sleep_until(start_s + 1.0)
            clock.sleep(board.follow(start_s, clock.now(), 1))
        clock.sleep(1.0)
        spent_j.append(board.spent_j - before_j)
    assert spent_j[1] == pytest.approx(spent_j[0], rel=0.02)


def test_under_its_own_governors_an_idle_application_lets_the_clocks_fall(
    clock: VirtualClock,
) -> None:
    board = ShadowBoard(clock=clock)
    for _ in range(40):
        work(board, clock)
    busy = board.read()
    clock.sleep(5.0)
    assert board.read()["cpu_hz"] < busy["cpu_hz"]
    assert board.read()["gpu_hz"] < busy["gpu_hz"]


def test_a_real_loop_in_real_time_takes_as_long_as_it_is_told() -> None:
    board = ShadowBoard("agx-orin", "yolov8n")
    board.apply(SLOW)
    time.sleep(2 * board.info.settle_s)
    top = board.space.point(board.space.fastest)
    slowdown = board.true_latency_s(SLOW) / board.true_latency_s(top)
    for _ in range(3):
        start_s = board.clock.now()
        time.sleep(0.02)
        end_s = board.clock.now()
        board.clock.sleep(board.follow(start_s, end_s, 1))
        assert board.clock.now() - start_s >= slowdown * (end_s - start_s) * 0.999


def test_threads_may_follow_read_and_set_at_once() -> None:
    board = ShadowBoard()
    failures: list[BaseException] = []
    stop = threading.Event()

    def control() -> None:
        try:
            while not stop.is_set():
                board.apply(SLOW)
                board.sample()
                board.release()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=control)
    thread.start()
    before_j = board.spent_j
    for _ in range(60):
        start_s = board.clock.now()
        time.sleep(0.001)
        assert board.follow(start_s, board.clock.now(), 1) >= 0
    stop.set()
    thread.join()
    assert failures == []
    assert board.spent_j > before_j
