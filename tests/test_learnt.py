"""What one workload's trials teach of the next one's roofline."""

from __future__ import annotations

import numpy as np
import pytest

from governor.devices.emulated import EmulatedBoard
from governor.roofline.fit import PARAMETERS, WEAK, predict
from governor.roofline.knobs import model_inputs
from governor.roofline.learnt import learnt
from governor.trial import Trial

BOARD = "xavier-nx"


def trials(board, count, seed=0):
    """The fastest point's, and so many at others, as exact as a window is."""
    space, rng = board.space, np.random.default_rng(seed)
    latency, energy = board.truth()
    noise = rng.normal(1.0, 0.005, (2, len(space)))
    allowed = np.flatnonzero(latency < 2 * latency.min())
    rows = [space.fastest, *rng.choice(allowed, count, replace=False)]
    return [
        Trial(
            point=space.point(int(row)),
            latency_s=latency[row] * noise[0, row], latency_se_s=0.003 * latency[row],
            mean_latency_s=latency[row], mean_latency_se_s=0.003 * latency[row],
            energy_j=energy[row] * noise[1, row], energy_se_j=0.005 * energy[row],
            power_w=10.0, inferences=50, items=50, duration_s=50 * latency[row],
        )
        for row in rows
    ]  # fmt: skip


def error(prior, board):
    """How far its mean is off over the settings that a search looks at: time, energy."""
    latency, energy = board.truth()
    here = latency < 2 * latency.min()
    said = predict(prior.mean[None], model_inputs(board.space))[0]
    said -= said[:, [board.space.fastest]]
    truth = np.log(np.stack((latency, energy)))
    truth -= truth[:, [board.space.fastest]]
    return np.sqrt(np.mean((said - truth)[:, here] ** 2, axis=1))


@pytest.mark.parametrize("workload", ["resnet-50", "yolov8n-320", "distilbert"])
def test_another_workload_on_the_same_board_is_expected_better(workload):
    prior = learnt(EmulatedBoard(BOARD).space, trials(EmulatedBoard(BOARD, "yolov8n"), 10))
    board = EmulatedBoard(BOARD, workload)
    assert error(prior, board)[1] < 0.7 * error(WEAK, board)[1]


def test_the_board_is_known_better_than_the_workload_and_nothing_worse_than_before():
    board = EmulatedBoard(BOARD, "yolov8n")
    prior = learnt(board.space, trials(board, 12))
    shrunk = dict(zip(PARAMETERS, prior.sd / WEAK.sd, strict=True))
    assert max(shrunk.values()) <= 1.0
    assert shrunk["static"] < shrunk["compute"]
    # the first trial of the next search sets the scales
    assert shrunk["time_scale"] == shrunk["energy_scale"] == 1.0


def test_from_too_few_trials_or_without_the_fastest_point_nothing_is_learnt():
    board = EmulatedBoard(BOARD, "yolov8n")
    several = trials(board, 8)
    assert learnt(board.space, several[:3]).weak
    assert learnt(board.space, several[1:]).weak
    assert learnt(board.space, ()).weak
