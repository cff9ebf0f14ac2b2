"""Below what a hot board may be searched."""

from __future__ import annotations

import math

from toy import CPU, GPU

from governor.ceiling import COOLED_C, PATIENCE_S, STEP, Ceiling
from governor.space import Knob, OperatingPoint, Space

HOT = {"gpu": 80.0, "cpu": 97.0}


def toy_space():
    return Space((Knob("gpu_hz", GPU), Knob("cpu_hz", CPU)))


def lowered(read=None, temperature_c=HOT):
    ceiling = Ceiling(toy_space())
    fastest = ceiling.space.point(ceiling.space.fastest)
    assert ceiling.lower(0.0, fastest, read or fastest, temperature_c)
    return ceiling


def test_a_knob_that_is_capped_is_the_ceiling_and_the_others_stay():
    space = lowered(OperatingPoint({"gpu_hz": 750e6, "cpu_hz": 2000e6})).space
    assert dict(space.point(space.fastest)) == {"gpu_hz": 700e6, "cpu_hz": 2000e6}


def test_without_a_cap_to_be_read_every_clock_comes_down_a_step():
    space = lowered().space
    assert max(space.knobs[0].levels) <= STEP * max(GPU)
    assert max(space.knobs[1].levels) <= STEP * max(CPU)


def test_batch_size_is_no_clock():
    ceiling = Ceiling(toy_space().with_knob(Knob("batch_size", (1.0, 4.0))))
    fastest = OperatingPoint({"gpu_hz": max(GPU), "cpu_hz": max(CPU), "batch_size": 4.0})
    assert ceiling.lower(0.0, fastest, fastest, HOT)
    assert ceiling.space.knobs[2].levels == (1.0, 4.0)


def test_it_comes_down_to_the_lowest_setting_and_no_further():
    ceiling = Ceiling(toy_space())
    for _ in range(20):
        top = ceiling.space.point(ceiling.space.fastest)
        if not ceiling.lower(0.0, top, top, HOT):
            break
    assert dict(top) == {"gpu_hz": min(GPU), "cpu_hz": min(CPU)}
    assert ceiling.space.point(ceiling.space.fastest) == top


def test_it_may_lift_when_the_hottest_zone_has_cooled():
    ceiling = lowered()
    assert not ceiling.may_lift(60.0, {"gpu": 40.0, "cpu": 97.0 - COOLED_C + 1.0})
    assert ceiling.may_lift(60.0, {"gpu": 40.0, "cpu": 97.0 - COOLED_C})


def test_it_may_lift_after_long_or_where_no_temperature_is_known():
    assert lowered().may_lift(PATIENCE_S + 1.0, HOT)
    assert lowered(temperature_c={}).may_lift(60.0, {})
    assert lowered().may_lift(60.0, {"cpu": math.nan})


def test_lifted_all_is_allowed_again():
    ceiling = lowered()
    assert ceiling.lowered
    ceiling.lift()
    assert not ceiling.lowered
    assert len(ceiling.space) == len(GPU) * len(CPU)
