"""The emulated boards as devices, in virtual time."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.devices.emulated import EmulatedBoard, VirtualClock, board_names, workload_names
from governor.devices.emulated.workload import Workload
from governor.errors import InputError
from governor.space import OperatingPoint

MIDDLE = {"cpu_hz": 1190.4e6, "gpu_hz": 714e6, "emc_hz": 2133e6}
SETTLE_S = 0.01


def fastest(board: EmulatedBoard) -> OperatingPoint:
    return board.space.point(board.space.fastest)


def mean_latency_s(board: EmulatedBoard, count: int = 200) -> float:
    return float(np.mean([span.latency_s for span in board.frames(count)]))


@pytest.mark.parametrize("name", board_names())
def test_every_board_runs_every_point_it_offers_and_says_that_it_is_emulated(name: str) -> None:
    board = EmulatedBoard(name, "mobilenet-v2")
    assert board.info.emulated
    assert board.info.description.endswith("(emulated)")
    for row in (0, len(board.space) // 2, len(board.space) - 1):
        point = board.space.point(row)
        assert board.apply(point) == point == board.read()
        board.idle(SETTLE_S)
        assert board.infer().latency_s == pytest.approx(board.true_latency_s(point), rel=0.05)
        assert board.sample().power_w[board.info.total_rail] > 0


@pytest.mark.parametrize("workload", workload_names())
def test_every_workload_has_a_finite_truth_everywhere(workload: str) -> None:
    board = EmulatedBoard("xavier-nx", workload)
    for row in (0, len(board.space) - 1):
        point = board.space.point(row)
        assert 0 < board.true_latency_s(point) < 100
        assert 0 < board.true_energy_j(point) < 1000


def test_time_passes_only_when_the_board_works_or_waits() -> None:
    board = EmulatedBoard()
    board.apply(OperatingPoint(MIDDLE))
    board.sample()
    assert board.clock.now() == 0
    span = board.infer()
    assert board.clock.now() == span.end_s > 0
    board.idle(1.5)
    assert board.clock.now() == pytest.approx(span.end_s + 1.5)


def test_boards_on_one_clock_share_their_time() -> None:
    clock = VirtualClock()
    first, second = EmulatedBoard("nano", clock=clock), EmulatedBoard("tx2", clock=clock)
    first.infer()
    assert second.spent_j > 0


def test_what_is_simulated_agrees_with_the_stated_truth() -> None:
    board = EmulatedBoard(seed=3)
    for row in (100, 640, len(board.space) - 1):
        point = board.space.point(row)
        board.apply(point)
        board.idle(300)
        for _ in board.frames(int(300 / board.true_latency_s(point))):
            pass
        spent_j = board.spent_j
        latency_s = mean_latency_s(board, 2000)
        energy_j = (board.spent_j - spent_j) / 2000
        assert latency_s == pytest.approx(board.true_latency_s(point), rel=0.003)
        assert energy_j == pytest.approx(board.true_energy_j(point), rel=0.005)


def test_the_stated_default_is_what_the_governors_do() -> None:
    board = EmulatedBoard("agx-orin", "resnet-50-trt", period_s=1 / 30)
    latency_s, energy_j = board.true_default()
    mean_latency_s(board, 300)
    spent_j = board.spent_j
    assert mean_latency_s(board, 900) == pytest.approx(latency_s, rel=0.03)
    assert (board.spent_j - spent_j) / 900 == pytest.approx(energy_j, rel=0.03)


def test_the_optimum_is_the_cheapest_point_within_the_bound() -> None:
    board = EmulatedBoard("nano", "resnet-18")
    point, latency_s, energy_j = board.optimum(0.055)
    assert latency_s == board.true_latency_s(point) <= 0.055
    for row in range(len(board.space)):
        other = board.space.point(row)
        if board.true_latency_s(other) <= 0.055:
            assert energy_j <= board.true_energy_j(other) + 1e-12


def test_where_nothing_keeps_the_bound_the_optimum_is_the_fastest_point() -> None:
    board = EmulatedBoard()
    point, latency_s, _ = board.optimum(1e-6)
    assert latency_s == board.true_latency_s(point) == board.true_latency_s(fastest(board))


def test_a_new_clock_is_in_force_only_after_its_transition() -> None:
    board = EmulatedBoard("orin-nano", "mobilenet-v2-trt", noise=False)
    board.apply(fastest(board))
    board.idle(1)
    fast_s = board.infer().latency_s
    board.apply(board.space.point(0))
    assert board.infer().latency_s == pytest.approx(fast_s, rel=0.5)
    board.idle(board.info.settle_s)
    slow_s = board.true_latency_s(board.space.point(0))
    assert board.infer().latency_s == pytest.approx(slow_s)


def test_an_inference_that_meets_a_transition_takes_a_part_of_each_speed() -> None:
    board = EmulatedBoard("nano", "yolov8n", noise=False)
    board.apply(fastest(board))
    board.idle(1)
    board.apply(board.space.point(0))
    assert (
        board.true_latency_s(fastest(board))
        < board.infer().latency_s
        < board.true_latency_s(board.space.point(0))
    )


def test_release_gives_the_clocks_back_to_the_governors() -> None:
    board = EmulatedBoard(noise=False)
    latency_s, _ = board.true_default()
    board.apply(board.space.point(0))
    for _ in board.frames(20):
        pass
    board.release()
    board.release()
    for _ in board.frames(200):
        pass
    assert mean_latency_s(board) == pytest.approx(latency_s, rel=0.02)


def test_release_pins_again_what_was_found_pinned() -> None:
    board = EmulatedBoard()
    board.write_behind("emc_hz", 665.6e6)
    board.apply(OperatingPoint(MIDDLE))
    board.close()
    for _ in board.frames(50):
        pass
    assert board.read()["emc_hz"] == 665.6e6
    assert board.read()["gpu_hz"] != MIDDLE["gpu_hz"] or board.read()["cpu_hz"] != MIDDLE["cpu_hz"]


def test_a_knob_that_someone_else_writes_shows_in_read() -> None:
    board = EmulatedBoard()
    board.apply(OperatingPoint(MIDDLE))
    board.write_behind("gpu_hz", 306e6)
    assert board.read() == OperatingPoint({**MIDDLE, "gpu_hz": 306e6})


def test_governors_lower_the_gpu_between_the_frames_of_a_camera() -> None:
    # Published for Orin Nano at 100 Hz: 510 MHz and 6.3 to 6.9 ms instead of 3.9 ms.
    workload = Workload("mobilenet-v2", "onnxruntime", "tf32")
    board = EmulatedBoard("orin-nano", workload, period_s=0.01)
    for _ in board.frames(500):
        pass
    assert 510e6 <= board.read()["gpu_hz"] <= 612e6
    assert board.true_default()[0] > 1.3 * board.true_latency_s(fastest(board))


def test_governors_raise_the_gpu_under_full_load() -> None:
    board = EmulatedBoard("tx2", "vgg19-trt")
    for _ in board.frames(20):
        pass
    assert board.read()["gpu_hz"] == 1300.5e6


def test_frames_of_a_camera_start_at_its_rate() -> None:
    board = EmulatedBoard("agx-orin", "mobilenet-v2", period_s=0.04)
    starts = [span.start_s for span in board.frames(20)]
    assert np.diff(starts) == pytest.approx(0.04)


def test_a_batch_waits_for_its_frames() -> None:
    board = EmulatedBoard("agx-orin", "mobilenet-v2", period_s=0.04)
    starts = [board.infer(items=3).start_s for _ in board.camera(5)]
    assert np.diff(starts) == pytest.approx(0.12)


def test_a_larger_batch_takes_longer_but_less_energy_an_item() -> None:
    board = EmulatedBoard("agx-orin", "resnet-50")
    one = fastest(board)
    four = OperatingPoint({**one, "batch_size": 4})
    assert board.true_latency_s(four) > board.true_latency_s(one)
    assert board.true_energy_j(four) < board.true_energy_j(one)
    assert board.infer(items=4).items == 4
    assert board.infer().items == 1


def test_sensors_are_stale_between_refreshes() -> None:
    board = EmulatedBoard()
    readings: list[float] = []
    for _ in range(100):
        board.idle(0.01)
        readings.append(board.sample().power_w["total"])
    assert len(set(readings)) <= 1 + 1.0 / board.info.sensor_refresh_s + 1


def test_a_reading_is_the_mean_of_the_last_refresh_interval() -> None:
    board = EmulatedBoard(sensor_noise=0.0)
    refresh_s, seen_j = board.info.sensor_refresh_s, 0.0
    for interval in range(1, 101):
        for _ in board.frames(interval % 7):
            pass
        board.idle(interval * refresh_s - board.clock.now() + 1e-9)
        seen_j += board.sample().power_w["total"] * refresh_s
    assert seen_j == pytest.approx(board.spent_j, rel=1e-6)


@pytest.mark.parametrize("name", ["nano", "tx2", "orin-nano", "agx-orin", "agx-xavier"])
def test_the_rails_do_not_exceed_the_total(name: str) -> None:
    board = EmulatedBoard(name, sensor_noise=0.0)
    board.idle(2)
    power_w = dict(board.sample().power_w)
    total_w = power_w.pop(board.info.total_rail)
    assert 0 < sum(power_w.values()) <= total_w * (1 + 1e-9)


def test_each_setting_s_temperature_is_where_its_zones_end_up() -> None:
    board = EmulatedBoard("xavier-nx", ambient_c=30.0, noise=False)
    point = board.space.point(len(board.space) // 2)
    board.apply(point)
    for _ in board.frames(20_000):
        pass
    row = board.space.index(point)
    told = {zone: degrees[row] for zone, degrees in board.true_temperature_c().items()}
    assert told == pytest.approx(board.sample().temperature_c, abs=0.5)


def test_a_hot_room_makes_the_board_throttle_and_a_cool_one_recover() -> None:
    board = EmulatedBoard("agx-orin", "yolov8n-trt")
    board.apply(fastest(board))
    board.set_ambient(85.0)
    for _ in board.frames(100_000):
        pass
    hot = board.sample()
    assert hot.throttle_events["thermal"] > 0
    assert hot.temperature_c["tj"] == pytest.approx(99.0, abs=4.0)
    assert board.read()["gpu_hz"] < fastest(board)["gpu_hz"]
    board.set_ambient(25.0)
    board.idle(600)
    assert board.read() == fastest(board)


def test_a_warm_board_leaks_more() -> None:
    point = EmulatedBoard().space.point(600)
    cool, warm = EmulatedBoard(ambient_c=10.0), EmulatedBoard(ambient_c=45.0)
    assert warm.true_energy_j(point) > 1.005 * cool.true_energy_j(point)
    assert warm.true_latency_s(point) == cool.true_latency_s(point)


def test_too_much_power_counts_an_over_current() -> None:
    board = EmulatedBoard("agx-orin", "bert-large", batch_size=4)
    board.apply(fastest(board))
    board.set_contention(cpu_cores=11.0, memory_bytes_per_s=60e9)
    for _ in board.frames(30):
        pass
    assert board.sample().throttle_events["over_current"] > 0


def test_memory_traffic_of_others_slows_a_memory_bound_workload() -> None:
    # Published for Orin Nano at 2133 MHz: 24.6 GB/s slow the memory probe by 34 %.
    probe = Workload("gemv-probe", "cuda", "fp16")
    board = EmulatedBoard("orin-nano", probe)
    point = OperatingPoint({"cpu_hz": 1728e6, "gpu_hz": 1020e6, "emc_hz": 2133e6})
    alone_s = board.true_latency_s(point)
    board.set_contention(memory_bytes_per_s=24.6e9)
    assert board.true_latency_s(point) / alone_s == pytest.approx(1.34, abs=0.06)


def test_a_drift_of_the_workload_takes_effect_on_the_next_inference() -> None:
    board = EmulatedBoard("agx-orin", "mobilenet-v2-trt")
    board.apply(fastest(board))
    board.idle(1)
    before_s = board.infer().latency_s
    board.set_workload("vgg19-trt")
    assert board.infer().latency_s > 2 * before_s


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [[span.latency_s for span in EmulatedBoard(seed=5).frames(50)] for _ in range(2)]
    other = [span.latency_s for span in EmulatedBoard(seed=6).frames(50)]
    assert runs[0] == runs[1] != other


@given(
    row=st.integers(0, 29 * 11 * 4 - 1),
    seconds=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=5),
)
@settings(max_examples=25)
def test_energy_and_time_only_grow(row: int, seconds: list[float]) -> None:
    board = EmulatedBoard()
    board.apply(board.space.point(row))
    seen = [(board.clock.now(), board.spent_j)]
    for pause_s in seconds:
        board.infer()
        board.idle(pause_s)
        seen.append((board.clock.now(), board.spent_j))
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(seen))


def test_unknown_names_are_refused_with_the_choices() -> None:
    board = r"unknown board 'orin' \(did you mean 'orin-nx'\?\); choose one of nano, tx2"
    with pytest.raises(InputError, match=board):
        EmulatedBoard("orin")
    workload = r"unknown workload 'yolo' \(did you mean 'yolov8n'\?\); choose one of yolov8n"
    with pytest.raises(InputError, match=workload):
        EmulatedBoard("nano", "yolo")
    with pytest.raises(InputError, match="unknown knob 'fan_hz'; choose one of cpu_hz"):
        EmulatedBoard().write_behind("fan_hz", 1.0)


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint({**MIDDLE, "gpu_hz": 715e6}),
        OperatingPoint({"gpu_hz": 714e6}),
        OperatingPoint({**MIDDLE, "fan_hz": 1.0}),
    ],
)
def test_a_point_outside_the_space_is_refused_and_nothing_written(point: OperatingPoint) -> None:
    board = EmulatedBoard()
    before = board.read()
    with pytest.raises(InputError):
        board.apply(point)
    assert board.read() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch_size": 0}, "batch size 0"), ({"period_s": 0.0}, "period 0.0 s")],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmulatedBoard(**arguments)  # pyright: ignore[reportArgumentType]


def test_negative_time_is_refused() -> None:
    with pytest.raises(InputError, match="time only grows"):
        VirtualClock().sleep(-1.0)


# Frames that wait for their batch ---------------------------------------------------------


def test_the_oldest_frame_of_a_batch_waits_for_the_rest_and_for_the_inference() -> None:
    board = EmulatedBoard("agx-orin", "resnet-50", period_s=0.04, noise=False)
    point = board.space.point(len(board.space) - 1)
    board.apply(point)
    delays = []
    for _ in range(20):
        arrived_s = board.batch(4)
        board.infer(4)
        delays.append(board.clock.now() - arrived_s)
    whole = OperatingPoint({**point, "batch_size": 4.0})
    assert delays[-1] == pytest.approx(3 * 0.04 + board.true_latency_s(whole))
    assert delays[-1] == pytest.approx(board.true_delay_s(whole))


def test_frames_queue_where_the_board_does_not_keep_up_and_stale_ones_are_dropped() -> None:
    board = EmulatedBoard("agx-orin", "resnet-50", period_s=0.001, noise=False)

    def delay(stale_s: float) -> float:
        arrived_s = board.batch(1, stale_s)
        board.infer(1)
        return board.clock.now() - arrived_s

    growing = [delay(math.inf) for _ in range(50)]
    assert all(later > earlier for earlier, later in pairwise(growing))
    assert board.true_delay_s(board.space.point(0)) == math.inf
    latency_s = board.true_default()[0]
    dropped = [delay(0.05) for _ in range(50)]
    assert max(dropped) <= 0.05 + 2 * latency_s


def test_frames_have_no_queue_without_a_rate() -> None:
    with pytest.raises(InputError, match="set the board up with period_s"):
        EmulatedBoard("nano").batch(2)


def test_a_sagging_supply_costs_loss_and_lowers_what_can_be_drawn():
    board = EmulatedBoard("xavier-nx", "yolov8n", noise=False)
    fastest = board.space.point(board.space.fastest)
    whole_j, seconds = board.true_energy_j(fastest), board.true_latency_s(fastest)
    board.set_supply(0.4)
    assert board.true_energy_j(fastest) > 1.05 * whole_j
    assert board.true_latency_s(fastest) == seconds
    board.apply(fastest)
    for _ in range(100):
        board.infer()
    assert board.read() != fastest
    assert board.sample().throttle_events["over_current"] > 0
    with pytest.raises(InputError, match="no share"):
        board.set_supply(0.0)


def test_a_camera_may_change_its_rate():
    board = EmulatedBoard("xavier-nx", "yolov8n", period_s=0.1)
    board.infer()
    board.set_period(0.2)
    starts = [span.start_s for span in board.frames(4)]
    assert starts[3] - starts[2] == pytest.approx(0.2)
    with pytest.raises(InputError, match="not positive"):
        board.set_period(0.0)
