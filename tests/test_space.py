"""Knobs, operating points and the lattice of settings."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import InputError
from governor.space import MAX_SETTINGS, Knob, OperatingPoint, Space

CPU = Knob("cpu_hz", (0.5e9, 1e9, 2e9))
GPU = Knob("gpu_hz", (0.3e9, 0.9e9))
SPACE = Space([CPU, GPU])

knobs = st.lists(
    st.tuples(
        st.sampled_from(["cpu_hz", "gpu_hz", "emc_hz", "cpu_cores", "batch_size"]),
        st.lists(st.floats(1, 1e9), min_size=1, max_size=4, unique=True).map(sorted),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda knob: knob[0],
).map(lambda drawn: [Knob(name, tuple(levels)) for name, levels in drawn])


@given(knobs)
def test_every_setting_is_found_again_by_its_point(drawn: list[Knob]) -> None:
    space = Space(drawn)
    assert len(space) == np.prod([len(knob.levels) for knob in drawn])
    assert [space.index(space.point(row)) for row in range(len(space))] == list(range(len(space)))


@given(knobs)
def test_nothing_is_faster_than_the_all_max_corner(drawn: list[Knob]) -> None:
    space = Space(drawn)
    corner = space.point(space.fastest)
    assert space.has_top
    for knob in drawn:
        assert corner[knob.name] == (min if knob.name == "batch_size" else max)(knob.levels)


def test_with_holes_the_corner_is_the_largest_product_of_normalised_knobs() -> None:
    space = Space.of_settings(["cpu_hz", "gpu_hz"], np.array([[2e9, 0.3e9], [1e9, 0.9e9]]))
    assert space.point(space.fastest) == OperatingPoint({"cpu_hz": 1e9, "gpu_hz": 0.9e9})
    assert not space.has_top


def test_a_point_that_lacks_a_knob_or_has_another_level_is_not_in_the_space() -> None:
    assert OperatingPoint({"cpu_hz": 1e9}) not in SPACE
    off = OperatingPoint({"cpu_hz": 1.1e9, "gpu_hz": 0.9e9})
    assert off not in SPACE
    with pytest.raises(InputError, match="not one of the 6 allowed settings"):
        SPACE.index(off)


def test_the_order_in_which_a_point_names_its_knobs_does_not_matter() -> None:
    point = OperatingPoint({"gpu_hz": 0.9e9, "cpu_hz": 1e9})
    assert SPACE.point(SPACE.index(point)) == point


def test_limits_keep_what_lies_within_their_ends() -> None:
    limited = SPACE.limited({"cpu_hz": (0.6e9, None), "gpu_hz": (None, 0.3e9)})
    assert limited.settings.tolist() == [[1e9, 0.3e9], [2e9, 0.3e9]]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"dla_hz": (None, None)}, "unknown knob 'dla_hz'; this device has cpu_hz, gpu_hz"),
        ({"gpu_hz": (1e9, None)}, "leaves no setting; it goes from 300 MHz to 900 MHz"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(
    limits: dict[str, tuple[float | None, float | None]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        SPACE.limited(limits)


def test_limits_that_exclude_each_other_through_a_hole_are_refused() -> None:
    holed = Space.of_settings(["cpu_hz", "gpu_hz"], np.array([[2e9, 0.3e9], [1e9, 0.9e9]]))
    with pytest.raises(InputError, match="together leave no setting"):
        holed.limited({"cpu_hz": (1.5e9, None), "gpu_hz": (0.5e9, None)})


def test_one_more_knob_multiplies_the_space() -> None:
    wider = SPACE.with_knob(Knob("batch_size", (1.0, 2.0)))
    assert len(wider) == 2 * len(SPACE)
    assert wider.point(1) == OperatingPoint({**SPACE.point(0), "batch_size": 2.0})


@pytest.mark.parametrize("levels", [(), (2.0, 1.0), (1.0, 1.0), (0.0, 1.0), (float("nan"),)])
def test_levels_that_are_not_ascending_and_positive_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="gpu_hz"):
        Knob("gpu_hz", levels)


def test_a_space_too_large_to_hold_is_refused_before_it_is_built() -> None:
    many = tuple(float(level) for level in range(1, 2000))
    with pytest.raises(InputError, match=f"more than {MAX_SETTINGS}"):
        Space([Knob("cpu_hz", many), Knob("gpu_hz", many)])


def test_points_and_spaces_survive_a_trip_to_another_process() -> None:
    point = SPACE.point(3)
    assert pickle.loads(pickle.dumps(point)) in pickle.loads(pickle.dumps(SPACE))
