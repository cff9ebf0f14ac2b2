"""Finished runs kept in a file: what a killed command did is not done again."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import main
from governor.devices.trace import write_trace
from governor.errors import InputError
from governor.finished import FinishedFile, resumed
from governor.replay import ReplayRun, Task, run, settings_of
from governor.units import parse_bound

COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]


@dataclasses.dataclass(frozen=True)
class Square:
    of: int
    is_: float


SETTINGS = {"power": "2"}


def squares(tasks: Sequence[int]) -> Iterator[Square]:
    return (Square(task, task * task / 3) for task in tasks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the results of two of three tasks."""
    with FinishedFile(tmp_path / "done.jsonl", SETTINGS, Square) as file:
        for number, result in enumerate(squares([4, 5])):
            file.keep(number, result)
    return tmp_path / "done.jsonl"


def test_what_is_in_the_file_is_not_made_again(path: Path) -> None:
    asked: list[int] = []

    def work(tasks: Sequence[int]) -> Iterator[Square]:
        asked.extend(tasks)
        return squares(tasks)

    for _ in range(2):
        with FinishedFile(path, SETTINGS, Square) as file:
            assert list(resumed(file, [4, 5, 6], work)) == list(squares([4, 5, 6]))
    assert asked == [6]


def test_a_line_that_was_torn_counts_as_not_there(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with FinishedFile(path, SETTINGS, Square) as file:
        assert list(file.results) == [0]
        file.keep(1, Square(5, 25 / 3))
    assert path.read_bytes() == whole


def test_a_replayed_run_comes_back_as_it_was(tmp_path: Path) -> None:
    task = Task(analytic_sweep(), parse_bound("1.3x"), "coordinate", 0, 6, 0.02, curve=True)
    done = run(task)
    for _ in range(2):
        with FinishedFile(tmp_path / "f", settings_of([task]), ReplayRun) as file:
            if not file.results:
                file.keep(0, done)
            assert file.results == {0: done}


def test_a_file_of_other_settings_is_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError, match="other settings \\(power 2, not 3\\)"):
        FinishedFile(path, {"power": "3"}, Square)
    assert path.read_bytes() == before


def test_the_settings_of_replayed_runs_tell_any_difference() -> None:
    sweep = analytic_sweep()
    task = Task(sweep, parse_bound("1.3x"), "random", 0, 6, 0.02)
    slower = dataclasses.replace(sweep, latency_s=sweep.latency_s * 1.01)
    changes: list[dict[str, object]] = [
        {"sweep": slower},
        {"slo": parse_bound("1.4x")},
        {"policy": "coordinate"},
        {"seed": 1},
        {"trials": 7},
        {"noise": 0.03},
        {"curve": True},
    ]
    told = [settings_of([dataclasses.replace(task, **change)]) for change in [{}, *changes]]  # pyright: ignore
    assert len({tuple(one.items()) for one in told}) == len(told)


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("do not lose\n")
    with pytest.raises(InputError, match="no file of finished runs"):
        FinishedFile(other, SETTINGS, Square)
    assert other.read_text() == "do not lose\n"


def test_a_broken_line_is_named(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "rubbish\n" + lines[2])
    with pytest.raises(InputError, match="line 2: is no result"):
        FinishedFile(path, SETTINGS, Square)


def test_two_processes_do_not_share_a_file(path: Path) -> None:
    with FinishedFile(path, SETTINGS, Square), pytest.raises(InputError, match="in use"):
        FinishedFile(path, SETTINGS, Square)


@pytest.mark.parametrize("command", [["replay", "--policy"], ["compare", "--policies"]])
def test_a_command_that_was_killed_goes_on_without_repeating_a_run(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs(*options: str) -> object:
        out = tmp_path / "out.json"
        assert main([*arguments, *options, "--json", str(out)]) == 0
        capsys.readouterr()
        document = json.loads(out.read_text())
        return [{**one, "search_seconds": 0} for one in document["runs"]]

    name, option = command
    done = tmp_path / "done.jsonl"
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    arguments = [name, str(tmp_path / "t.csv"), "--latency-slo", "1.5x", "--trials", "6"]
    arguments += [option, "random", "--seeds", "300", "--jobs", "1"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--resume", str(done)], stdout=subprocess.DEVNULL
    )
    while not done.exists() or done.read_bytes().count(b"\n") < 20:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = done.read_bytes()
    assert finished.count(b"\n") < 300
    assert runs("--resume", str(done)) == runs()
    assert done.read_bytes().startswith(finished[: finished.rindex(b"\n") + 1])
    assert done.read_bytes().count(b"\n") == 1 + 300
    assert main([*arguments, "--resume", str(done), "--seeds", "5"]) == 2
    error = capsys.readouterr().err
    assert "runs of other settings (seeds 300 from 0, not 5 from 0)" in error
    assert error.count("\n") == 1
