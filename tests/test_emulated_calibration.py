"""How near the emulated boards come to published figures: bounds that a regression breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from governor.cli.main import main
from governor.devices.emulated.calibration import Comparison, anchors, compare, summarise

# Mean absolute error, relative; what was reached, and a margin.
BOUNDS = {
    ("nano", "latency"): 0.05,
    ("nano", "power"): 0.04,
    ("tx2", "latency"): 0.08,
    ("tx2", "power"): 0.03,
    ("xavier-nx", "latency"): 0.13,
    ("xavier-nx", "power"): 0.03,
    ("agx-xavier", "latency"): 0.06,
    ("agx-xavier", "power"): 0.03,
    ("orin-nano", "latency"): 0.06,
    ("orin-nano", "power"): 0.03,
    ("orin-nx", "latency"): 0.15,
    ("orin-nx", "power"): 0.03,
    ("agx-orin", "latency"): 0.06,
    ("agx-orin", "power"): 0.08,
}


@pytest.fixture(scope="module")
def comparisons() -> list[Comparison]:
    return compare()


def test_every_board_meets_its_published_figures_about_as_well_as_stated(
    comparisons: list[Comparison],
) -> None:
    reached = {(each.board, each.quantity): each.mean_error for each in summarise(comparisons)}
    assert reached.keys() == BOUNDS.keys()
    assert {key: error for key, error in reached.items() if error > BOUNDS[key]} == {}


def test_no_single_anchor_is_off_by_more_than_a_third(comparisons: list[Comparison]) -> None:
    assert [each for each in comparisons if abs(each.error) > 0.33] == []


def test_every_anchor_names_its_source() -> None:
    assert all(anchor.source for anchor in anchors())


def test_the_command_prints_every_anchor_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calibration.json"
    assert main(["emulate", "--calibration", "--board", "tx2", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "tx2 (emulated)" in shown
    assert "thynics/jetson_dvfs" in shown
    document = json.loads(path.read_text())
    assert len(document["anchors"]) == len(anchors("tx2"))
    assert {each["quantity"] for each in document["summary"]} == {"latency", "power"}


def test_the_command_refuses_an_unknown_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--board", "tx1"]) == 2
    refusal = capsys.readouterr().err
    assert "unknown board 'tx1' (did you mean 'tx2'?); choose one of nano" in refusal
