"""Windows of inferences, and telling a pause from a wait."""

from __future__ import annotations

import pytest

from governor.devices.device import DeviceInfo, Sample
from governor.drift import Cusum
from governor.meter import Meter
from governor.trial import MAIN, Span
from governor.window import Arrivals, Window

INFO = DeviceInfo(
    name="toy",
    description="toy",
    emulated=True,
    total_rail="total",
    sensor_refresh_s=0.1,
    settle_s=0.0,
)


def steady_meter(watts=10.0, seconds=10.0):
    meter = Meter(INFO)
    for step in range(round(seconds * 10) + 1):
        meter.add(Sample(time_s=step / 10, power_w={"total": watts}))
    return meter


def filled(spans, start_s=0.0, **kwargs):
    window = Window(None, start_s, {MAIN: 0.95}, **kwargs)
    for span in spans:
        window.add(span)
    return window


def test_an_inference_that_began_before_the_point_was_in_force_does_not_count():
    window = Window(None, 1.0, {MAIN: 0.95})
    assert not window.add(Span(0.99, 1.02))
    assert window.add(Span(1.02, 1.05))
    assert len(window) == 1


def test_energy_of_a_camera_includes_the_wait_between_frames():
    frames = [Span(k / 30, k / 30 + 0.010) for k in range(120)]
    trial = filled(frames).trial(steady_meter())
    assert trial.energy_j == pytest.approx(10.0 / 30, rel=0.01)
    assert trial.latency_s == pytest.approx(0.010)


def test_energy_is_an_item_not_a_batch():
    batches = [Span(k * 0.1, k * 0.1 + 0.1, 4) for k in range(40)]
    trial = filled(batches).trial(steady_meter())
    assert trial.energy_j == pytest.approx(10.0 * 0.1 / 4, rel=0.01)
    assert trial.items == 160


def test_the_first_inferences_can_be_left_out():
    window = filled([Span(0.0, 5.0), Span(5.0, 5.1), Span(5.1, 5.2)], skip=1)
    assert window.latencies_s().max() == pytest.approx(0.1)


@pytest.mark.parametrize("first", [Span(0.0, 5.0), Span(4.9, 5.0)])
def test_power_while_a_model_loads_is_not_that_of_inference(first):
    """In the first inference, or before it in the block."""
    meter = Meter(INFO)
    for step in range(100):
        meter.add(Sample(time_s=step / 10, power_w={"total": 2.0 if step <= 50 else 10.0}))
    spans = [first, *(Span(5.0 + k / 30, 5.0 + (k + 1) / 30) for k in range(120))]
    trial = filled(spans, skip=1).trial(meter)
    assert trial.power_w == pytest.approx(10.0)
    assert trial.energy_j == pytest.approx(10.0 / 30)


def test_a_throttle_counter_that_moves_marks_the_window():
    window = Window(None, 0.0, {MAIN: 0.95})
    window.watch_throttling({"thermal": 3})
    assert not window.throttled
    window.watch_throttling({"thermal": 4})
    assert window.throttled
    assert not window.again(1.0).throttled


def test_three_inferences_far_over_the_bound_are_plain():
    assert filled([Span(k, k + 0.2) for k in range(3)]).plainly_violates(0.1)
    assert not filled([Span(k, k + 0.11) for k in range(3)]).plainly_violates(0.1)


def test_a_window_of_one_inference_has_a_trial_that_admits_it_knows_little():
    trial = filled([Span(0.0, 0.1)]).trial(steady_meter())
    assert trial.energy_se_j >= trial.energy_j


def test_a_slow_camera_is_no_stalled_input():
    arrivals = Arrivals(2.0)
    stalls = [arrivals.add(Span(10.0 * k, 10.0 * k + 0.1)) for k in range(12)]
    assert not any(stalls[4:])
    assert not arrivals.stalled(12 * 10.0 + 20.0)


def test_a_pause_of_a_fast_loop_is_a_stalled_input():
    arrivals = Arrivals(2.0)
    for k in range(20):
        arrivals.add(Span(0.05 * k, 0.05 * k + 0.04))
    assert not arrivals.stalled(2.5)
    assert arrivals.stalled(3.1)


def test_drift_of_ten_percent_is_called_in_three_windows():
    cusum = Cusum(tolerance=0.02)
    assert any(cusum.add(0.10, 0.015) for _ in range(3))


def test_one_wild_window_is_no_drift():
    cusum = Cusum(tolerance=0.02)
    assert not cusum.add(3.0, 0.01)
    assert not any(cusum.add(0.0, 0.01) for _ in range(50))


def test_a_change_within_the_tolerance_never_is_drift():
    cusum = Cusum(tolerance=0.04)
    assert not any(cusum.add(0.039, 0.01) for _ in range(10_000))


def test_what_a_point_itself_draws_is_no_throttling_but_heat_is():
    window = Window(None, 0.0, {MAIN: 0.95}, throttle_events={"over_current": 5, "thermal": 0})
    window.watch_throttling({"over_current": 90, "thermal": 0})
    assert not window.throttled
    window.watch_throttling({"over_current": 99, "thermal": 1})
    assert window.throttled
