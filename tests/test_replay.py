from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from analytic_sweep import analytic_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.devices.replay import ReplayDevice
from governor.devices.trace import Sweep
from governor.errors import InputError, PolicyError
from governor.replay import ReplayRun, Task, run, summarise, to_json
from governor.space import Knob, OperatingPoint, Space
from governor.units import parse_bound
from policies import policy as registry
from policies.measured import Measured
from policies.policy import Choice, Proposal

SWEEP = analytic_sweep()


def task(slo: str = "1.5x", policy: str = "random", seed: int = 0, **changes: object) -> Task:
    base = Task(SWEEP, parse_bound(slo), policy, seed, trials=12, noise=0.02)
    return dataclasses.replace(base, **changes)


def without_time(done: ReplayRun) -> ReplayRun:
    return dataclasses.replace(done, search_seconds=0.0)


def test_the_oracle_is_what_brute_force_finds() -> None:
    for slo in ("1x", "1.1x", "1.3x", "1.6x", "3x", "40ms"):
        done = run(task(slo))
        kept = SWEEP.latency_s <= done.slo_s
        best = SWEEP.energy_j[kept].min()
        assert done.oracle.energy_j == best
        assert SWEEP.energy_j[SWEEP.space.index(done.oracle.point)] == best


def test_a_relative_slo_is_relative_to_the_all_max_corner() -> None:
    assert run(task("1.3x")).slo_s == pytest.approx(1.3 * SWEEP.latency_s.min())


def test_the_first_trial_is_the_all_max_corner_and_counts() -> None:
    done = run(task(trials=5))
    assert len(done.trials) == 5
    assert done.trials[0].truth.point == SWEEP.space.point(SWEEP.space.fastest)


def test_trials_and_choice_are_judged_by_the_sweeps_own_figures() -> None:
    done = run(task(noise=0.3))
    for truth in (done.chosen, *(trial.truth for trial in done.trials)):
        row = SWEEP.space.index(truth.point)
        assert (truth.latency_s, truth.energy_j) == (SWEEP.latency_s[row], SWEEP.energy_j[row])
    assert done.energy_excess == done.chosen.energy_j / done.oracle.energy_j - 1


def test_without_noise_the_policy_sees_the_truth_and_tries_every_setting() -> None:
    done = run(task(policy="exhaustive", trials=len(SWEEP.space), noise=0.0))
    for trial in done.trials:
        assert trial.measured_latency_s == pytest.approx(trial.truth.latency_s, rel=1e-12)
        assert trial.measured_energy_j == pytest.approx(trial.truth.energy_j, rel=1e-12)
    assert len({trial.truth.point for trial in done.trials}) == len(SWEEP.space)
    assert done.energy_excess == 0
    assert done.slo_met


@given(st.integers(0, 10_000), st.sampled_from(["random", "coordinate", "exhaustive"]))
@settings(max_examples=20, deadline=None)
def test_the_seed_decides_everything(seed: int, policy: str) -> None:
    first = run(task(policy=policy, seed=seed))
    assert without_time(first) == without_time(run(task(policy=policy, seed=seed)))


def test_every_policy_gets_the_same_noise_at_the_same_trial() -> None:
    def noise(policy: str, seed: int) -> list[float]:
        trials = run(task(policy=policy, seed=seed)).trials
        return [trial.measured_energy_j / trial.truth.energy_j for trial in trials]

    assert noise("random", 3) == pytest.approx(noise("exhaustive", 3), rel=1e-9)
    assert noise("random", 3) != pytest.approx(noise("random", 4), rel=1e-9)


def test_the_noise_has_the_mean_and_spread_that_were_asked_for() -> None:
    for asked in (0.02, 0.5):
        factors = ReplayDevice(SWEEP, asked, seed=1).noisy(np.ones(200_000))
        assert np.all(factors > 0)
        assert factors.mean() == pytest.approx(1, abs=0.005)
        assert factors.std() == pytest.approx(asked, rel=0.02)


def test_the_policy_is_told_energy_an_item_and_the_noise() -> None:
    trial = ReplayDevice(SWEEP, noise=0.0, seed=0).measure(7)
    assert trial.energy_j == pytest.approx(SWEEP.energy_j[7] / SWEEP.batch_size)
    assert trial.items == SWEEP.batch_size
    assert trial.power_w == pytest.approx(SWEEP.energy_j[7] / SWEEP.latency_s[7])
    noisy = ReplayDevice(SWEEP, noise=0.04, seed=0).measure(7)
    assert noisy.latency_se_s == pytest.approx(0.04 * noisy.latency_s)
    assert noisy.energy_se_j == pytest.approx(0.04 * noisy.energy_j)


def test_a_curve_holds_the_choice_after_every_trial_and_changes_nothing_else() -> None:
    plain, curved = run(task(policy="coordinate")), run(task(policy="coordinate", curve=True))
    assert len(curved.choices) == len(curved.trials)
    assert curved.choices[-1] == curved.chosen
    assert without_time(plain) == dataclasses.replace(without_time(curved), choices=())


def test_an_slo_that_nothing_keeps_is_judged_against_the_fastest_setting_and_counted_apart() -> (
    None
):
    done = run(task("1us"))
    assert not done.feasible
    assert not done.slo_met
    assert done.oracle.latency_s == SWEEP.latency_s.min()
    summary = summarise([done, run(task("3x"))])
    assert (summary.runs, summary.infeasible_runs) == (2, 1)
    assert summary.slo_met_rate == 1.0
    assert summarise([done]).energy_excess_mean is None


def test_the_summary_counts_violations_over_all_trials() -> None:
    runs = [run(task(seed=seed, trials=trials)) for seed, trials in ((0, 3), (1, 9))]
    violating = sum(trial.truth.latency_s > one.slo_s for one in runs for trial in one.trials)
    assert summarise(runs).trial_violation_rate == violating / 12


def test_the_json_has_the_fields_that_users_rely_on() -> None:
    document = json.loads(json.dumps(to_json([run(task()), run(task("1us"))]), allow_nan=False))
    assert set(document) == {"runs", "summary"}
    for one in document["runs"]:
        assert {
            "device", "workload", "batch_size", "policy", "seed", "slo_s", "oracle", "chosen",
            "trials", "energy_excess", "slo_met", "trial_violation_rate", "search_seconds",
        } <= set(one)  # fmt: skip
        for truth in (one["oracle"], one["chosen"]):
            assert set(truth) == {"point", "latency_s", "energy_j"}
            assert set(truth["point"]) == {"cpu_hz", "gpu_hz", "emc_hz"}
        for trial in one["trials"]:
            assert set(trial) == {
                "point", "latency_s", "energy_j", "measured_latency_s", "measured_energy_j"
            }  # fmt: skip
    assert document["summary"]["infeasible_runs"] == 1
    assert [one["slo"] for one in document["summary"]["sweeps"]] == ["1.5x", "1 µs"]


def test_an_unknown_policy_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown policy 'psychic'"):
        run(task(policy="psychic"))


class Astray(Measured):
    """Chooses a point that its space does not have."""

    def ask(self) -> Proposal | None:
        return None

    def choose(self) -> Choice:
        point = OperatingPoint({"cpu_hz": 1.0, "gpu_hz": 1.0, "emc_hz": 1.0})
        return Choice(point=point, feasible=True, energy_j=1.0, latency_s=1.0)


def test_a_choice_off_the_lattice_is_the_policys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "astray", f"{__name__}:Astray")
    with pytest.raises(PolicyError, match="not a setting of made-up net batch 4"):
        run(task(policy="astray"))


def test_a_sweep_of_one_setting_is_its_own_optimum() -> None:
    space = Space([Knob("gpu_hz", (1e9,))])
    one = Sweep("d", "w", 1, space, np.array([0.01]), np.array([0.2]), np.array([20.0]))
    done = run(task("1x", sweep=one, noise=0.02))
    assert len(done.trials) == 1
    assert done.energy_excess == 0
