"""A fleet of emulated boards: how they differ, what later ones gain, and going on after a kill."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres import PostgresServer

from governor.cli.fleet import results
from governor.cli.fleet.governing import BoardRun, Rules, Task, govern
from governor.cli.fleet.members import ROOM_C, Cohort, Member, cohorts, members, silicon
from governor.cli.main import main
from governor.devices.emulated.hardware import load_board
from governor.store import ProfileStore

COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]
COHORT = next(one for one in cohorts() if str(one) == "orin-nano camera")
RULES = Rules(trials=5, noise=0.0, windows=50)
SMALL = ["fleet", "--boards", "6", "--waves", "2", "--trials", "2", "--jobs", "1", "-o"]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "profiles.db")


def member(number: int, cohort: Cohort = COHORT) -> Member:
    return Member(number, wave=number, cohort=cohort, room_c=25.0, seed=number)


def switch_on(number: int, store: str, cohort: Cohort = COHORT) -> BoardRun:
    """Govern a board, and leave in the store what it has learnt."""
    done = govern(Task(member(number, cohort), RULES, store))
    with ProfileStore(store) as profiles:
        profiles.save(cohort.key, done.profile)
    return done


def boards(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "fleet.json").read_text())["boards"]


# What the boards are ----------------------------------------------------------------------


def test_a_fleet_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert members(50, 5, seed=1) == members(50, 5, seed=1) != members(50, 5, seed=2)


def test_waves_are_of_equal_size_and_rooms_are_within_reason() -> None:
    fleet = members(100, 4, seed=0)
    assert np.bincount([one.wave for one in fleet]).tolist() == [25] * 4
    assert all(ROOM_C[0] <= one.room_c <= ROOM_C[1] for one in fleet)
    assert {one.cohort for one in members(1000, 1, seed=0)} == set(cohorts())


def test_boards_of_a_kind_differ_in_what_they_draw_and_hardly_in_how_fast_they_are() -> None:
    one, other = member(1).board(), member(2).board()
    (latency_s, energy_j), (latency_too_s, energy_too_j) = one.truth(), other.truth()
    assert latency_too_s == pytest.approx(latency_s, rel=0.03)
    assert np.all(np.abs(energy_too_j / energy_j - 1) > 0.001)
    assert energy_too_j == pytest.approx(energy_j, rel=0.3)


def test_silicon_scatters_around_its_kind() -> None:
    kind = load_board("nano")
    leaks = [silicon(kind, seed).gpu.leakage_w / kind.gpu.leakage_w for seed in range(400)]
    assert np.median(leaks) == pytest.approx(1, abs=0.06)
    assert np.std(np.log(leaks)) == pytest.approx(0.35, rel=0.15)
    assert silicon(kind, 3).gpu == silicon(kind, 3).gpu != silicon(kind, 4).gpu


def test_a_room_and_the_silicon_change_what_the_kernels_governors_draw() -> None:
    cold, hot = (dataclasses.replace(member(1), room_c=room_c).board() for room_c in (5.0, 45.0))
    assert hot.true_default()[1] > cold.true_default()[1]


# What they learn from each other -----------------------------------------------------------


def test_a_board_holds_in_two_trials_what_one_of_its_cohort_has_found(store: str) -> None:
    first, second = switch_on(1, store), switch_on(2, store)
    assert (first.known, second.known) == ("nothing", "same")
    assert first.shared == first.alone
    assert first.shared.trials > second.shared.trials == 2
    assert second.shared.slo_kept
    assert second.shared.energy_j < second.alone.energy_j


def test_a_setting_that_breaks_its_promise_is_not_held(store: str) -> None:
    found = switch_on(1, store)
    slow = {name: levels[0] for name, levels in found.profile.levels.items()}
    trials = [*found.profile.trials, dataclasses.replace(found.profile.trials[0], point=slow)]
    misleading = dataclasses.replace(found.profile, chosen=slow, trials=trials)
    with ProfileStore(store) as profiles:
        profiles.save(COHORT.key, misleading)
    second = govern(Task(member(2), RULES, store))
    assert second.shared.trials > 2
    assert second.shared.slo_kept


def test_other_workloads_of_the_kind_are_similar_not_the_same(store: str) -> None:
    switch_on(1, store)
    server = next(one for one in cohorts() if str(one) == "orin-nano server")
    assert switch_on(2, store, server).known == "similar"


def test_the_search_is_part_of_the_energy_and_nothing_beats_the_least(store: str) -> None:
    done = switch_on(1, store)
    assert done.alone.energy_j > done.least.energy_j == done.least.held_j
    total = results.group([done])
    assert total.alone_w == pytest.approx(done.alone.energy_j * done.rate_hz)
    assert total.boards == 1


# The command --------------------------------------------------------------------------------


def test_a_fleet_that_was_killed_goes_on_and_comes_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*COMMAND, *SMALL, str(killed)])
    lines = killed / "boards.jsonl"
    while not lines.exists() or lines.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = lines.read_bytes()
    done = done[: done.rindex(b"\n") + 1]
    assert main([*SMALL, str(killed)]) == 0
    assert lines.read_bytes().startswith(done)
    assert main([*SMALL, str(whole)]) == 0
    assert boards(killed) == boards(whole)
    output = capsys.readouterr().out
    assert "EMULATION" in output
    assert (
        max(len(line.rstrip()) for line in output.splitlines() if "│" in line or "─" in line) <= 80
    )
    assert (whole / "fleet.png").read_bytes().startswith(b"\x89PNG")


def test_a_fleet_shares_a_postgresql_store_as_it_does_a_file(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    assert main([*SMALL, str(tmp_path / "file")]) == 0
    assert main([*SMALL, str(tmp_path / "server"), "--store", postgres.url]) == 0
    assert boards(tmp_path / "server") == boards(tmp_path / "file")
    with ProfileStore(postgres.url) as profiles:
        kept = {entry.key.board for entry in profiles.entries()}
    assert all(board.startswith("emulated:") for board in kept)
    assert main([*SMALL, str(tmp_path / "again"), "--store", postgres.url]) == 2


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.stop()


def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["fleet", "--boards", "1", "--waves", "1", "--trials", "1", "-o", str(tmp_path)]) == 0
    )
    capsys.readouterr()
    assert (
        main(["fleet", "--boards", "2", "--waves", "1", "--trials", "1", "-o", str(tmp_path)]) == 2
    )
    assert "runs of other settings (boards 1, not 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trials", "9", "--windows", "5"], "more than the 5 --windows"),
        (["--store", "mysql://x/y"], "postgresql://user@host/database"),
        (["--output", "/dev/null/x"], "cannot be made"),
    ],
)
def test_what_cannot_be_is_refused(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "-o", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
