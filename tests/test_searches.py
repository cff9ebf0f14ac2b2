"""One search after another, each with what those before it have taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy import ToyBoard, ToyPolicy

from governor.envelope import Envelope
from governor.heat import Heat
from governor.observer import Observer
from governor.pace import Pace
from governor.searches import Searches
from governor.setting import Setting
from governor.slo import LatencySLO
from governor.space import OperatingPoint, Space
from governor.trial import MAIN, StreamLatency, Trial

BOARD = ToyBoard()
FASTEST = BOARD.space.point(BOARD.space.fastest)
SLOW = OperatingPoint({"gpu_hz": 700e6, "cpu_hz": 1500e6})
_TOP = BOARD.space.index(FASTEST)
TOPLESS = Space.of_settings(BOARD.space.names, np.delete(BOARD.space.settings, _TOP, axis=0))
"""All but the fastest: which is the fastest of these is a guess."""


class Rig:
    """Searches under a bound, and the settings that are allowed."""

    def __init__(self, slo: str = "40ms", space: Space = BOARD.space) -> None:
        self.seen = Observer(LatencySLO.parse(slo), BOARD.info, Pace(), Setting(BOARD.space))
        self.envelope = Envelope(space, Heat())
        self.searches = Searches(self.envelope, self.seen, ToyPolicy, 12, 0)

    def settle(self, anchor: Trial, held: Trial) -> None:
        """A whole search of that phase."""
        self.searches.renew()
        self.searches.anew(anchor)
        self.searches.record(held)
        self.searches.settled = held


def measured(point: OperatingPoint, work: float = 1.0) -> Trial:
    seconds = work * BOARD.latency_s(point)
    joules = work * BOARD.energy_j(point)
    error_s = 0.001 * seconds
    return Trial(
        point=point,
        latency_s=seconds, latency_se_s=error_s, mean_latency_s=seconds, mean_latency_se_s=error_s,
        energy_j=joules, energy_se_j=0.01 * joules, power_w=joules / seconds,
        inferences=50, items=50, duration_s=2.0,
        by_stream=(StreamLatency(MAIN, seconds, error_s, seconds, error_s, 50),),
    )  # fmt: skip


def test_a_search_begins_where_the_fastest_point_is_known():
    rig = Rig()
    assert not rig.searches.campaign.begun
    anchor, past = rig.searches.anew(measured(FASTEST))
    assert past is None
    assert rig.searches.campaign.begun
    assert rig.searches.campaign.known.trials == (anchor,)
    assert rig.searches.hopeful


def test_the_fastest_point_resolves_a_relative_bound():
    rig = Rig("1.5x")
    anchor, _ = rig.searches.anew(measured(FASTEST))
    assert rig.seen.slo_s == pytest.approx(1.5 * anchor.latency_s)
    assert rig.searches.campaign.known.slo_s == rig.seen.slo_s


def test_there_is_no_hope_where_the_fastest_point_is_far_too_slow():
    rig = Rig("5ms")
    rig.searches.anew(measured(FASTEST))
    assert not rig.searches.hopeful


def test_what_only_may_be_the_fastest_point_leaves_hope_however_slow_it_is():
    rig = Rig("5ms", TOPLESS)
    rig.searches.anew(measured(SLOW))
    assert rig.searches.hopeful
    assert not rig.searches.refuge_known
    better = TOPLESS.point(TOPLESS.fastest)
    rig.searches.record(measured(better))
    known = rig.searches.campaign.known
    assert known.safest_point() == known.best_point() == better


def test_a_phase_that_nothing_kept_is_searched_again_where_another_point_may_keep_it():
    rig = Rig("5ms", TOPLESS)
    anchor = measured(TOPLESS.point(TOPLESS.fastest))
    rig.settle(anchor, measured(SLOW))
    rig.searches.renew()
    _, past = rig.searches.anew(anchor)
    assert past is not None
    assert rig.searches.recall(past) is None
    assert len(rig.searches.campaign.known.trials) == 2  # what it taught is known


def test_trials_are_counted_by_whether_they_kept_the_bounds():
    rig = Rig()
    rig.searches.anew(measured(FASTEST))
    rig.searches.record(measured(SLOW))
    rig.searches.note(measured(SLOW, work=3.0))
    assert rig.searches.outcomes == {"kept": 1, "violated": 1}
    assert len(rig.searches.trials) == 2
    assert len(rig.searches.campaign.known.trials) == 2  # what is only noted teaches nothing


def test_a_phase_that_comes_back_is_recalled_with_its_trials():
    rig = Rig()
    held = measured(SLOW)
    rig.settle(measured(FASTEST), held)
    rig.settle(measured(FASTEST, work=2.0), measured(SLOW, work=2.0))
    rig.searches.renew()
    assert len(rig.searches.phases) == 2
    _, past = rig.searches.anew(measured(FASTEST))
    assert past is not None
    assert held in rig.searches.campaign.known.trials
    choice = rig.searches.recall(past)
    assert choice is not None
    assert choice.point == SLOW
    assert not rig.searches.contradicted(replace(held, latency_s=1.001 * held.latency_s))


def test_a_recalled_phase_that_is_contradicted_is_disowned_and_its_trials_are_dropped():
    rig = Rig()
    rig.settle(measured(FASTEST), measured(SLOW))
    rig.searches.renew()
    anchor, past = rig.searches.anew(measured(FASTEST))
    rig.searches.recall(past)
    unlike = measured(SLOW, work=1.2)
    assert rig.searches.contradicted(unlike)
    assert rig.searches.phases.disowned == [past]
    rig.searches.begin_after_mistake(unlike)
    assert rig.searches.campaign.known.trials == (anchor, unlike)
    assert not rig.searches.contradicted(unlike)  # said once


def test_under_another_bound_its_trials_are_known_but_not_its_choice():
    rig = Rig()
    rig.settle(measured(FASTEST), measured(SLOW))
    rig.searches.renew()
    rig.seen.bind({MAIN: LatencySLO.parse("60ms")}, None)
    _, past = rig.searches.anew(measured(FASTEST))
    assert past is not None
    assert rig.searches.recall(past) is None


def test_what_is_not_allowed_any_more_is_not_recalled():
    rig = Rig()
    rig.settle(measured(FASTEST), measured(FASTEST))
    rig.searches.renew()
    assert rig.envelope.lower(0.0, FASTEST, FASTEST, {})
    assert rig.searches.recognise(measured(FASTEST)) is None


def test_what_is_carried_over_serves_one_search():
    rig = Rig()
    rig.searches.carried = (measured(SLOW),)
    rig.searches.anew(measured(FASTEST))
    assert [trial.point for trial in rig.searches.campaign.known.trials] == [FASTEST, SLOW]
    rig.searches.renew()
    rig.searches.anew(measured(FASTEST))
    assert [trial.point for trial in rig.searches.campaign.known.trials] == [FASTEST]
