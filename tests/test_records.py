"""Run records: what is written, what survives, and what is refused on reading."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyBoard, ToyPolicy

from governor import EnergyGovernor, InputError
from governor.cli.main import main
from governor.records.file import LineFile
from governor.records.reader import Run, RunFile, read_run
from governor.records.trace import read_sweep

TESTS = str(Path(__file__).parent)


def govern(path: Path, inferences: int = 2500) -> EnergyGovernor:
    """A whole run on a toy board, recorded."""
    board = ToyBoard()
    with EnergyGovernor("40ms", device=board, policy=ToyPolicy, record=path) as gov:
        for _ in gov.watch(range(inferences)):
            board.infer()
    return gov


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[EnergyGovernor, Path]:
    path = tmp_path_factory.mktemp("records") / "run.jsonl"
    return govern(path), path


@pytest.fixture
def run(recorded: tuple[EnergyGovernor, Path]) -> Run:
    return read_run(recorded[1])


# what is written


def test_every_trial_is_recorded_as_the_policy_saw_it(
    recorded: tuple[EnergyGovernor, Path], run: Run
) -> None:
    gov, _ = recorded
    assert tuple(line.trial for line in run.searched) == gov.trials
    assert run.baseline is not None
    assert run.baseline.trial == gov.baseline


def test_the_header_says_what_was_governed_and_how(run: Run) -> None:
    header = run.header
    assert header.device == ToyBoard().info.name
    assert header.slo_s == pytest.approx(0.04)
    assert header.percentile == 0.95
    assert header.policy == "ToyPolicy"
    assert header.levels == {knob.name: list(knob.levels) for knob in ToyBoard().space.knobs}


def test_windows_follow_each_other_without_a_gap_and_hold_every_inference(
    recorded: tuple[EnergyGovernor, Path], run: Run
) -> None:
    gov, _ = recorded
    ends = [window.end_s for window in run.windows]
    assert ends == sorted(ends)
    assert [window.start_s for window in run.windows[1:]] == ends[:-1]
    assert sum(window.inferences for window in run.windows) == gov.status().inferences
    assert run.end is not None
    assert run.end.inferences == gov.status().inferences


def test_a_window_is_at_one_operating_point(run: Run) -> None:
    changes = {decision.time_s: decision for decision in run.decisions if decision.change}
    for window in run.windows:
        assert not any(window.start_s < at < window.end_s for at in changes)
        if window.start_s in changes:
            assert window.point == changes[window.start_s].point


def test_the_windows_joules_add_up_to_those_of_the_run(run: Run) -> None:
    assert run.end is not None
    spent_j = sum((window.energy_j or 0.0) * window.items for window in run.windows)
    assert spent_j == pytest.approx(run.end.total_j, rel=0.05)


def test_the_last_decision_says_what_is_held_and_saved(
    recorded: tuple[EnergyGovernor, Path], run: Run
) -> None:
    gov, _ = recorded
    held = [decision for decision in run.decisions if decision.kind == "hold"][-1]
    assert held.phase == "hold"
    assert held.slo_feasible is True
    assert held.saving == pytest.approx(gov.saving, rel=0.2)


def test_a_second_run_is_appended_and_the_latest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    govern(path, 50)
    first = path.read_bytes()
    govern(path, 60)
    assert path.read_bytes().startswith(first)
    latest = read_run(path)
    assert latest.end is not None
    assert latest.end.inferences == 60


# what survives


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    script = f"""
    import os, signal, sys
    sys.path.insert(0, {TESTS!r})
    from toy import ToyBoard, ToyPolicy
    from governor import EnergyGovernor
    board = ToyBoard()
    with EnergyGovernor("40ms", device=board, policy=ToyPolicy, record={str(path)!r}) as gov:
        for _ in gov.watch(range(3000)):
            board.infer()
            if gov.phase == "hold" and os.path.getsize({str(path)!r}) > 4000:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    run = read_run(path)
    assert run.end is None
    assert run.trials
    assert run.decisions


@given(cut=st.integers(0, 10_000))
def test_a_record_cut_off_anywhere_reads_up_to_its_last_whole_line(
    recorded: tuple[EnergyGovernor, Path], tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    content = recorded[1].read_bytes()
    header = content.index(b"\n") + 1
    kept = content[: header + cut % (len(content) - header)]
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    path.write_bytes(kept)
    run = read_run(path)
    lines = 1 + len(run.trials) + len(run.decisions) + len(run.windows)
    assert lines == kept.count(b"\n")
    assert run.torn == (not kept.endswith(b"\n"))


def test_a_run_after_a_crash_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    govern(path, 50)
    path.write_bytes(path.read_bytes()[:-20])
    govern(path, 60)
    file = RunFile(path)
    file.read()
    assert [run.torn for run in file.runs] == [True, False]
    assert [run.end is None for run in file.runs] == [True, False]


def test_a_record_can_be_followed_while_it_grows(
    recorded: tuple[EnergyGovernor, Path], tmp_path: Path
) -> None:
    content, path = recorded[1].read_bytes(), tmp_path / "run.jsonl"
    path.touch()
    file = RunFile(path)
    for start in range(0, len(content), 1000):
        with path.open("ab") as growing:
            growing.write(content[start : start + 1000])
        file.read()
    assert file.runs == [read_run(recorded[1])]


# what fails


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_counted_logged_once_and_leaves_governing_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="governor"):
        gov = govern(Path("/dev/full"))
    assert gov.phase == "hold"
    assert gov.status().record_errors > 10
    said = [each.getMessage() for each in caplog.records if "run record" in each.getMessage()]
    assert len(said) == 1
    assert "/dev/full" in said[0]
    assert "No space left" in said[0]


def test_a_folder_that_is_missing_leaves_governing_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gov = govern(tmp_path / "no" / "run.jsonl", 50)
    assert gov.status().inferences == 50
    assert gov.status().record_errors > 0
    assert "No such file" in caplog.text


def test_two_governors_do_not_mix_their_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.jsonl"
    first, second = LineFile(path), LineFile(path)
    for number in range(100):
        first.put(f'"first {number}"')
        second.put(f'"second {number}"')
    first.close()
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [f"first {number}" for number in range(100)]
    assert second.errors == 101
    assert "another governor writes it" in caplog.text


def test_a_file_that_holds_something_else_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("device,workload\n")
    assert govern(path, inferences=20).status().record_errors > 0
    assert "it holds something else" in caplog.text
    assert main(["demo", "--record", str(path)]) == 2
    assert "is no run record" in capsys.readouterr().err
    assert path.read_text() == "device,workload\n"


def test_what_is_no_path_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"run\.jsonl"):
        EnergyGovernor("40ms", device=ToyBoard(), record=5)  # type: ignore[arg-type]


# what is refused on reading


def line_of(path: Path, kind: str) -> int:
    """The number of the first line of that kind."""
    lines = path.read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if json.loads(line)["record"] == kind)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("trial", {"latency_s": -1.0}, "latency_s"),
        ("trial", {"point": {"gpu_hz": 0}}, "gpu_hz"),
        ("window", {"inferences": "many"}, "inferences"),
        ("window", {"power_w": {"total": float("nan")}}, "power_w"),
        ("decision", {"kind": "guess"}, "kind"),
        ("decision", {"record": "rumour"}, "rumour"),
        ("header", {"format": 2}, "reads format 1"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(
    recorded: tuple[EnergyGovernor, Path], tmp_path: Path, kind: str, change: dict, says: str
) -> None:
    number = line_of(recorded[1], kind)
    lines = recorded[1].read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | change)
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as refused:
        read_run(path)
    assert str(refused.value).startswith(f"{path}, line {number}: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no run"),
        (b"\n\n", "holds no run"),
        (b"device,workload\nnano,yolo\n", "line 1: is not JSON"),
        (b"\x89PNG\r\n\x1a\n\0\0\n", "line 1: is not JSON"),
        (b'{"record": "end"}\n', "line 1: "),
        (b"[1, 2]\n", "line 1: "),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_run(path)


def test_half_a_line_in_the_middle_is_no_crash(
    recorded: tuple[EnergyGovernor, Path], tmp_path: Path
) -> None:
    lines = recorded[1].read_text().splitlines()
    lines[4] = lines[4][:20]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="line 5: is not JSON"):
        read_run(path)


def test_keys_of_a_later_version_are_passed_over(
    recorded: tuple[EnergyGovernor, Path], tmp_path: Path
) -> None:
    path = tmp_path / "later.jsonl"
    with path.open("w") as file:
        for line in recorded[1].read_text().splitlines():
            file.write(json.dumps(json.loads(line) | {"mood": "good"}) + "\n")
    assert read_run(path) == read_run(recorded[1])


# replayed


def test_the_trials_of_a_record_can_be_searched_as_a_sweep(
    recorded: tuple[EnergyGovernor, Path],
) -> None:
    gov, path = recorded
    sweep = read_sweep(path)
    measured = {trial.point: trial for trial in gov.trials if not trial.energy_se_j > 1e-2}
    assert len(sweep.space) >= 2
    for row, latency_s in enumerate(sweep.latency_s):
        trial = measured[sweep.space.point(row)]
        assert trial.latency_s == latency_s
        assert trial.energy_j == sweep.energy_j[row]


def test_the_trials_on_an_emulated_board_are_an_emulated_sweep(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert main(["demo", "--policy", "coordinate", "--record", str(path)]) == 0
    assert read_sweep(path).emulated


def test_replay_takes_a_record(
    recorded: tuple[EnergyGovernor, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--latency-slo", "40ms", "--policy", "exhaustive", "--seeds", "1"]
    assert main(["replay", str(recorded[1]), *arguments]) == 0
    assert "toy" in capsys.readouterr().out


def test_a_record_of_too_short_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    govern(path, 50)
    assert main(["replay", str(path), "--latency-slo", "40ms"]) == 2
    assert "needs at least 2" in capsys.readouterr().err
