"""Objectives that change with time, and a governor that follows them on an emulated board."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import Battery, EnergyGovernor, InputError, Objective, Tariff
from governor.devices.emulated import EmulatedBoard
from governor.schedule import Moment, PowerSupply, differs, parse_objective

NOON = datetime(2024, 5, 1, 12)


def at(hours: float = 0.0, spent_wh: float = 0.0) -> Moment:
    return Moment(NOON + timedelta(hours=hours), 3600.0 * spent_wh)


def prices(folder: Path, text: str) -> Path:
    path = folder / "prices.csv"
    path.write_text(text)
    return path


def test_a_battery_allows_what_lasts_until_the_deadline() -> None:
    battery = Battery("60Wh", until="18:00")
    assert battery.objective(at()) == Objective(0.0, 1.0, 10.0)
    assert battery.objective(at(hours=3, spent_wh=15)).power_cap_w == pytest.approx(15.0)
    assert not battery.objective(at(hours=6.1, spent_wh=50)).capped


def test_a_deadline_that_has_passed_today_is_tomorrows() -> None:
    assert Battery("23Wh", until="11:00").objective(at()).power_cap_w == pytest.approx(1.0)


def test_an_empty_battery_allows_next_to_nothing() -> None:
    assert 0 < Battery("1Wh", until="6h").objective(at(hours=0, spent_wh=2)).power_cap_w < 0.01


@given(st.floats(1.0, 100.0), st.floats(0.1, 23.0), st.floats(0.0, 0.9))
def test_whoever_draws_the_cap_has_an_empty_battery_at_the_deadline(
    full_wh: float, hours: float, share: float
) -> None:
    battery = Battery(f"{full_wh}Wh", until=timedelta(hours=hours))
    cap_w = battery.objective(at()).power_cap_w
    later = battery.objective(at(share * hours, spent_wh=cap_w * share * hours))
    assert later.power_cap_w == pytest.approx(cap_w, rel=1e-6)


def test_linux_tells_the_energy_left_in_either_unit(tmp_path: Path) -> None:
    (tmp_path / "charge_now").write_text("2000000\n")
    (tmp_path / "voltage_now").write_text("12000000\n")
    assert PowerSupply(tmp_path)() == pytest.approx(24 * 3600)
    (tmp_path / "energy_now").write_text("20000000\n")
    battery = Battery(PowerSupply(tmp_path), until="2h")
    assert battery.objective(at()).power_cap_w == pytest.approx(10.0)
    with pytest.raises(InputError, match="tells no energy"):
        PowerSupply(tmp_path / "none")


def test_energy_weighs_by_its_price_over_the_days_mean(tmp_path: Path) -> None:
    tariff = Tariff.read(prices(tmp_path, "hour,eur\n0,1\n12,3\n"))
    assert tariff.objective(at()) == Objective(1.5, 1.0)
    assert tariff.objective(at(hours=12)) == Objective(0.5, 1.0)


def test_a_price_below_nothing_counts_as_nothing() -> None:
    assert Tariff({0: -5.0, 12: 1.0}).objective(at(hours=12)).energy == 0.0


def test_a_tariff_may_be_asked_for() -> None:
    tariff = Tariff(lambda now: 1.0 + now.hour / 12, power_cap_w=10.0)
    assert tariff.objective(at()) == Objective(2.0, 1.0, 10.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hour,eur\n0,cheap\n", "line 2: expected an hour and a price"),
        ("hour,eur\n0,1\n7\n", "line 3: expected an hour and a price"),
        ("hour,eur\n0,1\n0,2\n", "line 3: hour 0 is there twice"),
        ("hour,eur\n0,1\n24,2\n", "hours are 0 to 23"),
        ("hour,eur\n0,nan\n", "prices finite"),
        ("hour,eur\n6,1\n", "begins at hour 0"),
        ("hour,eur\n0,0\n", "no hour has a price above 0"),
    ],
)
def test_a_table_that_is_no_tariff_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_objective(str(prices(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "power_cap", "says"),
    [
        ("20Wh until noon", None, "deadline 'noon' is no time"),
        ("much until 18:00", None, "battery energy 'much'"),
        ("20Wh until 18:00", "10W", "sets the power cap by itself"),
        ("no-such.csv", None, "cannot be read"),
        ("speed", None, "unknown objective 'speed'"),
    ],
)
def test_what_cannot_be_followed_is_told(text: str, power_cap: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_objective(text, power_cap)


def test_small_changes_are_not_worth_choosing_anew() -> None:
    assert not differs(Objective(0.0, 1.0, 10.2), Objective(0.0, 1.0, 10.0))
    assert differs(Objective(0.0, 1.0, 12.0), Objective(0.0, 1.0, 10.0))
    assert differs(Objective(0.0, 1.0), Objective(0.0, 1.0, 10.0))
    assert not differs(Objective(1.02, 1.0), Objective(1.0, 1.0))
    assert differs(Objective(1.5, 1.0), Objective(1.0, 1.0))


def govern(board: EmulatedBoard, gov: EnergyGovernor, until_s: float) -> tuple[float, float]:
    """Until a time on the board's clock; mean watts, and mean seconds an inference, in hold."""
    held_s = held_j = 0.0
    count = 0
    while board.clock.now() < until_s:
        began_s, before_j = board.clock.now(), board.spent_j
        with gov.inference():
            board.infer()
        if gov.phase == "hold":
            count += 1
            held_s += board.clock.now() - began_s
            held_j += board.spent_j - before_j
    return held_j / held_s, held_s / count


def test_a_power_cap_is_held_and_the_objective_can_change_without_a_new_search() -> None:
    board = EmulatedBoard("orin-nano", "resnet-50", seed=1)
    with EnergyGovernor("none", objective="latency", power_cap="6W", device=board) as gov:
        power_w, slow_s = govern(board, gov, 60.0)
        assert power_w < 6.0 * 1.01
        searched = len(gov.trials)
        gov.set_objective("latency", power_cap="7W")
        power_w, quick_s = govern(board, gov, 90.0)
        assert power_w < 7.0 * 1.01
        assert quick_s < slow_s
        assert len(gov.trials) - searched <= 9
        assert gov.objective == Objective(0.0, 1.0, 7.0)
        assert gov.status().objective == "latency under 7 W"


def test_a_cap_that_is_exceeded_in_hold_is_fallen_back_from() -> None:
    board = EmulatedBoard("orin-nano", "yolov8n-320", seed=1)
    with EnergyGovernor("none", power_cap="6W", objective="latency", device=board) as gov:
        govern(board, gov, 45.0)
        assert gov.phase == "hold"
        board.set_workload("resnet-50")
        govern(board, gov, 48.0)
        assert gov.status().fallbacks == 1
        govern(board, gov, 100.0)
        power_w, _ = govern(board, gov, 120.0)
    assert power_w < 6.0 * 1.01


def test_a_battery_lasts() -> None:
    board = EmulatedBoard("orin-nano", "resnet-50", seed=2)
    began_j = board.spent_j
    with EnergyGovernor("none", objective=Battery("0.4Wh", until="240s"), device=board) as gov:
        govern(board, gov, 235.0)
        assert gov.objective.capped
    assert 0.8 * 0.4 < (board.spent_j - began_j) / 3600.0 < 0.4
