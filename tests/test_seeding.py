"""What a prior is worth, and the command that tells."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import main
from governor.replay import ReplayRun, Task, run
from governor.roofline.fit import WEAK, Prior
from governor.seeding import AFTER, NEAR, worth
from governor.units import parse_bound

SWEEP = analytic_sweep()
TRIALS = 7


def search(prior: Prior = WEAK, slo: str = "1.6x") -> ReplayRun:
    return run(Task(SWEEP, parse_bound(slo), "bayesian", 0, TRIALS, 0.01, curve=True, prior=prior))


def test_the_trials_to_the_optimum_are_those_to_the_first_choice_that_near() -> None:
    made = search()
    found = worth("none", [made], TRIALS)
    for near, needed in zip(NEAR, found.trials_to, strict=True):
        good = [made.keeps_slo(one) and made.excess(one) <= near for one in made.choices]
        assert needed == (good.index(True) + 1 if any(good) else TRIALS + 1)
    last = len(made.choices)
    expected = [made.excess(made.choices[min(k, last) - 1]) for k in AFTER if k <= TRIALS]
    assert found.excess == tuple(expected)
    assert found.runs == 1


def test_a_search_that_never_comes_near_counts_as_one_trial_more_than_it_had() -> None:
    fixed = run(Task(SWEEP, parse_bound("1.6x"), "fixed", 0, TRIALS, 0.0, curve=True))
    assert fixed.energy_excess > max(NEAR)
    assert worth("none", [fixed], TRIALS).trials_to == (TRIALS + 1,) * len(NEAR)


def test_an_slo_that_nothing_keeps_counts_nowhere() -> None:
    assert worth("none", [search(slo="0.5x")], TRIALS).runs == 0


def test_another_prior_makes_another_search() -> None:
    other = Prior(WEAK.mean + 0.7 * WEAK.sd * np.sign(WEAK.mean), 0.3 * WEAK.sd)
    tried = [[trial.truth.point for trial in search(prior).trials] for prior in (WEAK, other)]
    assert tried[0] != tried[1]


def test_the_command_compares_every_prior(torch: ModuleType, tmp_path, capsys) -> None:
    file = tmp_path / "worth.json"
    words = ["seeding", "--emulated", "nano/resnet-18", "--latency-slo", "1.4x"]
    assert main([*words, "--seeds", "1", "--trials", "4", "--json", str(file)]) == 0
    emulated = json.loads(file.read_text())["emulated"]
    assert list(emulated) == ["none", "board", "full", "wrong network", "wrong board"]
    assert all(one["runs"] == 1 for one in emulated.values())
    assert "1 emulated sweep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--emulated", ""], "nothing to search"),
        (["--emulated", "nano/chess"], "unknown workload 'chess'"),
        (["--emulated", "agx-thor/yolov8n"], "unknown board 'agx-thor'"),
        (["--emulated", "nano/squeezenet"], "'squeezenet' is no network that can be counted"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(words, message, capsys) -> None:
    assert main(["seeding", *words]) == 2
    assert message in capsys.readouterr().err
