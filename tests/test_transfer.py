"""What other workloads' profiles teach, and the command that measures it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.devices.trace import Sweep, write_trace
from governor.replay import Task, run
from governor.roofline.fit import PARAMETERS, WEAK, predict
from governor.roofline.knobs import PERIOD, model_inputs
from governor.space import Space
from governor.transfer import KINDS, backgrounds, donor, profile_task
from governor.trial import Trial
from governor.units import parse_bound
from policies.background import Background, Donor
from policies.surrogate import Errors
from policies.transfer import transferred


def emulated(board: str, network: str) -> Sweep:
    device = EmulatedBoard(board, network)
    latency_s, energy_j = device.truth()
    return Sweep(device.info.name, network, 1, device.space, latency_s, energy_j,
                 energy_j / latency_s)  # fmt: skip


NANO = [emulated("nano", network) for network in ("resnet-50", "mobilenet-v2")]


def task(sweep: Sweep, **changes: object) -> Task:
    return replace(Task(sweep, parse_bound("1.5x"), "bayesian", 0, 8, 0.01, curve=True), **changes)


@pytest.fixture(scope="module")
def taught() -> Background:
    """The profile of the board's other network."""
    profile = donor(NANO[1], run(profile_task(task(NANO[1]))), 0.01)
    return Background("nano", "resnet-50 batch 1", (profile,))


def trials_of(
    parameters: np.ndarray, space: Space, rows: np.ndarray, period: float = 0.0
) -> tuple[Trial, ...]:
    """What a board with these coefficients would give, without noise.

    ``period``: from one input to the next, in latencies of the fastest setting; 0: always there.
    """
    inputs = model_inputs(space)
    inputs[:, PERIOD] = period
    time, energy = np.exp(predict(parameters[None], inputs)[0])
    cycle = np.maximum(time, period * time[space.fastest])
    return tuple(
        Trial(point=space.point(row), latency_s=time[row], latency_se_s=0.0,
              mean_latency_s=time[row], mean_latency_se_s=0.0, energy_j=energy[row],
              energy_se_j=0.0, power_w=1.0, inferences=10, items=10, duration_s=10 * cycle[row])
        for row in rows
    )  # fmt: skip


def test_what_belongs_to_the_board_is_learnt_from_its_other_workloads() -> None:
    """And what belongs to the workload is not."""
    draw, space = np.random.default_rng(1), NANO[0].space
    board = WEAK.mean + WEAK.sd * draw.choice([-1.0, 1.0], len(WEAK.mean))
    ours = [PARAMETERS.index(name) for name in ("gpu_floor", "gpu_voltage", "emc_exponent")]
    rows = np.append(space.fastest, draw.choice(len(space), 40, replace=False))
    donors: list[Donor] = []
    for number in range(3):
        network = np.where(np.isin(np.arange(len(board)), ours), board,
                           WEAK.mean + WEAK.sd * draw.standard_normal(len(board)))  # fmt: skip
        network[-2:] = 0.0
        donors.append(Donor("a", f"network {number}", trials_of(network, space, rows)))
    lesson = transferred(space, Background("a", "another", tuple(donors)), Errors(space))
    assert lesson is not None
    missed = np.abs(lesson.prior.mean - board)[ours] / WEAK.sd[ours]
    assert missed.mean() < 0.6  # where the weak prior misses by 1
    left = lesson.prior.sd / WEAK.sd
    assert left[ours].mean() < 0.8 < left[PARAMETERS.index("launch")]


def test_that_a_donor_waited_for_its_input_is_not_taken_for_the_boards_doing() -> None:
    """The energy of the wait is the input's."""
    draw, space = np.random.default_rng(1), NANO[0].space
    board = WEAK.mean + 0.7 * WEAK.sd * draw.standard_normal(len(WEAK.mean))
    rows = np.append(space.fastest, draw.choice(len(space), 40, replace=False))
    for period in (0.0, 5.0):
        camera = Donor("a", "camera", trials_of(board, space, rows, period))
        lesson = transferred(space, Background("a", "other", (camera,)), Errors(space))
        assert lesson is not None
        missed = np.abs(lesson.prior.mean - board) / WEAK.sd
        assert missed[:-2].mean() < 0.4
        assert np.abs(lesson.bend).max() < 0.02


def test_what_is_shared_with_nobody_stays_as_uncertain_as_it_was(taught: Background) -> None:
    space = NANO[0].space
    lesson = transferred(space, taught, Errors(space))
    assert lesson is not None
    np.testing.assert_allclose(lesson.prior.sd[-2:], WEAK.sd[-2:], rtol=1e-6)
    foreign = Background("tx2", "other", taught.donors)
    far = transferred(space, foreign, Errors(space))
    assert far is not None
    assert np.all(far.bend == 0)
    assert far.prior.sd.sum() > lesson.prior.sd.sum()


def test_a_board_with_other_clocks_teaches_in_relative_ones(taught: Background) -> None:
    space = analytic_sweep().space
    lesson = transferred(space, taught, Errors(space))
    assert lesson is not None
    assert np.all(np.isfinite(lesson.prior.mean))
    assert lesson.bend.shape == (2, len(space))


def test_two_trials_teach_nothing(taught: Background) -> None:
    few = replace(taught.donors[0], trials=taught.donors[0].trials[:2])
    space = NANO[0].space
    assert transferred(space, replace(taught, donors=(few,)), Errors(space)) is None


def test_every_kind_of_background_leaves_the_sweep_itself_out() -> None:
    sweeps = [*NANO, emulated("tx2", "resnet-50")]
    donors = {
        str(each): donor(each, run(task(each, trials=3, curve=False)), 0.01) for each in sweeps
    }
    found = backgrounds(sweeps[0], sweeps, donors)
    told = {kind: [one.workload for one in each.donors] for kind, each in found.items()}
    assert told == {
        "same board": ["mobilenet-v2 batch 1"],
        "other boards": ["resnet-50 batch 1"],
        "misleading": ["resnet-50 batch 1"],  # so it says
    }
    assert found["misleading"].donors[0].trials == donors[str(sweeps[1])].trials
    assert found["misleading"].donors[0].board == "nano"


def test_the_command_compares_every_kind(tmp_path) -> None:
    trace, file = tmp_path / "trace.csv", tmp_path / "worth.json"
    one = analytic_sweep()
    sweeps = [one, replace(one, workload="other", energy_j=one.energy_j * 2),
              replace(one, device="else")]  # fmt: skip
    write_trace(trace, sweeps)
    words = ["transfer", str(trace), "--latency-slo", "1.5x", "--trials", "4", "--json", str(file)]
    assert main(words) == 0
    assert list(json.loads(file.read_text())["measured"]) == list(KINDS)


def test_one_sweep_alone_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", "--emulated", "nano/resnet-50"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
