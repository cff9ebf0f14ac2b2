"""The time and energy roofline, and its fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.roofline.energy import squared_voltage
from governor.roofline.fit import (
    PARAMETERS,
    WEAK,
    Observations,
    fit,
    predict,
    tangent,
)
from governor.roofline.knobs import PERIOD, model_inputs, other_knobs
from governor.space import Knob, Space

SPACE = Space(
    [
        Knob("cpu_hz", tuple(np.linspace(0.4e9, 2e9, 5).tolist())),
        Knob("gpu_hz", tuple(np.linspace(0.2e9, 1.3e9, 8).tolist())),
        Knob("emc_hz", (0.8e9, 1.6e9, 3.2e9)),
    ]
)
INPUTS = model_inputs(SPACE)

parameter_vectors = st.lists(
    st.floats(-2, 2), min_size=len(PARAMETERS), max_size=len(PARAMETERS)
).map(lambda z: WEAK.mean + WEAK.sd * np.array(z))


@given(parameter_vectors, st.sampled_from(["cpu_hz", "gpu_hz", "emc_hz"]))
def test_no_inference_gets_slower_by_a_higher_clock(parameters: np.ndarray, knob: str) -> None:
    time = predict(parameters[None], INPUTS)[0, 0].reshape(5, 8, 3)
    axis = ["cpu_hz", "gpu_hz", "emc_hz"].index(knob)
    assert np.all(np.diff(time, axis=axis) <= 1e-9)


@given(parameter_vectors)
def test_halving_every_clock_never_more_than_doubles_the_time(parameters: np.ndarray) -> None:
    halved = INPUTS.copy()
    halved[:, :3] /= 2
    full, half = predict(parameters[None], INPUTS)[0, 0], predict(parameters[None], halved)[0, 0]
    assert np.all(half - full <= np.log(2) + 1e-9)


@given(parameter_vectors)
def test_all_max_is_the_unit_of_time_and_energy(parameters: np.ndarray) -> None:
    at_all_max = predict(parameters[None], INPUTS)[0, :, SPACE.fastest]
    np.testing.assert_allclose(at_all_max, parameters[-2:], atol=1e-9)


def test_the_voltage_has_a_floor_and_then_rises_to_one() -> None:
    clocks = np.linspace(0.1, 1, 91)
    v2 = squared_voltage(clocks, np.zeros((1, 1)), np.full((1, 1), -1.0))[0]
    assert v2[-1] == pytest.approx(1)
    assert np.ptp(v2[clocks < 0.45]) < 0.01
    assert np.all(np.diff(v2[clocks > 0.65]) > 0)


def test_a_larger_batch_costs_less_energy_an_item_and_more_time() -> None:
    space = Space([Knob("gpu_hz", (1e9,)), Knob("batch_size", (1.0, 2.0, 4.0, 8.0))])
    time, energy = predict(WEAK.mean[None], model_inputs(space))[0]
    assert np.all(np.diff(time) > 0)
    assert np.all(np.diff(energy) < 0)


def test_waiting_for_input_takes_energy_that_slower_clocks_save() -> None:
    waiting = INPUTS.copy()
    waiting[:, PERIOD] = 20.0
    busy, idle = (predict(WEAK.mean[None], inputs)[0, 1] for inputs in (INPUTS, waiting))
    assert np.all(idle > busy)
    assert np.argmin(idle) < np.argmin(busy)


def test_the_fit_recovers_what_made_the_trials() -> None:
    rng = np.random.default_rng(1)
    truth = WEAK.mean + 0.7 * WEAK.sd * rng.standard_normal(len(PARAMETERS))
    values = predict(truth[None], INPUTS)[0]
    rows = rng.choice(len(SPACE), 40, replace=False)
    covariance = np.stack([1e-6 * np.eye(40)] * 2)
    fitted = fit(Observations(INPUTS[rows], values[:, rows], covariance))
    np.testing.assert_allclose(predict(fitted[None], INPUTS)[0], values, atol=0.02)


def test_without_trials_of_their_own_the_coefficients_stay_at_the_prior() -> None:
    covariance = np.full((2, 1, 1), 1e-4)
    observations = Observations(INPUTS[[SPACE.fastest]], np.zeros((2, 1)), covariance)
    np.testing.assert_allclose(fit(observations), WEAK.mean, atol=1e-3)


def test_the_tangent_is_the_derivative_per_prior_standard_deviation() -> None:
    values, slopes = tangent(WEAK.mean, INPUTS)
    move = 0.01 * np.random.default_rng(0).standard_normal(len(PARAMETERS))
    moved = predict((WEAK.mean + WEAK.sd * move)[None], INPUTS)[0]
    np.testing.assert_allclose(values + slopes @ move, moved, atol=2e-3)


def test_knobs_without_a_formula_are_told_apart() -> None:
    space = Space([Knob("gpu_hz", (1e8, 2e8)), Knob("power_limit_w", (10.0, 20.0))])
    assert np.all(model_inputs(space)[:, 0] == 1)
    np.testing.assert_allclose(other_knobs(space).ravel(), [0.5, 1, 0.5, 1])
