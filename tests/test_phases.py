"""A workload that changes and comes back, and a bound that is changed meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy import Loop, ToyBoard, ToyPolicy

from governor import EnergyGovernor
from governor.controller import Controller
from governor.devices.emulated import EmulatedBoard
from governor.errors import InputError
from governor.objective import Objective
from governor.phases import MOST, PastPhase, Phases
from governor.slo import LatencySLO
from governor.space import OperatingPoint
from governor.trial import Span, Trial

HEAVY, LIGHT = 30e6, 12e6


def governed(slo="40ms", board=None, **kwargs):
    board = board or ToyBoard()
    controller = Controller(board.space, LatencySLO.parse(slo), ToyPolicy, board.info, **kwargs)
    return Loop(board, controller).hold()


def bound(loop, slo, stream="main"):
    """Change the bound, and run until something is held again; returns the trials it took."""
    before = len(loop.controller.trials)
    loop.controller.bind(LatencySLO.parse(slo), stream)
    loop.run(20, until=lambda controller: controller.phase != "hold")
    loop.hold()
    return len(loop.controller.trials) - before


def changed(loop, compute):
    """Change the work, and run until something is held again; returns the trials it took."""
    loop.run(200)
    before = len(loop.controller.trials)
    loop.board.compute = compute
    assert loop.run(2000, until=lambda controller: controller.phase != "hold")
    loop.hold()
    return len(loop.controller.trials) - before


# phases


def test_a_phase_that_comes_back_is_held_again_within_two_trials():
    loop = governed(board=ToyBoard(compute=LIGHT), trials=24)
    light = loop.controller.target
    assert changed(loop, HEAVY) > 4
    heavy = loop.controller.target
    assert heavy != light
    for compute, point in ((LIGHT, light), (HEAVY, heavy), (LIGHT, light)):
        # the fastest point, and where the guard spoke, what it saw; then what was held
        assert changed(loop, compute) <= 2
        assert loop.controller.target == point
    assert "earlier phase" in next(d.reason for d in loop.decisions[-1::-1] if d.kind == "verify")


def test_what_is_alike_at_the_fastest_point_alone_is_no_earlier_phase():
    loop = governed(board=ToyBoard(compute=LIGHT), trials=24)
    light, fastest = loop.controller.target, loop.board.writes[0]
    changed(loop, HEAVY)
    # as light as before at the fastest point, but much slower below it
    loop.board.latency_factor = lambda point: 1.0 if point == fastest else 2.0
    changed(loop, LIGHT)
    assert loop.controller.target != light
    assert loop.board.latency_s(loop.controller.target) <= 0.040
    assert any("not the earlier phase" in decision.reason for decision in loop.decisions)


def trial(latency_s, energy_j, point="fast"):
    return Trial(
        point=OperatingPoint({"gpu_hz": 1e9 if point == "fast" else 5e8}),
        latency_s=latency_s, latency_se_s=1e-5, mean_latency_s=latency_s, mean_latency_se_s=1e-5,
        energy_j=energy_j, energy_se_j=0.01 * energy_j, power_w=10.0,
        inferences=50, items=50, duration_s=2.0,
    )  # fmt: skip


def past(latency_s, energy_j, slo_s=0.05):
    return PastPhase(slo_s, (trial(latency_s, energy_j),), trial(2 * latency_s, 1.0, "slow"))


def test_the_likest_phase_is_recognised_and_an_unlike_one_is_not():
    phases = Phases()
    near, nearer = past(0.0200, 0.50), past(0.0202, 0.52)
    phases.remember(past(0.0300, 0.50))
    phases.remember(near)
    phases.remember(nearer)
    assert len(phases) == 2  # the nearer one replaces what it is alike
    assert phases.recognise(trial(0.0202, 0.52), 0.05) is nearer
    assert phases.recognise(trial(0.0202, 0.70), 0.05) is None
    assert phases.recognise(trial(0.0250, 0.52), 0.05) is None
    assert phases.recognise(trial(0.0202, 0.52, "slow"), 0.05) is None


def test_of_like_phases_the_one_of_the_same_bound_is_taken():
    phases = Phases()
    wide, narrow = past(0.020, 0.5, slo_s=0.1), past(0.020, 0.5, slo_s=0.05)
    phases.remember(wide)
    phases.remember(narrow)
    assert phases.recognise(trial(0.0201, 0.5), 0.1) is wide
    assert phases.recognise(trial(0.0201, 0.5), 0.05) is narrow


def test_a_cap_so_close_that_it_makes_no_odds_is_the_same() -> None:
    capped = replace(past(0.02, 0.5), objective=Objective(0.0, 1.0, 10.0))
    assert capped.bound_by(0.05, Objective(0.0, 1.0, 10.2))
    assert not capped.bound_by(0.05, Objective(0.0, 1.0, 12.0))
    assert not capped.bound_by(0.05)


def test_what_was_disowned_is_not_recognised_again() -> None:
    phases = Phases()
    false, true = past(0.020, 0.5), past(0.030, 0.5)
    phases.remember(true)
    phases.remember(false)
    phases.disown(false)
    assert phases.recognise(trial(0.020, 0.5), 0.05) is None
    assert phases.latest is true
    assert phases.disowned == [false]


def test_no_more_than_the_latest_phases_are_remembered():
    phases = Phases()
    for number in range(2 * MOST):
        phases.remember(past(0.01 * 1.1**number, 0.5))
    assert len(phases) == MOST


# the bound


def test_a_wider_bound_saves_more_and_the_old_one_is_known_when_it_comes_back():
    loop = governed("30ms")
    narrow = loop.controller.target
    trials = bound(loop, "60ms")
    wide = loop.controller.target
    assert loop.board.energy_j(wide) < loop.board.energy_j(narrow)
    assert trials <= 8
    assert loop.controller.slo_s == 0.060
    assert bound(loop, "30ms") == 0
    assert loop.controller.target == narrow
    assert bound(loop, "60ms") == 0
    assert loop.controller.target == wide


def test_a_point_that_a_narrower_bound_forbids_is_left_at_the_next_look():
    loop = governed("60ms")
    wide = loop.controller.target
    loop.controller.bind(LatencySLO.parse("30ms"))
    before = loop.board.clock.now()
    loop.run(20, until=lambda controller: controller.target != wide)
    assert loop.controller.target != wide
    assert loop.board.clock.now() - before < 0.3
    assert next(d for d in loop.decisions[::-1] if d.kind == "bound").change
    loop.hold()
    assert loop.board.latency_s(loop.controller.target) <= 0.030
    assert loop.controller.drifts == 0


def test_a_bound_that_nothing_keeps_is_answered_with_the_fastest_point():
    loop = governed()
    bound(loop, "5ms")
    assert loop.controller.slo_feasible is False
    assert loop.controller.target == loop.board.writes[0]
    assert bound(loop, "40ms") == 0
    assert loop.controller.slo_feasible


def test_a_bound_relative_to_the_fastest_point_can_be_changed_too():
    loop = governed("1.2x")
    fastest_s = loop.controller.slo_s / 1.2
    bound(loop, "2x")
    assert loop.controller.slo_s == pytest.approx(2 * fastest_s)


def test_at_another_percentile_everything_is_measured_anew():
    loop = governed()
    loop.controller.bind(LatencySLO.parse("40ms", 0.99))
    loop.run(30, until=lambda controller: controller.phase == "profile")
    assert loop.controller.target == loop.board.writes[0]
    loop.hold()
    assert loop.controller.slo.percentile == 0.99


def test_before_anything_is_known_another_bound_is_only_noted():
    board = ToyBoard()
    controller = Controller(board.space, LatencySLO.parse("40ms"), ToyPolicy, board.info)
    loop = Loop(board, controller)
    controller.bind(LatencySLO.parse("30ms"))
    loop.run(20)
    assert [decision.kind for decision in loop.decisions] == ["bound"]
    assert not loop.decisions[0].change
    assert loop.hold().board.latency_s(controller.target) <= 0.030


def test_a_streams_bound_is_changed_by_its_name():
    board = ToyBoard()
    controller = Controller(board.space, LatencySLO.parse("1s"), ToyPolicy, board.info)
    controller.seen.streams.add("tracker", LatencySLO.parse("60ms"))
    infer = board.infer
    board.infer = lambda: Span(*infer()[:3], stream="tracker")
    loop = Loop(board, controller).hold()
    assert bound(loop, "25ms", "tracker") > 0
    assert board.latency_s(controller.target) <= 0.025
    with pytest.raises(InputError, match="no stream 'pose'; choose one of main, tracker"):
        controller.bind(LatencySLO.parse("25ms"), "pose")


def test_an_application_sets_its_governors_bound_while_it_runs():
    board = EmulatedBoard("nano", "mobilenet-v2", seed=1)

    def run(seconds):
        until_s = board.clock.now() + seconds
        while board.clock.now() < until_s:
            with gov.inference():
                board.infer()

    with EnergyGovernor("2x", device=board) as gov:
        run(45)
        assert gov.phase == "hold"
        gov.latency_slo = "700ms"
        run(45)
        assert gov.slo_s == pytest.approx(0.7)
        assert str(gov.latency_slo) == "p95 <= 700 ms"
        assert gov.phase == "hold"
        best = board.optimum(0.7)[2]
        assert board.true_energy_j(gov.operating_point) < 1.05 * best
        with pytest.raises(InputError, match="700"):
            gov.latency_slo = "700 apples"
        gov.set_slo(replace(gov.latency_slo, percentile=0.9))
        assert gov.latency_slo.percentile == 0.9
