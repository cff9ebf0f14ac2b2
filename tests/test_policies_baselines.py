"""What every policy without a model promises, and what each adds to it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from analytic_sweep import analytic_sweep

from governor.errors import InputError, PolicyError
from governor.space import OperatingPoint, Space
from governor.trial import Trial
from policies.coordinate import CoordinatePolicy
from policies.exhaustive import ExhaustivePolicy
from policies.fixed import FixedPolicy
from policies.gp_ehvi import expected_hypervolume_improvement, hypervolume, pareto_front
from policies.linear_sweep import LinearSweepPolicy
from policies.measured import Measured
from policies.policy import Policy, Problem, load_policy
from policies.random import RandomPolicy

SWEEP = analytic_sweep(batch_size=1)
SPACE = SWEEP.space
CORNER = SPACE.point(SPACE.fastest)
SLO_S = 1.6 * SWEEP.all_max_latency_s
BASELINES = [
    "random", "exhaustive", "fixed", "coordinate", "skopt-baseline",
    "gp-ehvi", "gradient-descent", "linear-sweep",
]  # fmt: skip


def trial(point: OperatingPoint | None, latency_s: float, energy_j: float) -> Trial:
    return Trial(
        point=point,
        latency_s=latency_s,
        latency_se_s=0.0,
        mean_latency_s=latency_s,
        mean_latency_se_s=0.0,
        energy_j=energy_j,
        energy_se_j=0.0,
        power_w=energy_j / latency_s,
        inferences=1,
        items=1,
        duration_s=latency_s,
    )


def true_trial(point: OperatingPoint) -> Trial:
    row = SPACE.index(point)
    return trial(point, float(SWEEP.latency_s[row]), float(SWEEP.energy_j[row]))


def drive(policy: Policy, trials: int) -> list[OperatingPoint]:
    """The points asked for, after the corner."""
    policy.tell(true_trial(CORNER))
    asked: list[OperatingPoint] = []
    while len(asked) < trials and (proposal := policy.ask()) is not None:
        asked.append(proposal.point)
        policy.tell(true_trial(proposal.point))
    return asked


@pytest.mark.parametrize("name", BASELINES)
def test_points_are_of_the_space_and_none_is_asked_for_twice(name: str) -> None:
    asked = drive(load_policy(name)(Problem(SPACE, SLO_S, seed=2)), trials=7)
    assert all(point in SPACE for point in asked)
    assert len({CORNER, *asked}) == 1 + len(asked)


@pytest.mark.parametrize("name", BASELINES)
def test_the_seed_decides_what_is_asked(name: str) -> None:
    first, second = (load_policy(name)(Problem(SPACE, SLO_S, seed=5)) for _ in range(2))
    assert drive(first, 6) == drive(second, 6)


@pytest.mark.parametrize("name", ["random", "skopt-baseline", "gp-ehvi"])
def test_another_seed_asks_for_something_else(name: str) -> None:
    first, second = (load_policy(name)(Problem(SPACE, SLO_S, seed=seed)) for seed in (1, 2))
    assert drive(first, 4) != drive(second, 4)


@pytest.mark.parametrize("name", BASELINES)
def test_a_space_of_one_setting_is_held(name: str) -> None:
    only = Space.of_settings(SPACE.names, SPACE.settings[:1].copy())
    policy = load_policy(name)(Problem(only, SLO_S))
    policy.tell(trial(only.point(0), 0.01, 0.2))
    assert policy.ask() is None
    assert policy.choose().point == only.point(0)


@pytest.mark.parametrize("name", ["random", "exhaustive", "skopt-baseline"])
def test_when_all_is_tried_nothing_is_left_to_ask(name: str) -> None:
    some = Space.of_settings(SPACE.names, SPACE.settings[-7:].copy())
    policy = load_policy(name)(Problem(some, SLO_S))
    asked = drive(policy, trials=99)
    assert len(asked) == len(some) - 1
    assert policy.ask() is None


def test_the_best_measured_keeps_the_slo_as_measured() -> None:
    policy = Measured(Problem(SPACE, slo_s=0.020))
    policy.tell(trial(SPACE.point(0), 0.010, 3.0))
    policy.tell(trial(SPACE.point(1), 0.020, 2.0))
    policy.tell(trial(SPACE.point(2), 0.021, 1.0))
    choice = policy.choose()
    assert (choice.point, choice.feasible, choice.energy_j) == (SPACE.point(1), True, 2.0)


def test_when_nothing_kept_the_slo_the_fastest_is_held() -> None:
    policy = Measured(Problem(SPACE, slo_s=0.001))
    policy.tell(trial(SPACE.point(0), 0.030, 1.0))
    policy.tell(trial(SPACE.point(1), 0.020, 2.0))
    choice = policy.choose()
    assert (choice.point, choice.feasible) == (SPACE.point(1), False)


def test_a_trial_without_a_point_is_refused() -> None:
    with pytest.raises(PolicyError, match="without an operating point"):
        RandomPolicy(Problem(SPACE, SLO_S)).tell(trial(None, 0.01, 1.0))


def test_exhaustive_goes_in_the_order_of_the_lattice() -> None:
    some = Space.of_settings(SPACE.names, SPACE.settings[-5:].copy())
    assert drive(ExhaustivePolicy(Problem(some, SLO_S)), 9) == [some.point(row) for row in range(4)]


def test_fixed_holds_its_point_whatever_it_measures() -> None:
    policy = FixedPolicy(Problem(SPACE, SLO_S), SPACE.point(3))
    assert not policy.choose().feasible
    assert drive(policy, 5) == [SPACE.point(3)]
    assert policy.choose().point == SPACE.point(3)
    assert policy.choose().energy_j == SWEEP.energy_j[3]


def test_fixed_refuses_a_point_that_is_not_allowed() -> None:
    with pytest.raises(InputError, match="not an allowed setting"):
        FixedPolicy(Problem(SPACE, SLO_S), OperatingPoint({"gpu_hz": 1.0}))


def test_coordinate_descent_ends_where_no_single_step_is_better() -> None:
    policy = CoordinatePolicy(Problem(SPACE, SLO_S))
    drive(policy, trials=500)
    here = policy.choose().point
    row = SPACE.index(here)
    assert SWEEP.latency_s[row] <= SLO_S
    for knob in SPACE.knobs:
        level = knob.levels.index(here[knob.name])
        for other in (level - 1, level + 1):
            if 0 <= other < len(knob.levels):
                next_row = SPACE.index(OperatingPoint({**here, knob.name: knob.levels[other]}))
                kept = SWEEP.latency_s[next_row] <= SLO_S
                assert not (kept and SWEEP.energy_j[next_row] < SWEEP.energy_j[row])


def test_coordinate_descent_asks_again_for_a_point_whose_trial_was_lost() -> None:
    policy = CoordinatePolicy(Problem(SPACE, SLO_S))
    policy.tell(true_trial(CORNER))
    lost, again = policy.ask(), policy.ask()
    assert lost is not None
    assert lost == again


def test_scikit_optimize_is_kept_on_the_lattice_when_that_has_holes() -> None:
    rows = np.flatnonzero(np.arange(len(SPACE)) % 3 != 1)
    rows = np.union1d(rows, [SPACE.fastest])
    holed = Space.of_settings(SPACE.names, SPACE.settings[rows].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = drive(load_policy("skopt-baseline")(Problem(holed, SLO_S)), trials=6)
    assert all(point in holed for point in asked)


def test_scikit_optimize_learns_the_way_downhill() -> None:
    policy = load_policy("skopt-baseline")(Problem(SPACE, SLO_S, seed=1))
    drive(policy, trials=8)
    chosen = SPACE.index(policy.choose().point)
    assert SWEEP.latency_s[chosen] <= SLO_S
    assert SWEEP.energy_j[chosen] < 0.9 * SWEEP.energy_j[SPACE.fastest]


def test_a_linear_sweep_lowers_the_gpus_clock_first_and_one_level_at_a_time() -> None:
    asked = drive(LinearSweepPolicy(Problem(SPACE, SLO_S)), trials=99)
    (gpu,) = (knob for knob in SPACE.knobs if knob.name == "gpu_hz")
    for step, point in enumerate(asked[:3]):
        assert point == OperatingPoint({**CORNER, "gpu_hz": gpu.levels[-2 - step]})


def test_a_linear_sweep_leaves_a_knob_at_the_first_step_that_misses_the_bound() -> None:
    slo_s = 1.05 * SWEEP.all_max_latency_s
    asked = drive(LinearSweepPolicy(Problem(SPACE, slo_s)), trials=99)
    missed = [point for point in asked if SWEEP.latency_s[SPACE.index(point)] > slo_s]
    assert 1 <= len(missed) <= len(SPACE.knobs)


def test_gradient_descent_starts_in_the_middle_and_stops_at_its_published_budget() -> None:
    asked = drive(load_policy("gradient-descent")(Problem(SPACE, SLO_S)), trials=99)
    assert len(asked) <= 15
    for knob in SPACE.knobs:
        assert abs(knob.levels.index(asked[0][knob.name]) - len(knob.levels) / 2) <= 1


def test_gradient_descent_speeds_up_where_the_middle_misses_the_bound() -> None:
    policy = load_policy("gradient-descent")(Problem(SPACE, 1.05 * SWEEP.all_max_latency_s))
    middle, *steps = drive(policy, trials=4)
    assert all(step[name] >= middle[name] for step in steps for name in step)


def test_the_hypervolume_is_the_area_between_the_front_and_the_corner() -> None:
    points = np.array([[0.2, 0.5], [0.5, 0.2], [0.6, 0.6], [1.5, 0.0]])
    assert pareto_front(points[:3]).tolist() == [[0.2, 0.5], [0.5, 0.2]]
    assert hypervolume(points) == pytest.approx(0.8 * 0.5 + 0.5 * 0.3)
    assert hypervolume(np.array([[2.0, 2.0]])) == 0.0


def test_the_expected_hypervolume_improvement_is_what_many_draws_come_to() -> None:
    random = np.random.default_rng(3)
    points, worst = random.uniform(0.2, 0.9, (6, 2)), np.ones(2)
    mean, sd = np.array([[0.4, 0.8], [0.5, 0.1]]), np.array([[0.2, 0.1], [0.1, 0.3]])
    expected = expected_hypervolume_improvement(mean, sd, points, worst)
    for setting in range(2):
        draws = random.normal(mean[:, setting], sd[:, setting], (20_000, 2))
        front = pareto_front(points)
        # The area that a draw adds is what it dominates less what is dominated already.
        reached = np.minimum(np.maximum(draws[:, None], front), 1.0)
        rights = np.append(front[1:, 0], 1.0)
        whole = np.prod(np.maximum(1.0 - draws, 0.0), axis=1)
        left = np.maximum(draws[:, :1], front[:, 0])
        already = np.maximum(rights - left, 0.0) * (1.0 - reached[:, :, 1])
        assert expected[setting] == pytest.approx((whole - already.sum(axis=1)).mean(), rel=0.05)


def test_the_batch_search_ends_once_batches_add_nothing() -> None:
    policy = load_policy("gp-ehvi")(Problem(SPACE, SLO_S, seed=1))
    asked = drive(policy, trials=60)
    assert 0.03 * len(SPACE) <= len(asked) + 1 < 60
    chosen = SPACE.index(policy.choose().point)
    assert SWEEP.latency_s[chosen] <= SLO_S
    assert SWEEP.energy_j[chosen] < 0.9 * SWEEP.energy_j[SPACE.fastest]
