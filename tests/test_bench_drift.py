"""The bench of changes: each of its cases once, and an hour of none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from governor.cli.bench import drift
from governor.cli.bench.drift import CASES, Outcome, Reaction, Steadiness, react, read_latencies
from governor.cli.main import main
from governor.errors import InputError

QUICK = "roofline"
"""This policy needs the least time; what notices a change does not depend on it."""


@pytest.mark.parametrize("case", [case for case in CASES if case.matters], ids=lambda c: c.name)
def test_a_change_that_matters_is_noticed_within_three_windows(case):
    reaction = react(case, seed=1, policy=QUICK)
    assert reaction.noticed is not None
    assert reaction.windows <= 3
    assert reaction.excess < 0.05
    if case.name.startswith("phases"):
        assert reaction.trials <= 2
    if case.name.startswith("bound"):
        assert reaction.noticed == "bound"
        assert reaction.noticed_s < 0.6  # the next look, which follows an inference


def test_a_change_after_which_the_best_point_is_the_same_leaves_it_held():
    (case,) = (case for case in CASES if not case.matters)
    assert react(case, policy=QUICK).excess < 0.05


def test_an_hour_in_which_nothing_changes_raises_no_alarm_and_keeps_the_bound():
    times = 1 + 0.003 * np.random.default_rng(0).standard_normal(300)
    times[[*range(100, 105), *range(220, 225)]] *= 1.05  # one in thirty is slow, five in a row
    seen = drift.steady(1, [times.tolist()], policy=QUICK)
    assert seen.alarms == []
    assert (seen.hours, seen.kept) == (1, 1)
    assert seen.inferences > 10_000


def test_measured_latencies_keep_the_bound_and_raise_no_alarm(traces: Path):
    path = traces.parent / "latency-cycles-orin-nano.csv"
    if not path.exists():
        pytest.skip(f"no measured inference times: {path} is missing")
    noises = read_latencies(path)
    assert len(noises) == 96
    effects = drift.clustering(noises)
    assert 1.0 <= effects[48] < 2.0 < effects[-1] < 8.0  # what the guard assumes, and its cap
    seen = drift.steady(1, noises, policy=QUICK)
    assert seen.alarms == []
    assert seen.kept == 1


def test_a_file_of_latencies_is_split_by_setting(tmp_path: Path):
    file = tmp_path / "cycles.csv"
    rows = [f"net,{mhz},{n},{10 + n % 3}" for mhz in (300, 600) for n in range(150)]
    file.write_text("\n".join(["workload,gpu_mhz,cycle,latency_ms", *rows, "net,900,0,12"]))
    series = read_latencies(file)
    assert [len(each) for each in series] == [150, 150]
    assert series[0][:3] == pytest.approx([0.010, 0.011, 0.012])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycle,ms\n1,2\n", "no column latency_ms"),
        ("cycle,latency_ms\n1,2\n2,fast\n", "line 3, latency_ms: 'fast' is no positive number"),
        ("cycle,latency_ms\n1,-2\n", "line 2, latency_ms"),
        ("cycle,latency_ms\n1\n", "line 2, latency_ms: None"),
        ("cycle,latency_ms\n1,2\n", "no setting has 120 inferences"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_line_and_column(tmp_path, text, message):
    file = tmp_path / "cycles.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_latencies(file)
    assert main(["bench", "drift", "--latencies", str(file)]) == 2


def test_a_file_that_is_missing_is_an_error_of_input(tmp_path, capsys):
    assert main(["bench", "drift", "--latencies", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def reaction(windows, noticed="drift"):
    return Reaction(noticed, windows, 3.0, 20.0, 0, 400, 9, 0.004)


def test_the_command_says_what_was_seen_and_what_was_not_reached(tmp_path, capsys, monkeypatch):
    late, unseen = CASES[0].name, CASES[1].name
    steadiness = Steadiness(24, ["latency drifted by +3 %"], 23, 100, 1_000_000)
    outcome = Outcome(
        {late: [reaction(2), reaction(4)], unseen: [reaction(9, None)]}, steadiness, "none", [1.2]
    )
    monkeypatch.setattr(drift, "measure", lambda *_args, **_kwargs: outcome)
    file = tmp_path / "drift.json"
    assert main(["bench", "drift", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "3, 4" in out
    assert "1 false alarms" in out
    for missed in (f"{late} noticed within 3", f"{unseen} noticed", "1.0 false", "23 of 24 hours"):
        assert missed in err
    written = json.loads(file.read_text())
    assert written["cases"][late][1]["windows"] == 4
    assert written["steady"]["hours_kept"] == 23
    assert written["missed"] == outcome.missed


def test_what_was_not_noticed_has_no_time_in_json():
    seen = Reaction(None, 9, math.nan, math.nan, 0, 400, 0, 0.0)
    outcome = Outcome({"x": [seen]}, Steadiness(), "none", [])
    assert drift.document(outcome)["cases"]["x"][0]["held_s"] is None
