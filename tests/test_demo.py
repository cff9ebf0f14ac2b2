"""What ``governor demo`` shows and writes. The policy is a quick one; any name will do."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.records.reader import read_run
from governor.space import OperatingPoint

QUICK = ("--policy", "coordinate")
COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]


def demo(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of one run."""
    path = tmp_path / "demo.json"
    assert main(["demo", *QUICK, "--json", str(path), *arguments]) == 0
    return json.loads(path.read_text())


def test_it_saves_energy_against_all_max_and_keeps_the_slo(tmp_path: Path) -> None:
    outcome = demo(tmp_path)
    assert outcome["held"]["energy_j"] < outcome["all_max"]["energy_j"]
    assert outcome["slo_kept"]
    assert outcome["held"]["latency_s"] <= outcome["slo_s"] == 0.05


def test_what_is_held_costs_no_less_than_the_emulators_own_optimum(tmp_path: Path) -> None:
    outcome = demo(tmp_path)
    assert outcome["held"]["energy_j"] > 0.98 * outcome["optimum"]["energy_j"]
    assert outcome["optimum"]["latency_s"] <= outcome["slo_s"]


def test_the_optimum_keeps_the_thermal_limit_that_the_governor_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = ("--board", "xavier-nx", "--ambient", "35C", "--latency-slo", "48ms")
    free, limited = demo(tmp_path, *hot), demo(tmp_path, *hot, "--thermal-limit", "50C")
    board = EmulatedBoard("xavier-nx", "yolov8n", ambient_c=35.0)
    points = [OperatingPoint(outcome["optimum"]["point"]) for outcome in (free, limited)]
    free_c, limited_c = (
        board.true_temperature_c()["tj"][board.space.index(point)] for point in points
    )
    assert limited_c <= 50.0 < free_c
    shown = capsys.readouterr().out
    assert "optimum within limit" in shown
    assert "nothing measured keeps the SLO" in shown


def test_it_says_everywhere_that_it_is_an_emulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo(tmp_path)["emulated"] is True
    shown = capsys.readouterr().out
    assert shown.startswith("EMULATION")
    assert "nothing was measured on hardware" in shown


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, second = demo(tmp_path, "--seed", "3"), demo(tmp_path, "--seed", "3")
    assert first | {"wall_s": 0} == second | {"wall_s": 0}
    assert first["trials"] != demo(tmp_path, "--seed", "4")["trials"]


def test_every_trial_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = demo(tmp_path)
    assert 1 < len(outcome["trials"]) <= 12
    assert outcome["trials"][0]["point"] == outcome["all_max"]["point"]
    assert f"Trials: {len(outcome['trials'])} in" in capsys.readouterr().out


@pytest.mark.parametrize("board", ["nano", "xavier-nx"])
def test_it_runs_on_other_boards(tmp_path: Path, board: str) -> None:
    outcome = demo(tmp_path, "--board", board, "--latency-slo", "2x")
    assert outcome["board"] == board
    assert outcome["slo_kept"]


def test_a_relative_slo_is_relative_to_the_all_max_clocks(tmp_path: Path) -> None:
    outcome = demo(tmp_path, "--latency-slo", "1.5x")
    assert outcome["slo_s"] == pytest.approx(1.5 * outcome["all_max"]["latency_s"])


def test_an_slo_that_nothing_keeps_is_said_to_be_one_and_the_fastest_point_is_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = demo(tmp_path, "--latency-slo", "1ms")
    assert not outcome["slo_feasible"]
    assert not outcome["slo_kept"]
    # All-max saves nothing against the default governors, which are held instead where so.
    assert outcome["held"]["point"] in (None, outcome["all_max"]["point"])
    assert "Nothing keeps this SLO" in capsys.readouterr().out


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert [line.split()[2] for line in shown.splitlines()[1:3]] == ["profile", "search"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--board", "pi"), "agx-orin"),
        (("--workload", "gpt9"), "yolov8n"),
        (("--policy", "luck"), "coordinate"),
        (("--latency-slo", "0ms"), "positive"),
        (("--latency-slo", "50 bananas"), "bananas"),
        (("--latency-slo", "nan"), "latency SLO"),
        (("--thermal-limit", "gpux=80C"), "unknown zone of --thermal-limit 'gpux'"),
        (("--json", "/no/such/folder/x.json"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert says in said.err


def test_in_real_time_a_real_loop_runs_beside_the_governors_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor.cli.demo.HOLD_S", 1.0)
    path = tmp_path / "demo.json"
    arguments = ["--realtime", "--workload", "yolov8n-trt", "--policy", "fixed"]
    assert main(["demo", *arguments, "--json", str(path)]) == 0
    outcome = json.loads(path.read_text())
    assert outcome["realtime"]
    # All-max saves nothing against the default governors, which are held instead where so.
    assert outcome["held"]["point"] in (None, outcome["all_max"]["point"])
    assert outcome["wall_s"] == pytest.approx(outcome["board_s"], abs=0.5)


def test_a_terminal_gets_a_screen_that_lives() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        [*COMMAND, "demo", *QUICK], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = _read_all(ours)
    assert process.returncode == 0
    for phase in ("BASELINE", "SEARCH", "HOLD"):
        assert f"[{phase}]" in shown
    assert "What it came to" in shown


def _read_all(terminal: int) -> str:
    """What is written to a terminal until its other side is closed."""
    chunks: list[bytes] = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError:  # Linux says so when the last process has closed it
        pass
    finally:
        os.close(terminal)
    return b"".join(chunks).decode()


def test_ctrl_c_ends_it_with_130_and_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--realtime", *QUICK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said


def test_the_report_shows_every_setting_of_the_emulator_and_says_that_it_is_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "demo.html"
    assert main(["demo", *QUICK, "--report", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    assert "EMULATED" in page
    assert "all 1276 settings" in page


def test_a_recorded_demo_is_the_run_that_was_shown(tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    outcome = demo(tmp_path, "--record", str(record))
    trials = [line.trial for line in read_run(record).searched]
    assert [trial.latency_s for trial in trials] == [
        trial["latency_s"] for trial in outcome["trials"]
    ]


def test_a_report_that_is_no_page_is_refused_before_the_run(tmp_path: Path) -> None:
    refused = subprocess.run(
        [*COMMAND, "demo", *QUICK, "--report", str(tmp_path / "demo.pdf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "end it in .html" in refused.stderr
