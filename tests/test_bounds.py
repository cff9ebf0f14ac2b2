"""Bounds and objectives that are wanted, and put in force all at once."""

from __future__ import annotations

import pytest
from toy import ToyBoard

from governor.bounds import Bounds, name_bounds
from governor.errors import InputError
from governor.objective import Objective
from governor.observer import Observer
from governor.pace import Pace
from governor.setting import Setting
from governor.slo import LatencySLO
from governor.trial import MAIN

CAPPED = Objective(power_cap_w=10.0)


@pytest.fixture
def seen():
    board = ToyBoard()
    seen = Observer(LatencySLO.parse("40ms"), board.info, Pace(), Setting(board.space))
    seen.streams.add("tracker", LatencySLO.parse("60ms"))
    return seen


def test_what_is_wanted_is_not_in_force_before_it_is_enforced(seen):
    bounds = Bounds(seen)
    wanted = LatencySLO.parse("30ms")
    bounds.bind(wanted, MAIN)
    bounds.aim(CAPPED)
    assert bounds.waiting
    assert bounds.slo_of(MAIN) == wanted
    assert (seen.slo_s, seen.objective) == (0.040, Objective())
    what, judgeable = bounds.enforce(None)
    assert judgeable
    assert what == f"the objective is now {CAPPED}, the bound is now {wanted}"
    assert (seen.slo_s, seen.objective) == (0.030, CAPPED)
    assert not bounds.waiting


def test_the_bound_that_is_in_force_need_not_be_waited_for(seen):
    bounds = Bounds(seen)
    bounds.bind(LatencySLO.parse("40ms"), MAIN)
    assert not bounds.waiting


def test_another_streams_bound_is_called_by_its_name(seen):
    bounds = Bounds(seen)
    bounds.bind(LatencySLO.parse("50ms"), "tracker")
    assert bounds.enforce(None)[0].endswith(" for tracker")
    assert seen.slo_s == 0.040


def test_another_percentile_cannot_be_judged_by_what_was_measured(seen):
    bounds = Bounds(seen)
    bounds.bind(LatencySLO.parse("40ms", percentile=0.99), MAIN)
    assert not bounds.enforce(None)[1]


def test_a_stream_that_does_not_exist_is_refused(seen):
    with pytest.raises(InputError, match="no stream 'pose'; choose one of main, tracker"):
        Bounds(seen).bind(LatencySLO.parse("40ms"), "pose")


def test_bounds_are_named_by_all_that_binds():
    slo, none = LatencySLO.parse("40ms"), LatencySLO.parse("none")
    assert name_bounds(slo, Objective()) == str(slo)
    assert name_bounds(slo, CAPPED) == f"{slo} and 10 W"
    assert name_bounds(none, CAPPED) == "10 W"
