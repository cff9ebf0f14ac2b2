"""Several streams under one governor: each keeps its own bound."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Loop, ToyBoard, ToyPolicy

from governor import EnergyGovernor, InputError
from governor.controller import Controller
from governor.slo import LatencySLO, p_keeps
from governor.streams import MOST_STREAMS, SeenStreams
from governor.trial import MAIN, Span, StreamLatency, Trial
from policies.policy import Proposal

LOOSE, TIGHT = "200ms", "45ms"


def trial(*latencies):
    """Of streams: name, latency and its error in s."""
    by_stream = tuple(StreamLatency(name, at, se, at, se, 50) for name, at, se in latencies)
    return Trial(
        point=None,
        latency_s=by_stream[0].latency_s,
        latency_se_s=by_stream[0].latency_se_s,
        mean_latency_s=by_stream[0].mean_latency_s,
        mean_latency_se_s=by_stream[0].mean_latency_se_s,
        energy_j=1.0,
        energy_se_j=0.01,
        power_w=20.0,
        inferences=50,
        items=50,
        duration_s=2.0,
        by_stream=by_stream,
    )


def streams(main="50ms", **others):
    seen = SeenStreams(LatencySLO.parse(main), stall_s=2.0)
    for name, slo in others.items():
        seen.add(name, LatencySLO.parse(slo))
    return seen


class TwoLoops(Loop):
    """A second pipeline, every third inference, takes twice as long as the board's own."""

    def __init__(self, board, controller, factor=2.0):
        super().__init__(board, controller)
        self.factor = factor
        self.second = True
        self.missed = 0

    def run(self, inferences, until=None):
        for _ in range(inferences):
            if self.second:
                start_s = self.board.clock.now()
                self.board.idle(self.factor * self.board.latency_s(self.board.in_force()))
                self._spans.append(Span(start_s, self.board.clock.now(), stream="second"))
            if super().run(3, until):
                return True
        return False


class SlowestNext(ToyPolicy):
    def ask(self):
        return Proposal(point=self.problem.space.point(0)) if len(self.told) == 1 else None


def two(slo=LOOSE, second=TIGHT, policy=ToyPolicy):
    board = ToyBoard()
    controller = Controller(board.space, LatencySLO.parse(slo), policy, board.info, trials=24)
    controller.seen.streams.add("second", LatencySLO.parse(second))
    return TwoLoops(board, controller)


# judging


def test_a_trial_of_the_main_stream_alone_is_as_it_was():
    alone = trial((MAIN, 0.031, 0.0004))
    assert streams(other="10ms").judged(alone) is alone


def test_the_stream_nearest_to_its_bound_speaks_for_all_in_units_of_the_main_bound():
    judged = streams("50ms", other="100ms").judged(
        trial((MAIN, 0.030, 0.001), ("other", 0.090, 0.001))
    )
    assert judged.latency_s == pytest.approx(0.045)
    assert judged.mean_latency_s == pytest.approx(0.0375)


LATENCY = st.tuples(st.floats(1e-3, 1.0), st.floats(1e-5, 0.1))


@given(
    st.dictionaries(st.sampled_from([MAIN, "a", "b", "c"]), LATENCY, min_size=1),
    st.floats(0.01, 0.5),
)
def test_the_probability_of_keeping_all_is_that_of_the_least_sure(latencies, bound_s):
    seen = streams(bound_s, a=0.1, b=0.02, c=0.7)
    judged = seen.judged(trial(*[(name, at, se) for name, (at, se) in latencies.items()]))
    alone = [
        p_keeps(trial((name, at, se)), seen[name].slo_s) for name, (at, se) in latencies.items()
    ]
    assert p_keeps(judged, seen.slo_s) == pytest.approx(min(alone), abs=1e-9)
    assert judged.latency_se_s > 0


@given(LATENCY, LATENCY)
def test_another_stream_never_makes_a_violating_point_count_as_kept(main, other):
    seen = streams("50ms", other="100ms")
    alone = seen.judged(trial((MAIN, *main)))
    both = seen.judged(trial((MAIN, *main), ("other", *other)))
    assert p_keeps(both, seen.slo_s) <= p_keeps(alone, seen.slo_s) + 1e-9


def test_within_the_bounds_own_bucket_a_histogram_says_little():
    def bucket(latency_s):
        return (0.025, 0.05) if latency_s <= 0.05 else (0.05, 0.1)

    seen = streams("1s")
    for name, bound in (("fits", "50ms"), ("coarse", "40ms")):
        seen.add(name, LatencySLO.parse(bound))
        seen[name].resolution = bucket
    fits = seen.judged(trial(("fits", 0.035, 0.0001)))
    coarse = seen.judged(trial(("coarse", 0.035, 0.0001)))
    assert p_keeps(fits, seen.slo_s) > 0.999
    assert 0.6 < p_keeps(coarse, seen.slo_s) < 0.9


def test_a_relative_bound_is_that_of_its_own_stream():
    seen = streams("2x", other="1.5x")
    fastest = trial((MAIN, 0.010, 0.001), ("other", 0.040, 0.001))
    seen.resolve(fastest)
    assert seen[MAIN].slo_s == pytest.approx(0.020)
    assert seen["other"].slo_s == pytest.approx(0.060)
    assert seen.judged(fastest).latency_s == pytest.approx(0.020 / 1.5)


# the whole way


def test_the_point_that_is_held_keeps_every_bound():
    loop = two().hold()
    point = loop.controller.target
    assert 2 * loop.board.latency_s(point) <= 0.045
    assert loop.board.latency_s(loop.board.best(0.2)) > 0.045 / 2  # the main bound allows more


def test_it_holds_the_same_whichever_bound_is_the_tighter():
    assert (
        two("22.5ms", "1s").hold().controller.target == two("1s", "45ms").hold().controller.target
    )


def test_a_stream_that_never_sends_changes_nothing():
    def decisions(*others):
        board = ToyBoard()
        controller = Controller(board.space, LatencySLO.parse("40ms"), ToyPolicy, board.info)
        for name in others:
            controller.seen.streams.add(name, LatencySLO.parse("1ms"))
        return Loop(board, controller).hold().decisions

    assert decisions("a", "b") == decisions()


def test_a_stream_that_falls_silent_does_not_hold_up_the_others():
    loop = two(LOOSE, TIGHT)
    loop.run(20)
    loop.second = False
    loop.hold()
    assert not loop.controller.frozen
    assert [s.silent for s in loop.controller.seen.streams] == [False, True]


def test_inferences_longer_than_any_silence_are_seen_to_violate():
    """Who tells of inferences only when they end, as a sidecar's sources do, seems silent."""
    loop = two(LOOSE, "1s", SlowestNext)
    loop.second = False
    slow = loop.board.space.point(0)
    loop.run(3000, until=lambda controller: controller.target == slow)
    assert loop.controller.target == slow
    for _ in range(5):
        start_s = loop.board.clock.now()
        loop.pause(3.0)
        loop._spans.append(Span(start_s, loop.board.clock.now()))
        loop.look()
    assert loop.controller.target != slow


def test_only_when_all_are_silent_it_freezes():
    loop = two().hold()
    loop.second = False
    loop.run(150)
    assert "freeze" not in loop.kinds()
    loop.pause(20.0)
    assert loop.controller.frozen


def test_a_bound_that_joins_is_searched_for_and_the_baseline_measured_with_it():
    loop = two()
    loop.second = False
    loop.hold()
    alone, before = loop.controller.target, loop.controller.baseline
    loop.second = True
    loop.run(1)
    loop.look()
    assert "second has joined" in loop.decisions[-1].reason
    loop.hold()
    assert loop.controller.target != alone
    assert 2 * loop.board.latency_s(loop.controller.target) <= 0.045
    assert loop.controller.baseline.energy_j != before.energy_j
    assert loop.controller.saving > 0
    assert re.search(
        r"verified: \S+ ms for \w+ and \S+ ms for \w+ at the percentile", str(loop.decisions)
    )


def test_a_stream_that_comes_back_needs_no_new_baseline():
    loop = two().hold()
    baseline = loop.controller.baseline
    loop.second = False
    loop.run(150)
    loop.second = True
    loop.run(150)
    assert loop.controller.baseline == baseline
    assert not any("joined" in decision.reason for decision in loop.decisions)


def test_the_guard_of_each_stream_falls_back():
    loop = two().hold()
    loop.factor = 6.0
    loop.run(60)
    assert loop.controller.fallbacks == 1
    assert loop.controller.seen.streams["second"].violations > 0
    assert loop.controller.seen.streams[MAIN].violations == 0


def test_a_relative_bound_that_joins_later_is_resolved():
    loop = two(second="1.5x")
    loop.second = False
    loop.hold()
    assert math.isinf(loop.controller.seen.streams["second"].slo_s)
    loop.second = True
    loop.run(1)
    loop.look()
    loop.hold()
    fastest_s = loop.board.latency_s(loop.board.space.point(loop.board.space.fastest))
    assert loop.controller.seen.streams["second"].slo_s == pytest.approx(3 * fastest_s, rel=0.05)


def test_energy_is_all_energy_over_the_items_of_all_streams():
    loop = two().hold()
    loop.run(40)
    point = loop.controller.target
    seconds = 5 * loop.board.latency_s(point)  # three of the one, and one twice as long
    expected_j = loop.board.power_w(point) * seconds / 4
    assert loop.controller.held.energy_j == pytest.approx(expected_j, rel=0.03)


# as a user holds it


def test_two_streams_of_one_application():
    board = ToyBoard()
    with EnergyGovernor("200ms", device=board, policy=ToyPolicy, trials=24) as gov:
        slow = gov.stream("slow", latency_slo="45ms", counts_items=False)
        for _ in gov.watch(range(1500)):
            board.infer()
            with slow.inference():
                board.infer()
                board.infer()
        assert gov.phase == "hold"
        assert 2 * board.latency_s(gov.operating_point) <= 0.045
    status = gov.status()
    assert [(s.name, s.inferences) for s in status.streams] == [(MAIN, 1500), ("slow", 1500)]
    assert status.items == 1500
    assert status.streams[1].latency_s <= 0.045


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, 'a"}', "ä", "a\n"])
def test_a_name_that_is_no_label_is_refused(name):
    with (
        EnergyGovernor("40ms", device=ToyBoard(), policy=ToyPolicy) as gov,
        pytest.raises(InputError, match="a stream's name is up to 64 letters"),
    ):
        gov.stream(name, latency_slo="1s")


def test_a_name_is_given_once():
    with EnergyGovernor("40ms", device=ToyBoard(), policy=ToyPolicy) as gov:
        gov.stream("a", latency_slo="1s")
        for taken in ("a", MAIN):
            with pytest.raises(InputError, match=f"there is a stream '{taken}' already"):
                gov.stream(taken, latency_slo="2s")


def test_there_are_few_streams():
    seen = streams(**{f"s{n}": "1s" for n in range(MOST_STREAMS - 1)})
    with pytest.raises(InputError, match="at most 32 streams"):
        seen.add("more", LatencySLO.parse("1s"))
