"""Joules with an honest error, from a sensor that refreshes slowly and may fail."""

from __future__ import annotations

import math
import random

import pytest

from governor.devices.device import DeviceInfo, Sample
from governor.meter import STALE, Meter

INFO = DeviceInfo(
    name="toy",
    description="toy",
    emulated=True,
    total_rail="total",
    sensor_refresh_s=0.4,
    settle_s=0.0,
)


def polled(watts_at, seconds, poll_s=0.1, noise=0.0, seed=0):
    """A meter fed by a sensor that averages over its refresh and repeats itself."""
    meter, rng = Meter(INFO), random.Random(seed)
    shown, refreshed = watts_at(0.0), 0
    for step in range(round(seconds / poll_s) + 1):
        now = step * poll_s
        while (refreshed + 1) * 0.4 <= now + 1e-9:
            refreshed += 1
            middle = (refreshed - 0.5) * 0.4
            shown = watts_at(middle) * rng.gauss(1.0, noise)
        meter.add(Sample(time_s=now, power_w={"total": shown, "gpu": 1.0}))
    return meter


def test_steady_power_is_read_as_it_is():
    power = polled(lambda _t: 20.0, 4.0).power(0.0, 4.0)
    assert power.value == pytest.approx(20.0)


def test_repeated_readings_are_no_new_information():
    slow = polled(lambda _t: 20.0, 4.0, poll_s=0.4, noise=0.02).power(0.0, 4.0)
    fast = polled(lambda _t: 20.0, 4.0, poll_s=0.02, noise=0.02).power(0.0, 4.0)
    assert fast.se == pytest.approx(slow.se, rel=0.2)
    assert fast.value == pytest.approx(slow.value, rel=0.02)


def test_the_reading_that_straddles_a_change_is_left_out():
    meter = polled(lambda t: 40.0 if t < 2.2 else 10.0, 5.0)
    assert meter.power(2.2, 5.0).value == pytest.approx(10.0)


def test_two_standard_errors_cover_the_truth_even_with_three_readings():
    inside = 0
    for seed in range(300):
        power = polled(lambda _t: 20.0, 1.8, noise=0.015, seed=seed).power(0.0, 1.8)
        inside += abs(power.value - 20.0) <= 2 * power.se
    assert inside / 300 > 0.9


def test_without_a_reading_inside_the_last_one_is_only_a_guess():
    meter = polled(lambda _t: 20.0, 1.0)
    power = meter.power(1.0, 1.1)
    assert power.relative_se == pytest.approx(STALE)


def test_a_meter_that_never_read_anything_knows_nothing():
    assert math.isnan(Meter(INFO).power(0.0, 1.0).value)


def test_a_rail_that_fails_leaves_the_readings_before_it():
    meter = polled(lambda _t: 20.0, 2.0)
    meter.add(Sample(time_s=2.1, power_w={"gpu": 1.0}))
    meter.add(Sample(time_s=2.2, power_w={"total": math.nan}))
    assert meter.power(0.0, 2.2).value == pytest.approx(20.0)


def test_an_energy_counter_beats_the_power_readings():
    meter = Meter(INFO)
    for step in range(41):
        now = step * 0.1
        counted = 12.0 * math.floor(now / 0.02 + 1e-9) * 0.02
        meter.add(Sample(time_s=now, power_w={"total": 99.0}, energy_j=counted))
    power = meter.power(0.0, 4.0)
    assert power.value == pytest.approx(12.0, rel=0.01)
    assert power.relative_se < 0.02
    assert meter.total_j == pytest.approx(48.0, rel=0.01)


def test_a_counter_slower_than_the_polls_is_known_within_its_stated_error():
    inside = 0
    for seed in range(200):
        rng, meter = random.Random(seed), Meter(INFO)
        now = rng.uniform(0.0, 0.4)
        while now < 3.0:
            counted = 12.0 * 0.4 * math.floor(now / 0.4)
            meter.add(Sample(time_s=now, power_w={}, energy_j=counted))
            now += rng.uniform(0.05, 0.1)
        power = meter.power(0.0, 3.0)
        inside += abs(power.value - 12.0) <= 2 * power.se
    assert inside / 200 > 0.93


def test_a_counter_that_was_reset_is_not_believed():
    meter = Meter(INFO)
    for step in range(41):
        counted = 100.0 + step if step < 20 else float(step - 20)
        meter.add(Sample(time_s=step * 0.1, power_w={"total": 10.0}, energy_j=counted))
    assert meter.power(0.0, 4.0).value == pytest.approx(10.0)
    assert meter.total_j == pytest.approx(39.0, abs=1.5)


def test_total_joules_add_up():
    assert polled(lambda _t: 20.0, 5.0).total_j == pytest.approx(100.0)


def test_it_knows_whether_anything_fresh_was_read():
    meter = polled(lambda _t: 20.0, 2.0)
    assert meter.has_read_since(1.0)
    assert not meter.has_read_since(2.5)
