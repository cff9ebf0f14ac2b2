"""What else than energy can be asked for, and that each policy finds it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_sweep import analytic_sweep
from hypothesis import given
from hypothesis import strategies as st

from governor.cli.main import main
from governor.devices.replay import ReplayDevice
from governor.devices.trace import join, write_trace
from governor.errors import InputError
from governor.finished import FinishedFile
from governor.objective import ENERGY, Objective
from governor.replay import Judge, ReplayRun, Task, run
from governor.search_worker import decode_problem, encode_problem
from governor.units import parse_bound
from policies.outlook import Outlook
from policies.policy import Problem, load_policy
from policies.power import Power
from policies.surrogate import ENERGY as LOG_ENERGY
from policies.surrogate import TIME, Surrogate

SWEEP = analytic_sweep(batch_size=1)
POWER_W = SWEEP.mean_power_w
CAPPED = Objective(0.0, 1.0, power_cap_w=0.5 * float(POWER_W.max()))
EDP = Objective(1.0, 1.0)
WITH_A_MODEL = ["bayesian", "roofline"]
BEST_MEASURED = ["coordinate", "exhaustive", "random", "gradient-descent"]


def trial(row: int = 0, noise: float = 0.02):
    return ReplayDevice(SWEEP, noise, seed=0).measure(row)


def task(objective: Objective, policy: str = "bayesian", slo: str = "none", noise: float = 0.01):
    return Task(SWEEP, parse_bound(slo), policy, 0, 12, noise, objective=objective)


def test_the_default_is_energy_alone() -> None:
    one = trial()
    assert Objective.parse() == ENERGY
    assert ENERGY.cost(one) == one.energy_j
    assert ENERGY.strain(one, 0.05) == one.latency_s / 0.05


@pytest.mark.parametrize(
    ("name", "power_cap", "says"),
    [
        ("speed", None, "unknown objective 'speed'; choose one of energy, latency, edp"),
        ("latency", None, "needs a power cap"),
        ("edp", "10", "has no unit; write it like"),
        ("edp", "-3W", "must be positive"),
    ],
)
def test_what_cannot_be_asked_for_is_told(name: str, power_cap: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Objective.parse(name, power_cap)


@pytest.mark.parametrize("exponents", [(0.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_exponents_are_finite_and_not_negative(exponents: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="exponents of energy and latency"):
        Objective(*exponents)


@given(st.floats(0.3, 3.0))
def test_a_cap_is_kept_as_surely_as_the_reading_is_far_below_it(share: float) -> None:
    one = trial()
    p_keeps = Objective(power_cap_w=share * one.power_w).p_keeps_cap(one)
    assert (p_keeps > 0.5) == (share > 1.0) or share == 1.0
    assert 0.0 <= p_keeps <= 1.0


def test_power_that_was_not_measured_keeps_no_cap() -> None:
    unknown = replace(trial(), power_w=math.nan, energy_j=math.nan)
    assert CAPPED.p_keeps_cap(unknown) == 0.0
    assert ENERGY.p_keeps_cap(unknown) == 1.0


@pytest.mark.parametrize("name", WITH_A_MODEL)
@pytest.mark.parametrize("objective", [EDP, CAPPED, Objective(power_cap_w=CAPPED.power_cap_w)])
def test_a_policy_with_a_model_comes_near_the_optimum(name: str, objective: Objective) -> None:
    done = run(task(objective, name))
    assert done.slo_met
    assert done.cost_excess < 0.06


@pytest.mark.parametrize("name", BEST_MEASURED)
@pytest.mark.parametrize("objective", [EDP, CAPPED])
def test_the_best_measured_is_the_best_by_the_objective(name: str, objective: Objective) -> None:
    done = run(task(objective, name, noise=0.0))
    kept = [one.truth for one in done.trials if one.truth.strain <= 1.0]
    assert done.chosen.cost == min(one.cost for one in kept)


def test_under_a_power_cap_one_knob_alone_is_lowered_first() -> None:
    first, second = (one.truth.point for one in run(task(CAPPED)).trials[:2])
    assert sum(first[knob] != second[knob] for knob in first) == 1


def test_a_latency_bound_holds_under_any_objective() -> None:
    slowest = run(task(Objective(power_cap_w=CAPPED.power_cap_w)))
    bounded = run(task(Objective(power_cap_w=CAPPED.power_cap_w), slo="1.6x"))
    assert slowest.chosen.latency_s > bounded.slo_s
    assert bounded.slo_met


def test_the_oracle_is_the_best_of_all_settings() -> None:
    judge = Judge(task(CAPPED))
    allowed = np.flatnonzero(CAPPED.power_cap_w >= POWER_W)
    assert judge.best == allowed[np.argmin(SWEEP.latency_s[allowed])]


def outlook(problem: Problem, rows: list[int]) -> tuple[Outlook, Surrogate]:
    surrogate, device = Surrogate(SWEEP.space), ReplayDevice(SWEEP, 0.01, seed=1)
    for row in [SWEEP.space.fastest, *rows]:
        surrogate.tell(device.measure(row))
    return Outlook(problem, surrogate.believe(), surrogate), surrogate


def test_errors_of_a_combination_count_how_time_and_energy_go_together() -> None:
    seen, _ = outlook(Problem(SWEEP.space, math.inf, objective=EDP), [5, 40])
    belief = seen.belief
    rows = np.arange(len(SWEEP.space))
    both = np.einsum("abnn->nab", belief.covariance(rows, rows))
    assert seen.sd[-1] ** 2 == pytest.approx(both.sum(axis=(1, 2)), rel=1e-6)
    assert seen.cost == pytest.approx(belief.mean[TIME] + belief.mean[LOG_ENERGY])


def test_power_is_energy_over_time_where_inferences_follow_each_other() -> None:
    _, surrogate = outlook(Problem(SWEEP.space, math.inf), [5, 40])
    rows, times = np.array(surrogate.rows), np.log(SWEEP.latency_s)
    power = Power.of(SWEEP.space, surrogate.trials, rows, times)
    log_power = power.slopes[0] * times + power.slopes[1] * np.log(SWEEP.energy_j) + power.offset
    assert np.exp(log_power) == pytest.approx(POWER_W, rel=0.03)


def test_power_is_energy_at_the_rate_of_the_input_where_that_is_waited_for() -> None:
    period_s = 2.0 * float(SWEEP.latency_s.max())
    paced = [
        replace(trial(row, 0.0), duration_s=period_s, power_w=float(SWEEP.energy_j[row]) / period_s)
        for row in (SWEEP.space.fastest, 0)
    ]
    rows = np.array([SWEEP.space.fastest, 0])
    power = Power.of(SWEEP.space, paced, rows, np.log(SWEEP.latency_s))
    assert np.all(power.slopes[0] == 0.0)
    assert np.exp(power.offset) == pytest.approx(1.0 / period_s)


def test_power_counts_the_items_of_a_batch() -> None:
    joint = join([analytic_sweep(batch_size=size) for size in (1, 2, 4)])[0]
    device, rows = ReplayDevice(joint, 0.0, seed=0), [joint.space.fastest, 3, 90]
    trials = [device.measure(row) for row in rows]
    power = Power.of(joint.space, trials, np.array(rows), np.log(joint.latency_s))
    logs = power.slopes * (np.log(joint.latency_s), np.log(joint.energy_j))
    assert np.exp(logs.sum(axis=0) + power.offset) == pytest.approx(joint.mean_power_w)


def test_the_search_worker_is_told_of_the_objective() -> None:
    problem = Problem(SWEEP.space, math.inf, objective=CAPPED)
    message = json.loads(json.dumps(encode_problem(problem)))
    assert decode_problem(message).objective == CAPPED
    assert load_policy("bayesian")(decode_problem(message)) is not None


def test_a_finished_run_without_a_bound_is_read_back(tmp_path: Path) -> None:
    done = run(task(CAPPED, "fixed"))
    with FinishedFile(tmp_path / "runs", {}, ReplayRun) as file:
        file.keep(0, done)
    with FinishedFile(tmp_path / "runs", {}, ReplayRun) as file:
        assert file.results[0] == done


def test_the_command_judges_by_the_objective(tmp_path: Path, capsys) -> None:
    trace, out = tmp_path / "trace.csv", tmp_path / "out.json"
    write_trace(trace, [SWEEP])
    options = ["--latency-slo", "none", "--seeds", "1", "--json", str(out)]
    assert (
        main(["replay", str(trace), *options, "--objective", "latency", "--power-cap", "0.5x"]) == 0
    )
    assert "objective: latency under 0.5x power" in capsys.readouterr().out.replace("\n", " ")
    (one,) = json.loads(out.read_text())["runs"]
    assert one["slo_s"] is None
    assert one["objective"].startswith("latency under")
    assert one["cost_excess"] == one["chosen"]["latency_s"] / one["oracle"]["latency_s"] - 1
    assert main(["replay", str(trace), *options, "--objective", "latency"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
