"""Input that comes at a rate: what of a latency is waiting, and what it leaves of a bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from governor import EnergyGovernor
from governor.devices.emulated import EmulatedBoard
from governor.space import Knob, OperatingPoint, Space
from governor.trial import Trial
from policies.arrivals import Filling, items, period_s
from policies.surrogate import TIME, Surrogate

SIZES = (1.0, 2.0, 4.0)
SPACE = Space([Knob("gpu_hz", (0.5e9, 0.75e9, 1e9)), Knob("batch_size", SIZES)])
PERIOD_S = 0.1


def measured(point: OperatingPoint, latency_s: float, interval_s: float) -> Trial:
    return Trial(
        point=point,
        latency_s=latency_s,
        latency_se_s=0.01 * latency_s,
        mean_latency_s=latency_s,
        mean_latency_se_s=0.01 * latency_s,
        energy_j=1.0,
        energy_se_j=0.01,
        power_w=1.0 / interval_s,
        inferences=20,
        items=20,
        duration_s=20 * interval_s,
    )


def inference_s(point: OperatingPoint) -> float:
    return 0.02 * point["batch_size"] ** 0.8 * 1e9 / point["gpu_hz"]


def queued(point: OperatingPoint) -> Trial:
    """As an app sees it that takes the oldest frame's arrival for the start."""
    size = point["batch_size"]
    return measured(point, (size - 1) * PERIOD_S + inference_s(point), size * PERIOD_S)


def camera(point: OperatingPoint) -> Trial:
    """As an app sees it that times the inference alone."""
    return measured(point, inference_s(point), point["batch_size"] * PERIOD_S)


def told(trial_of: Callable[[OperatingPoint], Trial], *rows: int) -> Surrogate:
    surrogate = Surrogate(SPACE)
    for row in (SPACE.fastest, *rows):
        surrogate.tell(trial_of(SPACE.point(row)))
    return surrogate


def test_the_period_is_told_by_inferences_that_had_to_wait_whatever_their_batch() -> None:
    trials = [queued(SPACE.point(row)) for row in (6, 7, 8)]
    assert period_s(trials, SPACE.settings[[6, 7, 8], 1]) == pytest.approx(PERIOD_S)


def test_an_input_that_is_always_there_has_no_period() -> None:
    point = SPACE.point(SPACE.fastest)
    assert period_s([measured(point, 0.02, 0.02)], np.ones(1)) == 0


def test_a_space_without_batch_sizes_has_one_item_an_inference() -> None:
    assert items(Space([Knob("gpu_hz", (1e9, 2e9))])).tolist() == [1, 1]


def test_the_bound_leaves_an_inference_what_filling_does_not_take_nor_the_next_batch() -> None:
    filling = Filling.of(np.array(SIZES), PERIOD_S)
    assert np.exp(filling.log_bound(math.log(0.25))) == pytest.approx([0.1, 0.15, 1e-9])
    assert np.exp(filling.log_bound(math.inf)) == pytest.approx([0.1, 0.2, 0.4])


def test_the_bound_is_for_the_inference_where_latency_is_that_alone() -> None:
    assert Filling.none(3).log_bound(-1.5).tolist() == [-1.5, -1.5, -1.5]


@pytest.mark.parametrize(("trial_of", "waits"), [(queued, True), (camera, False)])
def test_trials_tell_whether_their_latency_includes_the_wait(
    trial_of: Callable[[OperatingPoint], Trial], waits: bool
) -> None:
    belief = told(trial_of, 1, 2).believe()
    expected = (SPACE.settings[:, 1] - 1) * PERIOD_S if waits else np.zeros(len(SPACE))
    assert belief.filling.wait_s == pytest.approx(expected, rel=1e-6)
    for row in (1, 2):
        point = SPACE.point(row)
        assert np.exp(belief.mean[TIME, row]) == pytest.approx(inference_s(point), rel=0.05)
        assert belief.latency_s(row) == pytest.approx(inference_s(point) + expected[row], rel=0.05)


def test_a_board_that_fell_behind_tells_the_time_of_an_inference_by_its_pace() -> None:
    surrogate = told(queued, 1)
    slow = SPACE.point(0)
    behind = measured(slow, latency_s=0.9, interval_s=0.13)
    surrogate.tell(dataclasses.replace(behind, mean_latency_s=0.7))
    assert np.exp(surrogate.believe().mean[TIME, 0]) == pytest.approx(0.13, rel=0.05)


def test_clocks_and_batch_of_a_queue_come_within_1_5_percent_of_the_joint_optimum() -> None:
    board, slo_s, sizes = EmulatedBoard("nano", "resnet-18", period_s=0.15), 0.7, (1, 2, 4, 8)
    with EnergyGovernor(slo_s, device=board, batch_size=sizes, trials=15) as gov:
        while gov.phase != "hold":
            arrived_s = board.batch(gov.batch_size, stale_s=slo_s)
            board.infer(gov.batch_size)
            gov.record(arrived_s, board.clock.now(), gov.batch_size)
        held = gov.operating_point
    assert held is not None
    settings = (
        OperatingPoint({**board.space.point(row), "batch_size": float(size)})
        for row in range(len(board.space))
        for size in sizes
    )
    least_j = min(
        board.true_energy_j(point) for point in settings if board.true_delay_s(point) <= slo_s
    )
    assert board.true_delay_s(held) <= slo_s
    assert board.true_energy_j(held) <= 1.015 * least_j
