"""The live screen: what it shows, and that it fits."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from governor import EnergyGovernor
from governor.decision import Decision
from governor.devices.emulated import EmulatedBoard
from governor.report.terminal import Scene, energy_chart, line, screen
from governor.slo import LatencySLO
from governor.space import OperatingPoint
from governor.trial import Trial

SLO_S = 0.05


def text(renderable: object) -> list[str]:
    """As a terminal of 80 columns without colour would show it."""
    console = Console(file=io.StringIO(), width=80, height=24, no_color=True)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def trial(energy_j: float, latency_s: float = 0.04) -> Trial:
    return Trial(
        point=OperatingPoint({"gpu_hz": 1e9}),
        latency_s=latency_s,
        latency_se_s=0.001,
        mean_latency_s=latency_s,
        mean_latency_se_s=0.001,
        energy_j=energy_j,
        energy_se_j=0.001,
        power_w=10.0,
        inferences=50,
        items=50,
        duration_s=2.0,
    )


def heights(rows: list[str]) -> list[int]:
    """Of each bar: the rows that it reaches into."""
    bars = [row.split("│ ")[1] for row in rows if "│" in row]
    count = max(len(bar.rstrip()) for bar in bars) // 4 + 1
    return [sum(bar[4 * n : 4 * n + 1].strip() != "" for bar in bars) for n in range(count)]


def test_a_dearer_trial_has_a_taller_bar() -> None:
    low, high, middle = heights(text(energy_chart([trial(0.2), trial(0.6), trial(0.4)], SLO_S)))
    assert low < middle < high


def test_a_trial_that_missed_the_slo_is_told_apart_without_colour() -> None:
    kept, missed = (
        "".join(text(energy_chart([trial(0.4, latency)], SLO_S))[1:]) for latency in (0.04, 0.06)
    )
    assert "█" in kept
    assert "░" not in kept
    assert "░" in missed
    assert "█" not in missed


def test_a_trial_without_a_power_reading_is_shown_as_unknown() -> None:
    assert any("?" in row for row in text(energy_chart([trial(0.4), trial(math.nan)], SLO_S)))


@given(st.lists(st.floats(1e-3, 1e3), max_size=40))
def test_the_chart_fits_however_many_trials_there_are(energies_j: list[float]) -> None:
    rows = text(energy_chart([trial(energy_j) for energy_j in energies_j], SLO_S))
    assert len(rows) == 8
    assert max(map(len, rows)) <= 80


@pytest.mark.parametrize("board_name", ["nano", "agx-orin"])
def test_the_screen_fits_80_by_24_at_every_decision(board_name: str) -> None:
    slo = LatencySLO.parse("1.5x")
    board = EmulatedBoard(board_name, "yolov8n")
    shown: list[list[str]] = []

    def note(decision: Decision) -> None:
        scene = Scene(
            title=f"EMULATION: {board.info.description}, yolov8n, virtual time",
            time_s=decision.time_s,
            slo=slo,
            total_rail=board.info.total_rail,
            trials=gov.trials,
            decision=decision,
        )
        shown.append(text(screen(gov.status(), scene)))

    with EnergyGovernor("1.5x", device=board, policy="coordinate", callback=note) as gov:
        while gov.phase != "hold":
            with gov.inference():
                board.infer()
    assert len(shown) > 5
    assert max(len(rows) for rows in shown) <= 23
    assert max(len(row) for rows in shown for row in rows) <= 80
    assert "[HOLD]" in shown[-1][2]


def test_a_line_is_one_line_with_the_time_since_the_start() -> None:
    decision = Decision(
        time_s=12.5, kind="freeze", phase="search", point=None, change=False, reason="no input"
    )
    assert line(decision, began_s=10.0).split() == ["2.5", "s", "search", "freeze", "no", "input"]
