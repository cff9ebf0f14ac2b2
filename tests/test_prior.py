"""What board and work let expect of a space, before any trial."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from toy import ToyBoard, ToyPolicy

from governor import EnergyGovernor
from governor.errors import InputError
from governor.roofline.boards import load_board
from governor.roofline.fit import WEAK, Prior, predict
from governor.roofline.knobs import model_inputs
from governor.roofline.prediction import Clocks
from governor.roofline.prediction import predict as by_layers
from governor.roofline.prior import prior_for, seeding
from governor.roofline.work import Layer, Work
from governor.space import FloatArray, Knob, Space
from policies.policy import Problem

# Where the module's limit binds is no part of the prior.
BOARD = dataclasses.replace(load_board("orin-nano"), limit_w=math.inf)
SPACE = Space(
    [
        Knob("cpu_hz", BOARD.cpu.levels_hz[::4]),
        Knob("gpu_hz", BOARD.gpu.levels_hz),
        Knob("emc_hz", BOARD.memory.levels_hz),
    ]
)


def network(flop: float, moved: float, kernels: int, batch_size: int = 1) -> Work:
    layer = Layer(
        name="all", operator="convolution", flop=flop, bytes_read=moved / 2,
        bytes_written=moved / 2, unit="matmul", kernels=kernels,
    )  # fmt: skip
    return Work(name="net", layers=(layer,), batch_size=batch_size, precision="fp32")


COMPUTING = network(200e9, 0.1e9, 50)
LAUNCHING = network(0.5e9, 0.02e9, 300)


def layered(work: Work) -> FloatArray:
    """Log time and energy by the layers over those at all-max, shape ``(2, n)``."""
    cpu, gpu, emc = SPACE.settings.T
    at = Clocks(cpu_hz=cpu, gpu_hz=gpu, emc_hz=emc, cores=BOARD.cpu.cores)
    predicted = by_layers(BOARD, BOARD.stack("pytorch"), work, at)
    logs = np.log((predicted.time_s, predicted.energy_j))
    return logs - logs[:, [SPACE.fastest]]


def expected(prior: Prior) -> FloatArray:
    return predict(prior.mean[None], model_inputs(SPACE))[0]


@pytest.mark.parametrize("work", [COMPUTING, LAUNCHING])
def test_the_prior_expects_what_the_layers_predict(work: Work) -> None:
    missed = [
        np.abs(expected(prior) - layered(work)).mean()
        for prior in (WEAK, prior_for(BOARD, SPACE), prior_for(BOARD, SPACE, work))
    ]
    assert missed[2] < missed[1]
    assert missed[2] < 0.9 * missed[0]


def test_whoever_knows_more_is_surer_and_nobody_is_surer_of_the_scales() -> None:
    board, full = prior_for(BOARD, SPACE), prior_for(BOARD, SPACE, COMPUTING)
    assert full.sd.sum() < board.sd.sum() < WEAK.sd.sum()
    np.testing.assert_array_equal(full.sd[-2:], WEAK.sd[-2:])
    np.testing.assert_array_equal(full.mean[-2:], WEAK.mean[-2:])


def test_a_constant_that_was_measured_within_a_wide_interval_is_doubted_more() -> None:
    def within(share: float) -> Prior:
        constants = {
            key: dataclasses.replace(
                each, status="measured", low=each.value * (1 - share), high=each.value * (1 + share)
            )
            if key.startswith(("cpu.core_", "cpu.busy_", "gpu.w_", "energy.base_"))
            else each
            for key, each in BOARD.constants.items()
        }
        return prior_for(dataclasses.replace(BOARD, constants=constants), SPACE, COMPUTING)

    assert within(0.03).sd.sum() < within(0.9).sd.sum()


def test_batch_sizes_and_cores_are_predicted_each_for_itself() -> None:
    space = Space([Knob("cpu_cores", (2.0, 6.0)), Knob("batch_size", (1.0, 4.0, 16.0))])
    prior = prior_for(BOARD, space, network(8e9, 0.3e9, 200))
    time = predict(prior.mean[None], model_inputs(space))[0, 0].reshape(2, 3)
    assert np.all(np.diff(time, axis=1) > 0)


def test_a_space_of_one_setting_has_a_prior_too() -> None:
    assert np.all(np.isfinite(prior_for(BOARD, Space([Knob("gpu_hz", (6.12e8,))])).mean))


def test_a_framework_that_the_board_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is known of 'jax'"):
        prior_for(BOARD, SPACE, COMPUTING, "jax")


def test_a_governor_tells_its_policy_what_board_and_model_let_expect() -> None:
    problems: list[Problem] = []

    def policy(problem: Problem) -> ToyPolicy:
        problems.append(problem)
        return ToyPolicy(problem)

    board = ToyBoard()
    with EnergyGovernor("40ms", device=board, policy=policy, model=COMPUTING, board="tx2") as gov:
        for _ in gov.watch(range(500)):
            board.infer()
    expected = prior_for(load_board("tx2"), board.space, COMPUTING)
    np.testing.assert_array_equal(problems[0].prior.mean, expected.mean)


def test_a_device_that_no_board_file_describes_needs_to_be_named() -> None:
    with pytest.raises(InputError, match=r"unknown board .*give the path of a board file"):
        EnergyGovernor("40ms", device=ToyBoard(), model=COMPUTING)


def test_work_runs_as_it_was_counted_fused_by_a_compiler_or_not() -> None:
    fused = dataclasses.replace(LAUNCHING, fused=True)
    eager, compiled = (seeding(work, "orin-nano")(SPACE) for work in (LAUNCHING, fused))
    np.testing.assert_array_equal(eager.mean, prior_for(BOARD, SPACE, LAUNCHING).mean)
    np.testing.assert_array_equal(compiled.mean, prior_for(BOARD, SPACE, fused, "tensorrt").mean)
