"""The statistics of keeping a latency bound."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import InputError
from governor.slo import (
    BURST,
    BurnGuard,
    LatencySLO,
    confidence_of_keeping,
    design_effect,
    mean_estimate,
    p_keeps,
    percentile_estimate,
    plainly_over_budget,
)
from governor.trial import Trial

ROOT = Path(__file__).parents[1]
TRIAL = Trial(
    point=None,
    latency_s=0.040,
    latency_se_s=0.001,
    mean_latency_s=0.035,
    mean_latency_se_s=0.001,
    energy_j=1.0,
    energy_se_j=0.01,
    power_w=20.0,
    inferences=50,
    items=50,
    duration_s=2.0,
)


def test_an_slo_reads_as_people_say_it():
    assert str(LatencySLO.parse("50ms")) == "p95 <= 50 ms"
    assert str(LatencySLO.parse("1.3x", 0.99)) == "p99 <= 1.3x"


@pytest.mark.parametrize("percentile", [0.0, 1.0, 95, -0.1, math.nan])
def test_a_percentile_that_is_no_share_is_refused(percentile):
    with pytest.raises(InputError, match="share between 0 and 1"):
        LatencySLO.parse("50ms", percentile)


def test_independent_draws_have_a_design_effect_near_one():
    draws = np.random.default_rng(0).normal(size=2000)
    assert design_effect(draws) < 1.3


def test_bursts_have_a_large_design_effect():
    draws = np.repeat(np.random.default_rng(0).normal(size=200), 10)
    assert 6 < design_effect(draws) < 16


def test_jitter_that_cancels_makes_the_mean_interval_exact():
    jitter = np.random.default_rng(1).normal(scale=0.005, size=301)
    intervals = 0.033 + np.diff(jitter)
    naive = intervals.std(ddof=1) / math.sqrt(len(intervals))
    assert mean_estimate(intervals).se < naive / 3


def test_bursts_widen_the_error_of_a_mean():
    draws = np.repeat(np.random.default_rng(2).normal(1.0, 0.1, size=30), 10)
    naive = draws.std(ddof=1) / math.sqrt(len(draws))
    assert mean_estimate(draws).se > 1.5 * naive


def _coverage(draw, truth, count):
    inside = 0
    for seed in range(300):
        estimate = percentile_estimate(draw(np.random.default_rng(seed), count), 0.95)
        inside += abs(estimate.value - truth) <= 2 * estimate.se
    return inside / 300


@pytest.mark.parametrize("count", [10, 20, 60, 300])
def test_two_standard_errors_cover_the_true_percentile_of_a_tailed_latency(count):
    truth = 0.020 + 0.002 * math.log(20)
    coverage = _coverage(lambda rng, n: 0.020 + rng.exponential(0.002, n), truth, count)
    assert coverage > 0.88


def test_two_standard_errors_cover_the_true_percentile_of_a_bursty_latency():
    def bursty(rng, n):
        slow = np.repeat(rng.random(n // 4 + 1) < 0.10, 4)[:n]
        return 0.020 + rng.normal(0, 0.0005, n) + 0.010 * slow

    # one in ten is 10 ms slower: the p95 is the median of the slow mode
    assert _coverage(bursty, 0.030, 200) > 0.88


@given(
    st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_a_percentile_lies_within_the_sample_or_its_tail_and_has_an_error(latencies, share):
    values = np.array(latencies)
    estimate = percentile_estimate(values, share)
    assert values.min() <= estimate.value <= 20 * values.max()
    assert estimate.se > 0


def test_the_probability_of_keeping_the_slo_follows_the_margin():
    assert p_keeps(TRIAL, 0.050) > 0.999
    assert p_keeps(TRIAL, 0.040) == pytest.approx(0.5)
    assert p_keeps(TRIAL, 0.030) < 0.001
    assert p_keeps(TRIAL, math.inf) == 1.0
    assert p_keeps(replace(TRIAL, latency_se_s=0.0), 0.040) == 1.0


def test_all_of_five_missing_is_plain_and_two_of_forty_are_not():
    assert plainly_over_budget(5, 5, 0.05, BURST, 1e-3)
    assert not plainly_over_budget(2, 40, 0.05, BURST, 1e-3)
    assert not plainly_over_budget(0, 0, 0.05, BURST, 1e-3)


@given(st.integers(0, 200), st.integers(1, 200))
def test_more_misses_are_never_less_plain(misses, inferences):
    misses = min(misses, inferences - 1)
    if plainly_over_budget(misses, inferences, 0.05, BURST, 1e-3):
        assert plainly_over_budget(misses + 1, inferences, 0.05, BURST, 1e-3)


def test_the_guard_sees_a_collapse_within_a_dozen_inferences():
    guard = BurnGuard(0.05)
    guard.add([False] * 300)
    assert not guard.burning
    seen = []
    for _ in range(12):
        guard.add([True])
        seen.append(guard.burning)
    assert True in seen


def test_the_guard_sees_a_slow_burn():
    random.seed(0)
    guard = BurnGuard(0.05)
    guard.add(random.random() < 0.15 for _ in range(1600))
    assert guard.burning


def test_the_guard_is_quiet_for_hours_at_a_point_that_just_keeps_the_slo():
    random.seed(1)
    guard = BurnGuard(0.05)
    alarms = 0
    for _ in range(20_000):
        guard.add(random.random() < 0.04 for _ in range(5))
        alarms += guard.burning
    assert alarms == 0


def test_the_guard_learns_that_misses_come_in_bursts():
    random.seed(2)
    guard = BurnGuard(0.05)
    alarms, burst = 0, 0
    for _ in range(50_000):
        if not burst and random.random() < 0.004:
            burst = 8  # 3.1 % of all, eight in a row
        guard.add([burst > 0])
        burst = max(burst - 1, 0)
        alarms += guard.burning
    assert guard.effect > 2 * BURST
    assert alarms <= 2


def looks(guard, share, inferences, rng):
    """Show the guard inferences of which such a share misses; how many until it speaks."""
    for seen in range(1, inferences + 1):
        guard.add([rng.random() < share])
        if guard.burning:
            return seen
    return None


@pytest.mark.parametrize(("share", "within"), [(1.0, 10), (0.5, 60), (0.25, 500), (0.15, 2000)])
def test_the_more_inferences_miss_the_sooner_the_guard_speaks(share, within):
    for seed in range(6):
        guard = BurnGuard(0.05)
        guard.add([False] * 1600)
        assert looks(guard, share, within, random.Random(seed)) is not None


def test_half_the_inferences_missing_does_not_pass_for_a_burst():
    guard = BurnGuard(0.05)
    guard.add([False] * 500)
    looks(guard, 0.35, 90, random.Random(4))
    assert guard.effect == BURST


def test_a_burn_so_slow_that_only_a_long_look_back_tells_is_seen():
    rng = random.Random(5)
    guard = BurnGuard(0.05)
    first = looks(guard, 0.065, 30_000, rng)
    assert first is not None
    assert first > 3000


def test_the_guard_speaks_before_the_alerts_on_burn_rates_would():
    """They page at a burn rate of 14.4 for over two minutes, and open a ticket at 6."""
    rules = (ROOT / "deploy" / "prometheus" / "governor.rules.yml").read_text()
    rates = {float(rate) for rate in re.findall(r"slo_burn_rate:ratio_rate\w+ > ([\d.]+)", rules)}
    assert rates == {14.4, 6.0, 1.0}
    for rate in rates - {1.0}:
        spoke = looks(BurnGuard(0.05), 0.05 * rate, 2 * 60 * 20, random.Random(6))
        assert spoke is not None
        assert spoke < 120  # six seconds at 20 Hz


@pytest.mark.parametrize(("inferences", "confidence"), [(20, 0.642), (58, 0.949), (59, 0.952)])
def test_without_a_miss_confidence_is_that_of_the_rule_of_fifty_nine(inferences, confidence):
    assert confidence_of_keeping(0, inferences, 0.05, 1.0) == pytest.approx(confidence, abs=1e-3)


def test_bursts_make_a_sample_worth_less():
    assert confidence_of_keeping(0, 118, 0.05, 2.0) == confidence_of_keeping(0, 59, 0.05, 1.0)
    assert confidence_of_keeping(8, 400, 0.05, 4.0) < confidence_of_keeping(8, 400, 0.05, 1.0)


@pytest.mark.parametrize("inferences", [30, 100, 400])
def test_the_confidence_errs_no_more_often_than_it_says(inferences):
    rng = np.random.default_rng(7)
    misses = rng.binomial(inferences, 0.0501, 2000)  # a point that just does not keep it
    sure = [confidence_of_keeping(int(m), inferences, 0.05, 1.0) >= 0.9 for m in misses]
    assert np.mean(sure) <= 0.11


@given(st.integers(0, 400), st.integers(0, 26_000), st.floats(1.0, 8.0))
def test_confidence_is_a_share_and_falls_with_every_miss(misses, inferences, effect):
    confidence = confidence_of_keeping(misses, inferences, 0.05, effect)
    assert 0.0 <= confidence <= 1.0
    assert confidence_of_keeping(misses + 1, inferences, 0.05, effect) <= confidence + 1e-9


def test_the_guard_tells_its_burn_rate_over_all_it_remembers():
    guard = BurnGuard(0.05)
    assert math.isnan(guard.burn_rate)
    assert guard.confidence == 0.0
    guard.add(number % 40 == 0 for number in range(4000))
    assert guard.burn_rate == pytest.approx(0.5)
    assert guard.confidence > 0.99
    guard.add([True] * 4000)
    assert guard.burn_rate == pytest.approx(20 * 4100 / 8000, rel=0.02)
    assert guard.confidence < 1e-9
