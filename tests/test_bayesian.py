"""The default policy and its surrogate, on spaces with a known truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.errors import PolicyError
from governor.objective import Objective
from governor.roofline.fit import PARAMETERS, WEAK, Prior, predict
from governor.roofline.knobs import model_inputs
from governor.search import Search
from governor.space import Knob, OperatingPoint, Space
from governor.trial import Trial
from policies.acquisition import expected_improvement, knowledge_gradient
from policies.bayesian import BayesianPolicy, coarse_lattice
from policies.outlook import Outlook, p_safe
from policies.policy import Problem
from policies.roofline import RooflinePolicy
from policies.surrogate import ENERGY, TIME, Surrogate

SPACE = Space(
    [
        Knob("cpu_hz", tuple(np.linspace(0.4e9, 2e9, 6).tolist())),
        Knob("gpu_hz", tuple(np.linspace(0.2e9, 1.3e9, 10).tolist())),
        Knob("emc_hz", (0.8e9, 1.6e9, 3.2e9)),
    ]
)


class Board:
    """Settings whose time and energy are known: a roofline drawn at random, and a scatter."""

    def __init__(self, seed: int, space: Space = SPACE, noise: float = 0.005) -> None:
        self.space, self.noise = space, noise
        self.random = np.random.default_rng(seed)
        parameters = WEAK.mean + 0.5 * WEAK.sd * self.random.standard_normal(len(PARAMETERS))
        self.parameters = np.append(parameters[:-2], WEAK.mean[-2:])
        parameters[-2:] = np.log((0.02, 0.5))
        logs = predict(parameters[None], model_inputs(space))[0]
        logs += 0.003 * self.random.standard_normal(logs.shape)
        self.latency_s, self.energy_j = np.exp(logs)

    def measure(self, point: OperatingPoint) -> Trial:
        row = self.space.index(point)
        factor = np.exp(self.noise * self.random.standard_normal(2))
        latency_s, energy_j = self.latency_s[row] * factor[0], self.energy_j[row] * factor[1]
        return Trial(
            point=point,
            latency_s=latency_s,
            latency_se_s=self.noise * latency_s,
            mean_latency_s=latency_s,
            mean_latency_se_s=self.noise * latency_s,
            energy_j=energy_j,
            energy_se_j=self.noise * energy_j,
            power_w=energy_j / latency_s,
            inferences=50,
            items=50,
            duration_s=50 * latency_s,
        )

    def slo_s(self, factor: float) -> float:
        return factor * float(self.latency_s[self.space.fastest])

    def optimum_j(self, slo_s: float) -> float:
        return float(self.energy_j[self.latency_s <= slo_s].min())


def govern(board: Board, policy: BayesianPolicy | RooflinePolicy, budget: int = 12) -> Search:
    search = Search(policy.problem, policy, budget)
    while (proposal := search.next()) is not None:
        search.record(board.measure(proposal.point))
    return search


@pytest.mark.parametrize("factor", [1.1, 1.3, 1.6, 3.0])
def test_twelve_trials_come_near_the_optimum_and_keep_the_slo(factor: float) -> None:
    excess, kept, missing = [], [], []
    for seed in range(8):
        board = Board(seed)
        slo_s = board.slo_s(factor)
        search = govern(board, BayesianPolicy(Problem(SPACE, slo_s, seed)))
        row = SPACE.index(search.choose().point)
        excess.append(board.energy_j[row] / board.optimum_j(slo_s) - 1)
        kept.append(board.latency_s[row] <= slo_s)
        tried = [SPACE.index(trial.point) for trial in search.trials if trial.point]
        missing.append(np.mean(board.latency_s[tried] > slo_s))
    assert np.mean(excess) < 0.02
    assert all(kept)
    assert np.mean(missing) < 0.1


def below(board: Board, share: float) -> Board:
    """The board, at what draws no more than so much of its highest power; no corner is left."""
    power_w = board.energy_j / board.latency_s
    cool = power_w <= share * power_w.max()
    board.space = Space.of_settings(board.space.names, board.space.settings[cool])
    board.latency_s, board.energy_j = board.latency_s[cool], board.energy_j[cool]
    assert not board.space.has_top
    return board


@pytest.mark.parametrize("seed", range(8))
def test_where_the_first_point_may_not_be_the_fastest_another_is_looked_for(seed: int) -> None:
    board = below(Board(seed), 0.5)
    least_s = float(board.latency_s.min())
    slo_s = max(float(np.quantile(board.latency_s, 0.02)), 1.02 * least_s)
    assert slo_s < 0.8 * board.slo_s(1.0)
    search = govern(board, BayesianPolicy(Problem(board.space, slo_s, seed)))
    assert search.choose().feasible
    assert board.latency_s[board.space.index(search.choose().point)] <= slo_s
    assert sum(trial.latency_s > slo_s for trial in search.trials) <= 3
    search = govern(board, BayesianPolicy(Problem(board.space, 0.5 * least_s, seed)))
    assert not search.choose().feasible
    assert len(search.trials) <= 4


def test_a_search_is_the_same_for_the_same_seed() -> None:
    runs = [
        [trial.point for trial in govern(board, BayesianPolicy(Problem(SPACE, 0.03, 7))).trials]
        for board in (Board(3), Board(3))
    ]
    assert runs[0] == runs[1]


def excess_after(trials: int, priors: dict[int, Prior]) -> float:
    """Mean energy above the optimum over boards and SLOs, by the prior of each board."""
    excess = []
    for seed, prior in priors.items():
        for factor in (1.3, 2.0):
            board = Board(seed)
            slo_s = board.slo_s(factor)
            search = govern(board, BayesianPolicy(Problem(SPACE, slo_s, seed, prior)), trials)
            row = SPACE.index(search.choose().point)
            excess.append(board.energy_j[row] / board.optimum_j(slo_s) - 1)
    return float(np.mean(excess))


def test_a_prior_that_knows_the_board_needs_fewer_trials() -> None:
    known = {seed: Prior(Board(seed).parameters, 0.2 * WEAK.sd) for seed in range(8)}
    assert excess_after(3, known) < 0.5 * excess_after(3, dict.fromkeys(range(8), WEAK))


def test_a_wrong_prior_is_dropped_once_the_trials_contradict_it() -> None:
    wrong = {
        seed: Prior(2 * WEAK.mean - Board(seed).parameters, 0.2 * WEAK.sd) for seed in range(3)
    }
    assert excess_after(3, wrong) > 0.01
    assert excess_after(8, wrong) < 0.01


def test_an_slo_that_nothing_keeps_leads_to_the_fastest_point() -> None:
    board = Board(0)
    search = govern(board, BayesianPolicy(Problem(SPACE, board.slo_s(0.5))))
    choice = search.choose()
    assert not choice.feasible
    assert board.latency_s[SPACE.index(choice.point)] < 1.03 * board.latency_s.min()


def test_without_an_slo_the_least_energy_is_searched() -> None:
    board = Board(1)
    search = govern(board, BayesianPolicy(Problem(SPACE, math.inf)))
    row = SPACE.index(search.choose().point)
    assert board.energy_j[row] < 1.03 * board.energy_j.min()


def test_a_search_ends_where_nothing_new_is_safe_and_what_is_held_is_sure() -> None:
    trials, kept = [], []
    for seed in range(10):
        board = Board(seed, noise=0.02)
        # Of the few settings within so narrow a bound, one lies exactly on it.
        slo_s = float(np.min(board.latency_s, where=board.latency_s > board.slo_s(1.08), initial=9))
        policy = BayesianPolicy(Problem(SPACE, slo_s, seed))
        search = govern(board, policy, 25)
        trials.append(len(search.trials))
        kept.append(board.latency_s[SPACE.index(search.choose().point)] <= slo_s)
    assert np.median(trials) < 13
    assert all(kept)


FINE = Space([Knob("gpu_hz", tuple(np.arange(0.855e9, 1.411e9, 15e6).tolist()))])


def test_a_fine_grid_is_searched_wide_before_it_is_searched_close() -> None:
    coarse = set(np.flatnonzero(coarse_lattice(FINE)).tolist())
    for seed in range(4):
        board = Board(seed, FINE, noise=0.02)
        search = govern(board, BayesianPolicy(Problem(FINE, math.inf, seed)), 25)
        tried = [FINE.index(trial.point) for trial in search.trials if trial.point]
        close = next((k for k, row in enumerate(tried) if row not in coarse), len(tried))
        assert close >= 5
        assert max(np.diff(np.sort(tried[:close]))) > 1
        row = FINE.index(search.choose().point)
        assert board.energy_j[row] < 1.02 * board.energy_j.min()


@given(st.lists(st.floats(1e8, 3e9), min_size=1, max_size=60, unique=True))
def test_a_coarse_lattice_leaves_no_level_far_from_its_own(levels: list[float]) -> None:
    space = Space([Knob("gpu_hz", tuple(sorted(levels)))])
    clocks = space.settings[:, 0]
    kept = clocks[coarse_lattice(space)]
    assert clocks.max() in kept
    assert np.all(kept[:-1] <= 0.97 * kept[1:])
    assert all(np.any((kept >= clock) & (0.97 * kept < clock)) for clock in clocks)


def test_steps_as_wide_as_most_boards_have_them_are_all_searched_at_once() -> None:
    assert coarse_lattice(SPACE).all()


def test_a_space_of_one_setting_leaves_nothing_to_ask() -> None:
    space = Space([Knob("gpu_hz", (1e9,))])
    board = Board(0, space)
    policy = BayesianPolicy(Problem(space, board.slo_s(1.2)))
    assert len(govern(board, policy).trials) == 1


def test_a_knob_that_the_roofline_does_not_know_is_searched_all_the_same() -> None:
    space = Space([Knob("power_limit_w", tuple(float(w) for w in range(10, 40, 2)))])
    board = Board(0, space)
    share = space.settings[:, 0] / 38
    board.latency_s, board.energy_j = 0.02 / share**0.5, 1 + 3 * (share - 0.6) ** 2
    search = govern(board, BayesianPolicy(Problem(space, board.slo_s(1.5))))
    row = space.index(search.choose().point)
    assert board.energy_j[row] < 1.02 * board.optimum_j(board.slo_s(1.5))


def test_a_clock_that_the_network_hardly_needs_is_lowered_though_the_prior_says_otherwise() -> None:
    coarse = Space([*SPACE.knobs[:2], Knob("emc_hz", (0.66e9, 2.1e9, 3.2e9))])
    excess = []
    for seed in range(6):
        board = Board(seed, coarse)
        share = dict(zip(PARAMETERS, WEAK.mean.tolist(), strict=True))
        share |= {"memory": -4.5, "compute": -0.2, "emc_power": -1.7, "time_scale": -4.0}
        board.latency_s, board.energy_j = np.exp(
            predict(np.array([list(share.values())]), model_inputs(coarse))[0]
        )
        slo_s = board.slo_s(1.5)
        search = govern(board, BayesianPolicy(Problem(coarse, slo_s, seed)))
        row = coarse.index(search.choose().point)
        excess.append(board.energy_j[row] / board.optimum_j(slo_s) - 1)
    assert max(excess) < 0.02, excess


@pytest.mark.parametrize("spoilt", [1, 2, 4])
@pytest.mark.parametrize(("slower", "dearer"), [(1.5, 1.4), (1.0, 1.5)])
def test_one_spoilt_reading_does_not_mislead_the_search(
    spoilt: int, slower: float, dearer: float
) -> None:
    excess = []
    for seed in range(6):
        board = Board(seed, noise=0.01)
        slo_s = board.slo_s(1.6)
        search = Search(problem := Problem(SPACE, slo_s, seed), BayesianPolicy(problem), 12)
        while (proposal := search.next()) is not None:
            trial = board.measure(proposal.point)
            if len(search.trials) == spoilt:
                trial = dataclasses.replace(
                    trial,
                    latency_s=slower * trial.latency_s,
                    mean_latency_s=slower * trial.mean_latency_s,
                    energy_j=dearer * trial.energy_j,
                    power_w=dearer / slower * trial.power_w,
                )
            search.record(trial)
        row = SPACE.index(search.choose().point)
        assert board.latency_s[row] <= slo_s
        excess.append(board.energy_j[row] / board.optimum_j(slo_s) - 1)
    assert np.mean(excess) < 0.03


@pytest.mark.parametrize(("share", "factor"), [(0.5, 2.0), (0.6, 2.0)])
def test_where_two_knobs_together_do_not_do_what_they_say_the_search_looks_elsewhere(
    share: float, factor: float
) -> None:
    """With few cores and a middling memory clock, the GPU stays at its highest."""
    space = Space(
        [
            Knob("cpu_cores", (4, 8, 12)),
            Knob("cpu_hz", tuple(np.linspace(0.4e9, 2e9, 5).tolist())),
            Knob("gpu_hz", tuple(np.linspace(0.2e9, 1.3e9, 7).tolist())),
            Knob("emc_hz", (0.8e9, 1.6e9, 3.2e9)),
        ]
    )
    keepable = 0
    for seed in range(8):
        board = Board(seed, space)
        for row in np.flatnonzero((space.settings[:, [0, 3]] == (4, 1.6e9)).all(axis=1)):
            real = space.index(OperatingPoint(dict(space.point(row)) | {"gpu_hz": 1.3e9}))
            board.latency_s[row], board.energy_j[row] = board.latency_s[real], board.energy_j[real]
        power_w, slo_s = board.energy_j / board.latency_s, board.slo_s(factor)
        cap_w = share * float(power_w[space.fastest])
        keeps = (power_w <= cap_w) & (board.latency_s <= slo_s)
        if np.any(keeps):
            problem = Problem(space, slo_s, seed, objective=Objective(power_cap_w=cap_w))
            chosen = govern(board, BayesianPolicy(problem)).choose()
            assert keeps[space.index(chosen.point)], seed
            keepable += 1
    assert keepable >= 6


def test_a_policy_refuses_a_trial_without_a_point() -> None:
    board = Board(0)
    baseline = dataclasses.replace(board.measure(SPACE.point(0)), point=None)
    with pytest.raises(PolicyError, match="without an operating point"):
        BayesianPolicy(Problem(SPACE, 1.0)).tell(baseline)


def test_belief_is_surest_where_a_trial_was_made() -> None:
    board, surrogate = Board(2), Surrogate(SPACE)
    for row in (SPACE.fastest, 40, 90):
        surrogate.tell(board.measure(SPACE.point(row)))
    belief = surrogate.believe()
    for output, truth in ((TIME, board.latency_s), (ENERGY, board.energy_j)):
        assert belief.sd[output, 40] < np.median(belief.sd[output])
        assert belief.mean[output, 40] == pytest.approx(math.log(truth[40]), abs=0.02)


def test_belief_is_calibrated() -> None:
    z = []
    for seed in range(10):
        board, surrogate = Board(seed), Surrogate(SPACE)
        rows = np.random.default_rng(seed).choice(len(SPACE), 6, replace=False)
        for row in (SPACE.fastest, *rows.tolist()):
            surrogate.tell(board.measure(SPACE.point(row)))
        belief = surrogate.believe()
        truth = np.log((board.latency_s, board.energy_j))
        z.append((truth - belief.mean) / belief.sd)
    assert 0.2 < np.sqrt(np.mean(np.square(z))) < 1.3


def test_the_posterior_covariance_agrees_with_the_standard_deviations() -> None:
    board, surrogate = Board(4), Surrogate(SPACE)
    for row in (SPACE.fastest, 10, 77):
        surrogate.tell(board.measure(SPACE.point(row)))
    belief = surrogate.believe()
    rows = np.arange(0, len(SPACE), 9)
    covariance = belief.covariance(rows, rows)
    for output in (TIME, ENERGY):
        variance = np.diagonal(covariance[output, output])
        np.testing.assert_allclose(np.sqrt(variance), belief.sd[output, rows], rtol=1e-5)


def test_a_second_look_at_a_noisy_point_makes_it_surer() -> None:
    board, surrogate = Board(5, noise=0.03), Surrogate(SPACE)
    surrogate.tell(board.measure(SPACE.point(SPACE.fastest)))
    surrogate.tell(board.measure(SPACE.point(50)))
    once = surrogate.believe().sd[TIME, 50]
    surrogate.tell(board.measure(SPACE.point(50)))
    assert surrogate.believe().sd[TIME, 50] < once


def test_an_input_that_comes_at_a_rate_moves_the_optimum_to_slower_clocks() -> None:
    guesses = []
    for waits in (1.0, 20.0):
        surrogate = Surrogate(SPACE)
        trial = Board(6).measure(SPACE.point(SPACE.fastest))
        surrogate.tell(dataclasses.replace(trial, duration_s=waits * trial.duration_s))
        guesses.append(np.argmin(surrogate.believe().mean[ENERGY]))
    assert SPACE.normalised[guesses[1]].prod() < SPACE.normalised[guesses[0]].prod()


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(-1, 1))
def test_expected_improvement_is_positive_and_at_least_the_plain_one(
    mean: float, sd: float, best: float
) -> None:
    gain = expected_improvement(np.array([mean]), np.array([sd]), best)[0]
    assert gain >= max(best - mean, 0) - 1e-12


def test_the_chance_of_keeping_the_slo_is_a_half_at_the_slo() -> None:
    assert p_safe(np.array([0.3]), np.array([0.1]), 0.3)[0] == pytest.approx(0.5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 100))
def test_no_trial_teaches_less_than_nothing(seed: int) -> None:
    board, surrogate = Board(seed), Surrogate(SPACE)
    surrogate.tell(board.measure(SPACE.point(SPACE.fastest)))
    belief = surrogate.believe()
    rows = np.arange(0, len(SPACE), 7)
    noise = np.full(2, 1e-4)
    best = float(belief.mean[ENERGY, SPACE.fastest])
    outlook = Outlook(Problem(SPACE, board.slo_s(1.5)), belief, surrogate)
    assert np.all(knowledge_gradient(outlook, rows, rows, noise, best) >= 0)


def test_the_roofline_policy_needs_few_trials_where_the_physics_is_all_there_is() -> None:
    board = Board(3)
    slo_s = board.slo_s(1.5)
    search = govern(board, RooflinePolicy(Problem(SPACE, slo_s)))
    row = SPACE.index(search.choose().point)
    assert board.energy_j[row] < 1.05 * board.optimum_j(slo_s)
    assert board.latency_s[row] <= slo_s


def test_the_roofline_policy_looks_elsewhere_before_it_settles_for_all_max() -> None:
    space = Space([Knob("cpu_hz", tuple(np.linspace(0.4e9, 2e9, 9).tolist()))])
    board = Board(0, space)
    share = space.normalised[:, 0]
    board.latency_s, board.energy_j = 0.02 + 0.002 / share, 0.3 + share**3
    search = govern(board, RooflinePolicy(Problem(space, board.slo_s(1.5))))
    assert len(search.trials) >= 3
    row = space.index(search.choose().point)
    assert board.energy_j[row] < 1.1 * board.optimum_j(board.slo_s(1.5))
