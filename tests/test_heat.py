"""Heat: what settles too hot is not held, and what was measured cold is put to what it comes to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Loop, ToyBoard, ToyPolicy

from governor import EnergyGovernor
from governor.cli.bench import heat as heat_bench
from governor.cli.main import main
from governor.controller import Controller
from governor.devices.device import Sample
from governor.devices.emulated import Course, EmulatedBoard
from governor.devices.thermal import trip_c
from governor.errors import InputError
from governor.heat import LEAKAGE_PER_C, Heat, Leakage
from governor.slo import LatencySLO
from governor.space import OperatingPoint
from governor.thermal_model import ThermalModel
from governor.trial import Trial
from governor.tried import Tried
from governor.units import HOTTEST, parse_temperature, parse_thermal_limit, thermal_limits

ROOM_C = 45.0


def cold_board(name="tx2", workload="vgg19", room=ROOM_C):
    board = EmulatedBoard(name, workload, ambient_c=room)
    board.cool_down()
    return board


def fastest_s(board):
    return board.true_latency_s(board.space.point(board.space.fastest))


def govern(board, slo, minutes, **kwargs):
    """The decisions, and the latencies since the first hold."""
    decisions, latencies_s = [], []
    end_s = board.clock.now() + 60.0 * minutes
    gov = EnergyGovernor(slo, device=board, policy="roofline", callback=decisions.append, **kwargs)
    with gov:
        while board.clock.now() < end_s:
            with gov.inference():
                span = board.infer()
            if gov.phase == "hold":
                latencies_s.append(span.latency_s)
        point = gov.operating_point
    return decisions, latencies_s, point


# The thermal model


def warm_up(model, board, seconds, point=None):
    """Let the board run, and the model see it once a second."""
    if point is not None:
        board.apply(point)
    start_s, spent_j = board.clock.now(), board.spent_j
    end_s = start_s + seconds
    while start_s < end_s:
        while board.clock.now() < start_s + 1.0:
            board.infer()
        now_s, now_j = board.clock.now(), board.spent_j
        hottest_c = max(board.sample().temperature_c.values())
        model.add(now_s, hottest_c, (now_j - spent_j) / (now_s - start_s))
        start_s, spent_j = now_s, now_j


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("name", ["nano", "tx2", "agx-orin"])
def test_two_minutes_tell_where_a_temperature_is_heading(name, cold) -> None:
    board = EmulatedBoard(name, "vgg19", ambient_c=ROOM_C)
    if cold:
        board.cool_down()
    model = ThermalModel()
    warm_up(model, board, 20.0, board.space.point(board.space.fastest))
    point = board.space.point(board.space.index(board.optimum(1.5 * fastest_s(board))[0]))
    warm_up(model, board, 100.0, point)
    watts = board.true_energy_j(point) / board.true_latency_s(point)
    said = model.settles_at(watts)
    board.idle(0.0)
    for _ in board.frames(round(900.0 / board.true_latency_s(point))):
        pass
    settled_c = max(board.sample().temperature_c.values())
    assert said.value == pytest.approx(settled_c, abs=5.0)
    assert abs(said.value - settled_c) < 3.0 * said.se + 1.0


def test_a_room_that_warms_is_followed() -> None:
    board = EmulatedBoard("tx2", "yolov8n", ambient_c=25.0)
    model = ThermalModel()
    warm_up(model, board, 120.0)
    watts, before_c = board.sample().power_w[board.info.total_rail], board.hottest_c
    board.set_ambient(Course((120.0, 25.0), (720.0, 45.0)))
    warm_up(model, board, 700.0)
    assert board.hottest_c - before_c == pytest.approx(20.0, abs=2.0)
    assert model.settles_at(watts).value - before_c == pytest.approx(20.0, abs=3.0)


@given(st.floats(1.0, 100.0), st.floats(20.0, 90.0), st.floats(21.0, 110.0))
def test_the_power_for_a_temperature_settles_at_it(watts, first_c, limit_c) -> None:
    model = ThermalModel()
    for second in range(5):
        model.add(float(second), first_c + second, watts)
    cap_w = model.power_for(limit_c)
    assert cap_w >= 0.0
    if cap_w > 0.0:
        assert model.settles_at(cap_w).value == pytest.approx(limit_c, abs=1e-3)


# Limits


def test_the_point_that_is_best_cold_and_throttles_warm_is_not_held() -> None:
    board = cold_board(room=50.0)
    slo_s = 1.05 * fastest_s(board)
    best_cold, latency_s, _ = board.optimum(slo_s)
    board.apply(best_cold)
    for _ in board.frames(round(600.0 / latency_s)):
        pass
    assert board.throttled_s > 60.0

    board = cold_board(room=50.0)
    _, _, held = govern(board, 1.02 * slo_s, 15.0)
    assert held != best_cold
    assert board.throttled_s == 0.0
    assert board.hottest_c < board.info.trip_c


def test_a_thermal_limit_is_kept_even_where_nothing_cooler_keeps_the_slo() -> None:
    board = cold_board()
    decisions, _, held = govern(board, 1.1 * fastest_s(board), 12.0, thermal_limit="75C")
    assert board.hottest_c <= 75.0
    assert held is not None
    assert any(d.kind == "heat" and "above the limit of 75 °C" in d.reason for d in decisions)
    assert "infeasible" in [decision.kind for decision in decisions]


def test_within_the_limit_the_slo_is_kept_and_energy_is_low() -> None:
    board = cold_board()
    slo_s = 1.4 * fastest_s(board)
    _, latencies_s, held = govern(board, slo_s, 6.0, thermal_limit="82C")
    late = sum(latency_s > slo_s for latency_s in latencies_s)
    assert late <= 0.05 * len(latencies_s)
    assert board.hottest_c <= 82.0
    assert board.true_energy_j(held) < 1.03 * board.optimum(slo_s)[2]


def test_a_room_that_warms_brings_the_board_below_its_limit_and_one_that_cools_lets_it_go() -> None:
    room = Course((200.0, 20.0), (500.0, 50.0), (1500.0, 50.0), (1800.0, 15.0))
    board = cold_board(room=room)
    slo_s = 1.15 * fastest_s(board)
    decisions, _, _ = govern(board, slo_s, 35.0, thermal_limit="78C")
    assert board.hottest_c <= 78.5
    first_heat_s = next(d.time_s for d in decisions if d.kind == "heat")
    assert first_heat_s > 200.0
    last = [d for d in decisions if d.time_s > 1500.0 and d.kind in ("hold", "infeasible")]
    assert last[-1].kind == "hold"
    assert last[-1].trial.latency_s <= slo_s


def test_heat_alone_is_no_drift() -> None:
    board = cold_board("nano", "inception-v4", room=Course((300.0, 15.0), (1500.0, 45.0)))
    decisions, _, _ = govern(board, 1.5 * fastest_s(board), 40.0)
    assert [d.reason for d in decisions if d.kind == "drift"] == []


def test_where_nothing_is_cool_enough_a_point_is_held_all_the_same_and_that_is_said() -> None:
    board = cold_board("nano", "yolov8n")
    decisions, _, held = govern(board, 4.0 * fastest_s(board), 8.0, thermal_limit="47C")
    kinds = [decision.kind for decision in decisions]
    assert kinds.count("infeasible") == 1
    said = [d.reason for d in decisions if "nothing draws less" in d.reason]
    assert all("at the limit of 47 °C; nothing draws less" in reason for reason in said)
    assert said
    assert len(decisions) < 40
    powers_w = [
        board.true_energy_j(point) / board.true_latency_s(point)
        for point in map(board.space.point, range(len(board.space)))
    ]
    held_w = board.true_energy_j(held) / board.true_latency_s(held)
    assert held_w < 1.1 * min(powers_w)


# Sensors


def looped(board, limits_c, slo="40ms"):
    controller = Controller(
        board.space, LatencySLO.parse(slo), ToyPolicy, board.info, thermal_limits_c=limits_c
    )
    return Loop(board, controller)


def test_a_board_without_temperatures_says_so_once_and_governs_on() -> None:
    board = ToyBoard()
    board.temperature_c = math.nan
    loop = looped(board, {HOTTEST: 80.0}).hold()
    loop.run(4000)
    said = [d.reason for d in loop.decisions if d.kind == "heat"]
    assert said == ["no temperature is read to keep any zone to 80 °C by; carrying on without"]
    assert loop.controller.phase == "hold"


def test_a_zone_that_the_board_has_not_is_said_by_name() -> None:
    loop = looped(ToyBoard(), {"gpu-thermal": 80.0}).hold()
    loop.run(1000)
    assert "gpu-thermal to 80 °C" in next(d.reason for d in loop.decisions if d.kind == "heat")


def test_a_limit_for_one_zone_is_of_that_zone_alone() -> None:
    heat = Heat({"cpu": 60.0})
    for second in range(60):
        celsius = {"cpu": 40.0, "gpu": 90.0}
        heat.read(Sample(float(second), {"total": 10.0}, celsius), 10.0 * second)
    assert heat.headroom_c == pytest.approx(20.0)
    assert heat.too_hot(10.0) == ""
    assert heat.cap_w > 10.0


def test_without_limit_or_trip_nothing_is_too_hot() -> None:
    heat = Heat()
    for second in range(60):
        heat.read(Sample(float(second), {"total": 10.0}, {"cpu": 200.0}), 10.0 * second)
    assert heat.too_hot(1e6) == ""
    assert heat.overheating() == ""
    assert heat.cap_w == math.inf
    assert math.isnan(heat.headroom_c)


# Leakage


def trial(energy_j, point="fast", latency_s=0.020, power_w=10.0):
    return Trial(
        point=OperatingPoint({"gpu_hz": 1e9 if point == "fast" else 5e8}),
        latency_s=latency_s, latency_se_s=1e-5, mean_latency_s=latency_s, mean_latency_se_s=1e-5,
        energy_j=energy_j, energy_se_j=0.002 * energy_j, power_w=power_w,
        inferences=50, items=50, duration_s=2.0,
    )  # fmt: skip


def test_leakage_is_learnt_from_windows_at_one_point() -> None:
    leakage = Leakage()
    for step in range(12):
        leakage.add(trial(math.exp(0.002 * 4.0 * step)), 40.0 + 4.0 * step)
    assert leakage.per_c == pytest.approx(0.002, rel=0.2)


def test_another_point_or_other_work_says_nothing_of_leakage() -> None:
    leakage = Leakage()
    leakage.add(trial(1.0), 40.0)
    leakage.add(trial(2.0, point="slow"), 60.0)
    leakage.add(trial(1.0, point="slow", latency_s=0.030), 80.0)
    assert leakage.per_c == LEAKAGE_PER_C


def test_trials_on_a_warming_board_compare_whenever_they_were_taken() -> None:
    """One point, still warming up: what is told of it comes nearer to what it comes to warm."""
    board = cold_board("nano", "inception-v4")
    measured_j, told_j = set(), set()
    with EnergyGovernor(1.5 * fastest_s(board), device=board, policy="roofline") as gov:
        while board.clock.now() < 120.0:
            with gov.inference():
                board.infer()
            status = gov.status()
            if status.phase == "hold":
                measured_j.add(status.energy_j)
                told_j.add(status.held_energy_j)
        true_j = board.true_energy_j(gov.operating_point)
    assert len(told_j) > 20
    assert abs(mean(told_j) - true_j) < 0.7 * abs(mean(measured_j) - true_j)


def test_a_correction_is_made_once() -> None:
    heat = Heat()
    for second in range(60):
        heat.read(
            Sample(float(second), {"total": 10.0}, {"cpu": 40.0 + 0.2 * second}), 10.0 * second
        )
    once = heat.settled(trial(1.0))
    assert once.warming != 0.0
    assert heat.settled(once) == once


# What untried points should be like


def test_untried_points_are_foretold_by_their_neighbours() -> None:
    board = EmulatedBoard("orin-nano", "yolov8n")
    latency_s, energy_j = board.truth()
    tried = Tried()
    for row in range(0, len(board.space), len(board.space) // 12):
        power_w = energy_j[row] / latency_s[row]
        one = trial(energy_j[row], latency_s=latency_s[row], power_w=power_w)
        tried.add(replace(one, point=board.space.point(row)))
    power_w = energy_j / latency_s
    error = abs(tried.power_w(board.space, 10.0) / power_w - 1.0)
    assert error.mean() < 0.10
    quickest = tried.quickest(board.space)
    assert board.true_latency_s(quickest) < 1.05 * fastest_s(board)


def test_hold_windows_at_one_point_do_not_drive_out_what_others_have_taught() -> None:
    space = EmulatedBoard("orin-nano", "yolov8n").space
    tried, points = Tried(), [space.point(row) for row in (10, 300, 600)]
    for watts, point in enumerate(points, start=5):
        tried.add(replace(trial(0.1, power_w=float(watts)), point=point))
    for _ in range(100):
        tried.add(replace(trial(0.1, power_w=7.0), point=points[-1]))
    power_w = tried.power_w(space, 20.0)
    assert [power_w[space.index(point)] for point in points] == [5.0, 6.0, 7.0]


def test_what_was_measured_of_other_work_is_forgotten() -> None:
    space = EmulatedBoard("orin-nano", "yolov8n").space
    before, now = Tried(), Tried()
    held, other = space.point(500), space.point(10)
    heavier = replace(trial(0.2, latency_s=0.040), point=held)
    for each in (replace(trial(0.1), point=other), replace(trial(0.1), point=held), heavier):
        before.add(each)
    now.add(heavier)
    assert (before.power_w(space, 20.0) == now.power_w(space, 20.0)).all()


# What people write


@pytest.mark.parametrize("text", ["85C", "85 °C", "85", 85, 85.0, "85c"])
def test_temperatures_are_read_as_people_write_them(text) -> None:
    assert parse_temperature(text) == 85.0


@pytest.mark.parametrize("text", ["85F", "hot", "", "1e9C", "nan", True, None, "-300C"])
def test_what_is_no_temperature_of_a_board_is_refused(text) -> None:
    with pytest.raises(InputError, match=r'write it like "85C"'):
        parse_temperature(text)


def test_a_limit_is_of_the_hottest_or_by_zone() -> None:
    assert parse_thermal_limit("85C") == {HOTTEST: 85.0}
    assert parse_thermal_limit({"cpu": "80C", "gpu": 85}) == {"cpu": 80.0, "gpu": 85.0}
    assert parse_thermal_limit(None) == {}
    assert thermal_limits([]) is None
    with pytest.raises(InputError, match="has one already"):
        thermal_limits(["85C", "80C"])


# The command line


def test_the_demo_takes_a_room_and_a_limit(tmp_path, capsys) -> None:
    path = tmp_path / "demo.json"
    told = ["--board", "tx2", "--workload", "vgg19", "--latency-slo", "900ms"]
    hot = ["--policy", "roofline", "--ambient", "45C", "--thermal-limit", "62C"]
    assert main(["demo", *told, *hot, "--json", str(path)]) == 0
    # 17 degrees above the room, at 2.9 degrees a watt; without the limit, 8 W are best
    assert json.loads(path.read_text())["held"]["power_w"] < 6.5
    capsys.readouterr()


def test_below_a_limit_the_slo_is_kept_where_the_first_guess_of_the_fastest_misses_it(
    tmp_path, capsys
) -> None:
    path = tmp_path / "demo.json"
    told = ["--board", "tx2", "--workload", "vgg19", "--latency-slo", "220ms"]
    hot = ["--ambient", "45C", "--thermal-limit", "80C", "--json", str(path)]
    assert main(["demo", *told, *hot]) == 0
    outcome = json.loads(path.read_text())
    assert outcome["trials"][0]["slo_missed"]
    assert outcome["slo_feasible"]
    assert outcome["slo_kept"]
    assert sum(trial["slo_missed"] for trial in outcome["trials"]) <= 3
    assert outcome["all_max"] is None  # that would be too hot to try
    shown = capsys.readouterr().out
    assert "all-max" not in shown
    assert "first setting tried" in shown


def test_a_board_that_starts_above_its_limit_is_not_kept_at_its_lowest_clocks(tmp_path) -> None:
    """What settings draw is a guess there, and 135 ms and 3.2 W all that it allows at first."""
    path = tmp_path / "demo.json"
    told = ["--board", "xavier-nx", "--latency-slo", "1.4x", "--ambient", "35C"]
    assert main(["demo", *told, "--thermal-limit", "50C", "--json", str(path)]) == 0
    held, optimum = (json.loads(path.read_text())[key] for key in ("held", "optimum"))
    assert held["latency_s"] < 1.2 * optimum["latency_s"]
    assert held["energy_j"] < 1.05 * optimum["energy_j"]


def test_in_hold_the_room_that_a_better_known_board_leaves_is_used_once() -> None:
    board = EmulatedBoard("agx-xavier", "yolov8n", ambient_c=25.0)
    decisions, _, held = govern(board, "1.4x", 30.0, thermal_limit="37C")
    assert board.true_energy_j(held) < 1.1 * board.optimum(math.inf)[2]
    last = [d.time_s for d in decisions if d.kind in ("hold", "infeasible")][-1]
    assert last < 600.0
    assert max(board.sample().temperature_c.values()) <= 37.0


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "--ambient", "hot"],
        ["demo", "--thermal-limit", "gpu=hot"],
        ["run", "--latency-slo", "50ms", "--thermal-limit", "400C", "--", "python", "x.py"],
        ["sidecar", "--latency-slo", "50ms", "--thermal-limit", "85F"],
        ["bench", "heat", "--ambient", "45F"],
    ],
)
def test_a_temperature_that_is_none_is_a_line_and_exit_code_2(words, capsys) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_hour_in_a_hot_room_is_compared_with_the_default_governors(capsys) -> None:
    outcomes = heat_bench.measure(45.0, 1.0, "roofline", boards=["nano"])
    heat_bench.show(outcomes)
    shown = capsys.readouterr().out
    assert [each.case.workload for each in outcomes] == list(heat_bench.WORKLOADS)
    assert all(each.change < 0 and each.governed.throttled_s == 0 for each in outcomes)
    assert "emulated" in shown
    assert max(map(len, shown.splitlines())) <= 81
    assert heat_bench.document(outcomes)[0]["emulated"] is True


# The kernel's own word


def test_the_trip_is_the_lowest_passive_one(tmp_path) -> None:
    for number, (zone, kind, millidegrees) in enumerate(
        [
            ("cpu-thermal", "passive", "99000"),
            ("gpu-thermal", "passive", "97500"),
            ("tj-thermal", "critical", "80000"),
            ("fan", "active", "50000"),
            ("PMIC-Die", "passive", "40000"),
            ("soc0-thermal", "passive", "none"),
        ]
    ):
        folder = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(zone + "\n")
        (folder / "trip_point_0_type").write_text(kind + "\n")
        (folder / "trip_point_0_temp").write_text(millidegrees + "\n")
    assert trip_c(tmp_path) == 97.5


def test_a_kernel_that_tells_no_trip_is_no_limit(tmp_path) -> None:
    assert math.isnan(trip_c(tmp_path))


def test_a_saving_that_two_short_readings_hide_is_found_by_a_longer_look() -> None:
    case = heat_bench.Case("agx-orin", "yolov8n", room_c=45.0, minutes=5.0, policy="bayesian")
    assert heat_bench.compare(case).change < -0.005
