"""``governor replay`` and ``governor compare``, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import main
from governor.devices.trace import Sweep, read_traces, write_trace

COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]
MEASURED = Path(
    os.environ.get("GOVERNOR_TRACES", Path(__file__).parents[2] / "shared" / "data" / "traces")
)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Two sweeps of one board."""
    path = tmp_path / "trace.csv"
    write_trace(path, [analytic_sweep(workload="net"), analytic_sweep(workload="other")])
    return str(path)


def test_replay_prints_a_table_and_writes_json(trace: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [*COMMAND, "replay", trace, "--latency-slo", "1.3x", "--latency-slo", "40ms", "--policy",
         "random", "--seeds", "2", "--trials", "6", "--json", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "random, 6 trials, replayed on measured sweeps with 2.0 % noise" in done.stdout
    assert "made-up net batch 4" in done.stdout
    document = json.loads(out.read_text(encoding="utf-8"))
    assert len(document["runs"]) == 2 * 2 * 2
    assert {run["workload"] for run in document["runs"]} == {"net", "other"}
    assert {len(run["trials"]) for run in document["runs"]} == {6}


def test_the_same_command_gives_the_same_numbers(trace: str, tmp_path: Path) -> None:
    def numbers(name: str) -> object:
        out = tmp_path / name
        arguments = ["replay", trace, "--latency-slo", "1.3x", "--policy", "coordinate"]
        assert main([*arguments, "--json", str(out)]) == 0
        document = json.loads(out.read_text(encoding="utf-8"))
        return [
            {name: value for name, value in run.items() if name != "search_seconds"}
            for run in document["runs"]
        ]

    assert numbers("one.json") == numbers("two.json")


def test_only_the_sweeps_asked_for_are_replayed(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", trace, "--latency-slo", "1.3x", "--policy", "random"]
    assert main([*arguments, "--workload", "other", "--device", "made-up"]) == 0
    table = capsys.readouterr().out
    assert "made-up other batch 4" in table
    assert "made-up net batch 4" not in table


def test_an_slo_that_nothing_keeps_is_said(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", trace, "--latency-slo", "1us", "--policy", "random", "--seeds", "3"]
    assert main(arguments) == 0
    assert "6 of 6 runs had bounds that no setting" in capsys.readouterr().out


def test_compare_prints_plots_and_writes(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, out = tmp_path / "plot.html", tmp_path / "out.json"
    arguments = ["compare", trace, "--latency-slo", "1.5x", "--policies", "coordinate, random"]
    assert main([*arguments, "--plot", str(plot), "--json", str(out), "--seeds", "2"]) == 0
    table = capsys.readouterr().out
    assert "replayed on 2 measured sweeps" in table
    for text in ("coordinate", "random", "every setting once", "≤ 12", "≤ 25"):
        assert text in table
    assert "<svg" in plot.read_text(encoding="utf-8")
    document = json.loads(out.read_text(encoding="utf-8"))
    assert set(document["summary"]["policies"]) == {"coordinate", "random"}
    for summary in document["summary"]["policies"].values():
        assert [(whole["budget"], whole["windows"]) for whole in summary["whole_runs"]] == [
            (12, 100),
            (25, 100),
        ]


@pytest.mark.parametrize("command", ["replay", "compare"])
def test_a_sweep_of_an_emulated_board_is_not_said_to_be_measured(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.csv"
    nano = analytic_sweep("nano (emulated)")
    policy = ["--policies" if command == "compare" else "--policy", "random", "--seeds", "1"]

    def heading(*sweeps: Sweep) -> str:
        write_trace(path, sweeps)
        assert main([command, str(path), "--latency-slo", "1.3x", *policy]) == 0
        return capsys.readouterr().out

    assert "emulated sweep" in (shown := heading(nano))
    assert "measured" not in shown
    assert "measured and emulated sweeps" in heading(nano, analytic_sweep())


def test_the_tables_of_compare_fit_a_terminal_of_80_columns(
    trace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("governor.cli.replay.PIPE_WIDTH", 80)
    policies = "gradient-descent,linear-sweep,coordinate,random,fixed"
    assert main(["compare", trace, "--latency-slo", "1.2x", "--policies", policies]) == 0
    lines = capsys.readouterr().out.splitlines()
    # A folded cell or heading would stand on a line of its own.
    rows = [line.split()[0] for line in lines if line[:2].strip()]
    assert rows.count("gradient-descent") == 2
    assert not {"governors", "once", "ent", "cent"} & set(rows)


def test_an_emulated_board_is_compared_with_its_default_governors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    arguments = ["compare", "--board", "nano", "--workload", "resnet-18", "--latency-slo", "1.5x"]
    assert main([*arguments, "--policies", "fixed", "--seeds", "1", "--json", str(out)]) == 0
    table = capsys.readouterr().out
    assert "EMULATION of nano: resnet-18" in table
    assert table.count("default governors") == 2
    summary = json.loads(out.read_text(encoding="utf-8"))["summary"]
    assert summary["default_governors"]["excess_mean"] > 0


def test_compare_with_an_slo_that_nothing_keeps_says_so(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", trace, "--latency-slo", "1us", "--policies", "random"]
    assert main(arguments) == 0
    assert "no setting of the sweep keeps" in capsys.readouterr().out


def test_a_plot_of_nothing_is_refused(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", trace, "--latency-slo", "1us", "--policies", "random"]
    assert main([*arguments, "--plot", str(tmp_path / "plot.png")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("command", ["replay", "compare"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--latency-slo", "0ms"], "must be positive"),
        (["--latency-slo", "nan"], "not a number with a unit"),
        (["--latency-slo", "-1.3x"], "must be positive"),
        (["--latency-slo", "50 parsecs"], "unknown unit 'parsecs'"),
        (["--latency-slo", "50"], "has no unit"),
        (["--latency-slo", "1.3x", "--workload", "nope"], "choose among net, other"),
        (["--latency-slo", "1.3x", "--device", "nope"], "choose among made-up"),
        (["--latency-slo", "1.3x", "--json", "/nowhere/out.json"], "cannot be written"),
        (["--latency-slo", "1.3x", "--json", "/"], "is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: str, options: list[str], says: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = {"replay": ["--policy", "random"], "compare": ["--policies", "random"]}[command]
    assert main([command, trace, *options, *policy]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("governor: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err


@pytest.mark.parametrize("command", ["replay", "compare", "seeding", "transfer"])
def test_no_trace_is_written_over_by_what_is_said_of_it(
    command: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(trace).read_bytes()
    assert main([command, trace, "--latency-slo", "1.3x", "--json", trace]) == 2
    assert "is an input" in capsys.readouterr().err
    assert Path(trace).read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--policy", "psychic"],
        ["compare", "--policies", "random,psychic"],
    ],
)
def test_an_unknown_policy_is_named_with_the_known_ones(
    arguments: list[str], trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, trace, "--latency-slo", "1.3x"]) == 2
    message = capsys.readouterr().err
    assert "unknown policy 'psychic'" in message
    assert "bayesian" in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--plot", "plot.gif"], ".png, .svg, .html"),
        (["--policies", ","], "names none"),
        (["--budget", "26"], "more than 25 --trials"),
        (["--windows", "10", "--budget", "12"], "10 --windows"),
        (["--board", "nano"], "either traces or --board"),
    ],
)
def test_compare_refuses_what_it_cannot_do(
    options: list[str], says: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", trace, "--latency-slo", "1.3x", "--policies", "random"]
    assert main([*arguments, *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "either traces or --board"),
        (["--board", "nano"], "needs a --workload"),
        (["--board", "nano", "--workload", "yolov8n", "--device", "tx2"], "drop it"),
        (["--board", "toaster", "--workload", "yolov8n"], "toaster"),
        (["--board", "nano", "--workload", "tetris"], "tetris"),
    ],
)
def test_compare_says_what_an_emulated_board_needs(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--latency-slo", "1.3x", *options]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_a_broken_trace_through_the_command_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    write_trace(path, [analytic_sweep()])
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",nan"
    path.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "replay", str(path), "--latency-slo", "1.3x", "--policy", "random"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"governor: {path}, line 4, column energy_j: 'nan' is not a positive number; "
        "correct or drop this row\n"
    )


@pytest.mark.skipif(
    not MEASURED.is_dir(),
    reason=f"measured sweeps are not at {MEASURED}; set GOVERNOR_TRACES to their folder",
)
def test_every_measured_sweep_can_be_read_and_replayed() -> None:
    files = sorted(MEASURED.glob("*.csv"))
    sweeps = read_traces(files)
    assert len({str(sweep) for sweep in sweeps}) == len(sweeps) > 0
    for sweep in sweeps:
        fastest = sweep.optimum(1e-12)
        assert sweep.latency_s[fastest] == sweep.latency_s.min()
    arguments = ["--latency-slo", "1.3x", "--policy", "coordinate", "--seeds", "1"]
    assert main(["replay", *map(str, files), *arguments]) == 0
