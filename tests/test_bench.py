"""The benchmarks measure what they say; no test here asserts a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from governor.cli import bench
from governor.cli.bench import Measurement
from governor.cli.main import main
from governor.pace import Pace

QUICK = Pace(baseline_precision=0.1, precision=0.1, window_min_s=0.2, readings_min=2.0)


@pytest.mark.parametrize(
    "measure",
    [
        lambda: bench.span(rounds=3, inferences=50),
        lambda: bench.loop(seconds=0.4, pace=QUICK),
        lambda: bench.fresh_import(processes=1),
        lambda: bench.next_point("coordinate", searches=1),
        lambda: bench.converge("coordinate", searches=1),
        lambda: bench.emulator(inferences=200),
        lambda: bench.metrics(seconds=0.5, rounds=1),
    ],
)
def test_a_benchmark_gives_figures_with_their_units(
    measure: Callable[[], list[Measurement]],
) -> None:
    for one in measure():
        assert math.isfinite(one.value)
        assert one.value > 0
        assert one.unit
        assert one.note


def test_a_budget_is_met_below_it_only() -> None:
    assert Measurement("x", 1.9, "µs", 2.0).met is True
    assert Measurement("x", 2.0, "µs", 2.0).met is False
    assert Measurement("x", 2.0, "µs").met is None


def test_the_next_point_is_taken_on_a_lattice_of_5000() -> None:
    (one,) = bench.next_point("random", searches=1)
    assert "5000 settings" in one.what


def test_bench_prints_a_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "emulator", lambda: [Measurement("speed", 7.0, "x", 9.0, "so")])
    assert main(["bench", "emulator", "--json", str(tmp_path / "out.json")]) == 0
    assert "< 9 x" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [
        {"what": "speed", "value": 7.0, "unit": "x", "budget": 9.0, "note": "so", "met": True}
    ]


def test_a_missed_budget_is_exit_code_1_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "emulator", lambda: [Measurement("speed", 9.5, "x", 9.0)])
    assert main(["bench", "emulator"]) == 1
    assert capsys.readouterr().err == "governor: over budget: speed\n"


def test_an_unknown_benchmark_is_named_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "everything"]) == 2
    assert (
        "span, loop, import, next-point, converge, emulator, metrics, "
        "bursts, drift, heat, instrument" in capsys.readouterr().err
    )
