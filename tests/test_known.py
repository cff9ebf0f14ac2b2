"""Whether a choice is better than the system's own governors: by how much, and how surely."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.known import MOST_LOOKS, Known
from governor.objective import ENERGY, Objective
from governor.space import OperatingPoint
from governor.trial import Trial

POINT = OperatingPoint({"gpu_hz": 5e8})
EDP = Objective(1.0, 1.0)
SLO_S = 0.04


def known(objective: Objective = ENERGY) -> Known:
    return Known(OperatingPoint({"gpu_hz": 1e9}), SLO_S, objective)


def window(energy_j: float, error: float = 0.01, latency_s: float = 0.02) -> Trial:
    """``error``: of the energy, as a share of it."""
    return Trial(
        point=POINT,
        latency_s=latency_s,
        latency_se_s=0.0001,
        mean_latency_s=latency_s,
        mean_latency_se_s=0.0001,
        energy_j=energy_j,
        energy_se_j=error * energy_j,
        power_w=energy_j / latency_s,
        inferences=100,
        items=100,
        duration_s=2.0,
    )


def baseline(energy_j: float = 1.0, error: float = 0.01, latency_s: float = 0.02) -> Trial:
    return replace(window(energy_j, error, latency_s), point=None)


@pytest.mark.parametrize(
    ("energy_j", "error", "better"),
    [
        (0.95, 0.01, True),
        (0.98, 0.01, None),
        (0.98, 0.002, True),
        (1.0, 0.01, None),
        (1.02, 0.01, None),
        (1.05, 0.01, False),
        (1.001, 0.001, False),  # what may be saved at best is too small
    ],
)
def test_what_is_within_the_errors_is_undecided(
    energy_j: float, error: float, better: bool | None
) -> None:
    assert known().weigh(window(energy_j, error), baseline(error=error)) is better


def test_the_objective_decides_not_energy_alone() -> None:
    slower = window(0.9, 0.002, latency_s=0.024)
    assert known().weigh(slower, baseline(error=0.002)) is True
    assert known(EDP).weigh(slower, baseline(error=0.002)) is False


def test_looks_add_up_until_they_tell() -> None:
    judge = known()
    assert judge.weigh(window(0.985), baseline()) is None
    assert judge.weigh(window(0.985), baseline()) is None
    assert judge.weigh(window(0.985), baseline()) is None
    assert judge.weigh(window(0.95), baseline()) is True


def test_a_precise_look_outweighs_a_short_one() -> None:
    judge = known()
    assert judge.weigh(window(1.02), baseline()) is None
    assert judge.weigh(window(0.98, 0.002), baseline(error=0.002)) is True


def test_each_choice_has_looks_of_its_own() -> None:
    judge = known()
    assert judge.weigh(window(0.98, 0.002), baseline(error=0.002)) is True
    other = replace(window(0.98), point=OperatingPoint({"gpu_hz": 6e8}))
    assert judge.weigh(other, baseline()) is None


def test_what_may_not_keep_the_slo_is_no_choice_however_cheap() -> None:
    assert known().weigh(window(0.5, latency_s=0.041), baseline()) is False
    assert known().weigh(window(0.99, latency_s=0.041), baseline()) is False


def test_governors_that_may_not_keep_the_slo_are_no_rival() -> None:
    assert known().weigh(window(2.0), baseline(latency_s=0.041)) is True
    judge = known()
    judge.reject(None)
    assert judge.weigh(window(2.0), baseline()) is True


@given(st.floats(0.9, 1.1), st.floats(0.0, 0.2), st.sampled_from([ENERGY, EDP]))
def test_looking_ends(energy_j: float, error: float, objective: Objective) -> None:
    judge = known(objective)
    verdicts = [judge.weigh(window(energy_j, error), baseline(error=error))]
    while verdicts[-1] is None:
        verdicts.append(judge.weigh(window(energy_j, error), baseline(error=error)))
    assert len(verdicts) <= 1 + MOST_LOOKS
    assert not (verdicts[-1] and energy_j >= 1.0)
