"""A sweep measures every setting, keeps what it has, and leaves the board as it was."""

from __future__ import annotations

import atexit
import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyBoard

from governor.cli.main import main
from governor.devices.device import Sample
from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.emulated.tree import Fault
from governor.devices.jetson import JetsonDevice
from governor.devices.trace import read_traces
from governor.errors import DeviceError, InputError
from governor.lease.client import Lease
from governor.space import Knob, OperatingPoint, Space
from governor.sweep import network, provenance
from governor.sweep.schedule import sample, schedule, thin
from governor.sweep.sweep import Measured, Rules, Sweep, SweepError
from governor.sweep.workload import load_callable

SPACE = Space(
    [Knob("cpu_hz", tuple(n * 100e6 for n in range(5, 21))), Knob("gpu_hz", (0.3e9, 0.6e9, 0.9e9))]
)
BRIEF = Rules(inferences=5, seconds=1.0)


# What is measured, and in which order -----------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "mhz"),
    [
        ("all", list(range(500, 2001, 100))),
        ("900MHz:1.2GHz", [900, 1000, 1100, 1200]),
        (":600MHz", [500, 600]),
        ("/5", [500, 1000, 1500, 2000]),
        ("4", [500, 1000, 1500, 2000]),
        ("1", [2000]),
        ("1.2GHz,501MHz", [500, 1200]),
    ],
)
def test_levels_of_a_knob_are_chosen_as_people_write_them(levels: str, mhz: list[int]) -> None:
    space = thin(SPACE, {"cpu_hz": levels})
    assert space.knobs[0].levels == tuple(f * 1e6 for f in mhz)
    assert space.knobs[1].levels == (0.9e9,), "a knob that is not swept stays at its largest level"


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"fan": "all"}, "no such knob; choose of cpu_hz, gpu_hz"),
        ({"cpu_hz": "3GHz:"}, "they go from 500 MHz to 2000 MHz"),
        ({"cpu_hz": "777MHz"}, "the nearest is 800 MHz"),
        ({"cpu_hz": "/x"}, "is not a count"),
        ({"cpu_hz": "800"}, "a single level has a unit, such as 2000MHz"),
        ({"cpu_hz": "fast,slow"}, "is not a number with a unit"),
    ],
)
def test_levels_that_are_not_there_are_refused(knobs: dict[str, str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        thin(SPACE, knobs)


@given(count=st.integers(1, 60), seed=st.integers(0, 5))
def test_a_sample_is_made_of_settings_and_holds_the_fastest(count: int, seed: int) -> None:
    chosen = sample(SPACE, count, seed)
    assert len(chosen) == min(count, len(SPACE))
    assert all(chosen.point(row) in SPACE for row in range(len(chosen)))
    assert SPACE.point(SPACE.fastest) in chosen


def test_a_sample_fills_the_space_evenly() -> None:
    chosen = sample(SPACE, 12, seed=0)
    assert len(np.unique(chosen.settings[:, 0])) >= 8
    assert len(np.unique(chosen.settings[:, 1])) == 3


@given(repeats=st.integers(1, 4), seed=st.integers(0, 5))
def test_each_repeat_is_all_settings_and_the_defaults_in_an_order_of_its_own(
    repeats: int, seed: int
) -> None:
    plan = schedule(SPACE, repeats, seed)
    wanted = {None, *(SPACE.point(row) for row in range(len(SPACE)))}
    rounds = [
        [one.point for one in plan if one.repeat == repeat] for repeat in range(1, repeats + 1)
    ]
    assert all(len(points) == len(wanted) and set(points) == wanted for points in rounds)
    assert all(a != b for a, b in pairwise(rounds))
    assert plan == schedule(SPACE, repeats, seed)


# On a board in virtual time ---------------------------------------------------------------


def run(
    board: ToyBoard,
    rules: Rules = BRIEF,
    each: Callable[[Sweep], None] = lambda _sweep: None,
    **options: object,
) -> tuple[list[Measured], Sweep]:
    kept: list[Measured] = []
    small = thin(board.space, {"gpu_hz": "2", "cpu_hz": "2"})
    sweep = Sweep(board, schedule(small, 2, seed=1), kept.append, rules, **options)  # pyright: ignore[reportArgumentType]
    with sweep:
        for _ in sweep.turns():
            each(sweep)
            board.infer()
    return kept, sweep


def test_what_is_measured_is_the_board_s_truth_and_the_board_is_put_back() -> None:
    board = ToyBoard()
    kept, _sweep = run(board)
    assert len(kept) == 2 * (4 + 1)
    for one in kept:
        point = one.measurement.point or board.found
        assert one.trial.mean_latency_s == pytest.approx(board.latency_s(point), rel=0.02)
        assert one.trial.energy_j == pytest.approx(board.energy_j(point), rel=0.04)
    assert board.now_set == board.found


def test_a_throttled_setting_is_measured_again_and_given_up_in_the_end() -> None:
    board = ToyBoard(throttles_above_hz=1.2e9)
    kept, sweep = run(board, on_error="skip")
    fast = [one for one in kept if (one.measurement.point or board.found)["gpu_hz"] > 1.2e9]
    assert not fast
    assert len(sweep.failures) == 4
    assert "throttled in each of 3 attempts" in str(sweep.failures[0])
    assert sweep.redone["throttled"] == 8


def test_the_command_says_what_was_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = ToyBoard(throttles_above_hz=1.2e9)
    monkeypatch.setattr(
        "governor.cli.sweep.open_workload", lambda *_: (board, lambda _size: board.infer())
    )
    words = ["--knob", "gpu_hz=2", "--workload", "app:run", "--on-error", "skip", "--repeats", "1"]
    assert main(["sweep", *words, "-o", str(tmp_path / "s.csv")]) == 1
    said = capsys.readouterr()
    assert "Thrown away and measured again: 2 throttled" in said.out
    assert "could not be measured: " in said.err
    assert "throttled in each of 3 attempts" in said.err


def test_a_setting_that_somebody_else_changes_is_measured_again() -> None:
    board = ToyBoard()
    meddled: list[bool] = []

    def meddle(sweep: Sweep) -> None:
        if sweep.begun is not None and sweep.begun.point and not meddled:
            board.now_set = OperatingPoint({**board.now_set, "gpu_hz": 700e6})
            meddled.append(True)

    kept, sweep = run(board, each=meddle)
    assert sweep.redone["disturbed"] == 1
    assert len(kept) == 10


def test_a_hot_board_is_left_to_cool_before_the_next_measurement() -> None:
    board = ToyBoard()
    board.apply(board.space.point(0))
    board.release()
    heated: list[float] = []

    def heat(_sweep: Sweep) -> None:
        if not heated and board.clock.now() > 105.0:
            board.temperature_c = 90.0
            heated.append(board.clock.now())

    kept, _sweep = run(board, Rules(inferences=5, seconds=1.0, cool_down_s=30.0), heat)
    assert len(kept) == 10
    assert board.clock.now() - heated[0] > 30.0, "it waited, but not for ever"


def test_a_clock_that_cannot_be_set_is_named_and_the_rest_is_measured() -> None:
    board = ToyBoard(write_broken=True)
    kept, sweep = run(board, on_error="skip")
    assert [one.measurement.point for one in kept] == [None, None]
    assert "GPU 1300 MHz" in " ".join(map(str, sweep.failures))
    assert "cannot write gpu_hz: Permission denied" in str(sweep.failures[0])


def test_or_the_sweep_stops_there_as_asked() -> None:
    board = ToyBoard(write_broken=True)
    with pytest.raises(SweepError, match=r"cannot be set.*--on-error skip"):
        run(board)
    assert board.now_set == board.found


def test_a_board_that_cannot_be_put_back_is_told_once_and_not_again_at_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = ToyBoard()
    waiting: list[object] = []
    monkeypatch.setattr(atexit, "register", waiting.append)
    monkeypatch.setattr(atexit, "unregister", waiting.remove)

    def refuse() -> None:
        raise DeviceError("toy: cannot be put back")

    monkeypatch.setattr(board, "release", refuse)
    with (
        pytest.raises(DeviceError, match="cannot be put back"),
        Sweep(board, [], lambda _measured: None),
    ):
        pass
    assert not waiting


def test_the_setting_is_named_even_where_the_board_cannot_be_put_back_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = ToyBoard(write_broken=True)
    monkeypatch.setattr("toy.ToyBoard.release", _refuse)
    small = schedule(thin(board.space, {"gpu_hz": "1"}))
    plan = [one for one in small if one.point is not None]

    def measure() -> None:
        with Sweep(board, plan, lambda _measured: None, BRIEF) as sweep:
            for _ in sweep.turns():
                board.infer()

    with pytest.raises(SweepError, match=r"GPU 1300 MHz.*cannot be set: .*cannot be put back"):
        measure()


@pytest.fixture
def stuck_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command opens can be neither set nor put back."""
    board = ToyBoard(write_broken=True)
    monkeypatch.setattr("toy.ToyBoard.release", _refuse)
    monkeypatch.setattr(
        "governor.cli.sweep.open_workload", lambda *_: (board, lambda _size: board.infer())
    )


@pytest.mark.usefixtures("stuck_board")
def test_the_command_names_the_setting_where_the_board_cannot_be_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--knob", "gpu_hz=1", "--workload", "app:run", "--on-error", "stop"]
    assert main(["sweep", *words, "-o", str(tmp_path / "s.csv")]) == 1
    error = capsys.readouterr().err
    assert "repeat 1: cannot be set: toy: cannot" in error
    assert "cannot be put back" in error


@pytest.mark.usefixtures("stuck_board")
def test_what_was_skipped_is_named_where_the_board_cannot_be_put_back_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--knob", "gpu_hz=2", "--workload", "app:run", "--on-error", "skip", "--repeats", "1"]
    assert main(["sweep", *words, "-o", str(tmp_path / "s.csv")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"3 could not be measured, the first: .*besides: toy: cannot be put", line)


def _refuse(_board: ToyBoard) -> None:
    raise DeviceError("toy: cannot be put back")


def test_a_sensor_that_is_silent_for_a_minute_costs_patience_and_no_measurement() -> None:
    board = ToyBoard()

    def silence(_sweep: Sweep) -> None:
        board.sensor_broken = 110.0 < board.clock.now() < 170.0

    kept, sweep = run(board, each=silence)
    assert len(kept) == 10
    assert not sweep.failures


def test_a_sensor_that_stays_silent_is_said() -> None:
    board = ToyBoard(sensor_broken=True)
    with pytest.raises(SweepError, match="no fresh power reading for 90 s"):
        run(board)


class FreezingBoard(ToyBoard):
    """Its power sensor says the same between two times, and all the while in steps of a size."""

    frozen_s = (math.inf, math.inf)
    step_w = 1e-9

    def sample(self) -> Sample:
        begin_s, end_s = self.frozen_s
        fresh = super().sample()
        if not begin_s < self.clock.now() < end_s:
            watts = round(fresh.power_w["total"] / self.step_w) * self.step_w
            self.said_w = {"total": watts}
        return replace(fresh, power_w=self.said_w)


def test_what_was_measured_while_the_power_sensor_was_frozen_is_measured_again() -> None:
    board = FreezingBoard()
    board.frozen_s = (104.0, 134.0)
    kept, sweep = run(board)
    assert not sweep.failures
    assert sweep.redone["stale"] >= 2
    assert len({one.measurement for one in kept}) == len(kept) == 10
    for one in kept:
        truth_j = board.energy_j(one.measurement.point or board.found)
        assert one.trial.energy_j == pytest.approx(truth_j, rel=0.04)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_power_sensor_that_stays_frozen_is_said_and_nothing_is_kept_of_it(on_error: str) -> None:
    board = FreezingBoard()
    board.frozen_s = (104.0, math.inf)
    stale = "power sensor is stale: no rail has changed for .* s, at . settings"
    if on_error == "stop":
        with pytest.raises(SweepError, match=f"GPU .*{stale}"):
            run(board)
    else:
        kept, sweep = run(board, on_error="skip")
        assert len(kept) + len(sweep.failures) == 10
        assert len(kept) <= 3
        assert re.search(stale, str(sweep.failures[0]))
    assert board.now_set == board.found


@pytest.mark.parametrize("levels", ["1", "2"])
def test_a_short_sweep_under_a_frozen_power_sensor_keeps_nothing_of_it(levels: str) -> None:
    board = FreezingBoard()
    board.frozen_s = (100.2, math.inf)
    kept: list[Measured] = []
    plan = schedule(thin(board.space, {"gpu_hz": levels}))
    with Sweep(board, plan, kept.append, BRIEF, on_error="skip") as sweep:
        for _ in sweep.turns():
            board.infer()
    assert not kept
    assert {failure.measurement for failure in sweep.failures} == set(plan)
    assert all("stale" in str(failure) for failure in sweep.failures)
    assert board.now_set == board.found


def test_a_power_sensor_frozen_for_good_costs_patience_once() -> None:
    board = FreezingBoard()
    board.frozen_s = (100.2, math.inf)
    began_s = board.clock.now()
    _kept, sweep = run(board, on_error="skip")
    assert len(sweep.failures) == 10
    assert board.clock.now() - began_s < 2 * Rules().patience_s


def test_a_reading_that_stands_still_to_the_end_of_the_sweep_is_kept_where_the_sensor_lives() -> (
    None
):
    board = FreezingBoard()
    board.step_w = 2.0
    kept: list[Measured] = []
    plan = [each for each in schedule(thin(board.space, {"gpu_hz": "1"})) if each.point]
    with Sweep(board, plan, kept.append, BRIEF) as sweep:
        for _ in sweep.turns():
            board.infer()
    assert [one.measurement for one in kept] == plan
    assert not sweep.redone


def test_a_coarse_power_sensor_is_not_taken_for_a_frozen_one() -> None:
    board = FreezingBoard()
    board.step_w = 0.4
    kept, sweep = run(board)
    assert len(kept) == 10
    assert not sweep.redone
    assert not sweep.failures


def test_a_workload_that_leaks_is_stopped_within_a_measurement() -> None:
    hoard: list[bytearray] = []
    with pytest.raises(SweepError, match="the workload leaks memory"):
        run(
            ToyBoard(),
            Rules(inferences=5000, seconds=1.0, memory_bytes=30 * 2**20),
            lambda _sweep: hoard.append(bytearray(os.urandom(2**20))),
        )
    assert len(hoard) < 5000


@pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")
@pytest.mark.parametrize(
    ("effect", "complaint"),
    [
        ("EIO", "cannot be set: "),
        ("EINVAL", "cannot be set: "),
        ("ignore", "the kernel set GPU 306 MHz instead of 1020 MHz in each of 3 attempts"),
    ],
)
def test_on_a_mounted_board_a_clock_that_cannot_be_set_is_named_and_all_is_put_back(
    effect: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    jetson = VirtualJetson("orin-nano", workload="squeezenet")
    kept: list[Measured] = []
    with mounted(jetson, tmp_path / "root") as root:
        device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=tmp_path))
        try:
            before = clock_files(jetson)
            plan = schedule(thin(device.space, {"gpu_hz": "1"}))
            rules = Rules(inferences=5, seconds=0.1)
            jetson.tree.faults = (Fault("*devfreq*gpu*", "write", effect),)

            def mend(_left: int) -> None:
                if sweep.failures:
                    jetson.tree.faults = ()

            sweep = Sweep(device, plan, kept.append, rules, on_error="skip", on_progress=mend)
            with sweep:
                for _ in sweep.turns():
                    jetson.board.infer()
        finally:
            device.close()
    (failure,) = sweep.failures
    assert complaint in str(failure)
    assert "GPU 1020 MHz" in str(failure)
    assert [one.measurement.point for one in kept] == [None]
    assert clock_files(jetson) == before


def clock_files(jetson: VirtualJetson) -> dict[str, bytes]:
    """What the files say that a pin writes."""
    names = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "mrq_rate_locked", "clk_state")
    return {path: jetson.tree.read(path) for path in jetson.tree.files() if path.endswith(names)}


# From the command line --------------------------------------------------------------------


def command(path: Path, *more: str) -> list[str]:
    return [
        "sweep", "--device", "emulated:nano/resnet-18", "--knob", "gpu_hz=4", "--repeats", "2",
        "--inferences", "5", "-o", str(path), *more,
    ]  # fmt: skip


def test_the_command_writes_a_trace_that_replay_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    assert main(command(path, "--batch", "1,4")) == 0
    small, large = read_traces([path])
    assert small.device == "nano (emulated)"
    assert (small.batch_size, large.batch_size, len(small.space)) == (1, 4, 4)
    assert np.all(large.energy_j > small.energy_j)
    about = json.loads((tmp_path / "sweep.json").read_text())
    assert about["emulated"]
    assert about["settings_measured"] == 8
    assert about["default_governors"]["energy_j"] > 0
    assert "EMULATION" in capsys.readouterr().out
    assert main(["replay", str(path), "--latency-slo", "1.5x", "--seeds", "1"]) == 0


def test_a_sweep_that_is_done_measures_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    assert main(command(path)) == 0
    before = (tmp_path / "sweep.repeats.csv").read_text()
    assert main(command(path)) == 0
    assert (tmp_path / "sweep.repeats.csv").read_text() == before
    assert "10 of them done before" in capsys.readouterr().out


def test_where_it_came_from_stands_beside_it_start_by_start(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    assert main(command(path, "--ambient", "21.5")) == 0
    first = json.loads(path.with_suffix(".json").read_text())
    assert main(command(path)) == 0, "how it is told changes nothing of what it is"
    again = json.loads(path.with_suffix(".json").read_text())
    assert again["fingerprint"] == first["fingerprint"]
    assert [start["ambient_c"] for start in again["starts"]] == [21.5, None]
    (start,) = first["starts"]
    assert start["temperature_c"].keys()
    assert start["command"] == sys.argv
    assert datetime.fromisoformat(start["started_at"]).tzinfo is not None
    assert start["versions"]["numpy"] == np.__version__


def test_a_jetson_says_its_jetpack_and_power_mode(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if (lacking := why_not()) is not None:
        pytest.skip(f"no FUSE here: {lacking}")
    with mounted(VirtualJetson("orin-nano", 36, mode=1), root):
        device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=tmp_path))
        try:
            started = provenance(device)
        finally:
            device.close()
    assert started["device"]["JetPack"] == "6"
    assert started["device"]["power mode"].startswith("1 (")
    assert started["device"]["Jetson Linux"].startswith("36")
    assert all(20 < degrees < 100 for degrees in started["temperature_c"].values())


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"fingerprint": 3}', '{"starts": []}'])
def test_a_sweep_without_its_story_is_taken_for_another(
    torn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    assert main(command(path)) == 0
    path.with_suffix(".json").write_text(torn)
    assert main(command(path)) == 2
    assert "holds another sweep" in capsys.readouterr().err


def test_another_sweep_is_not_mixed_into_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    assert main(command(path)) == 0
    assert main(command(path, "--seed", "1")) == 2
    assert "holds another sweep" in capsys.readouterr().err
    assert main(command(path, "--seed", "1", "--overwrite")) == 0


def test_a_file_of_somebody_else_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sweep.csv", "sweep.json"):
        theirs = tmp_path / name
        theirs.write_text("years of work\n")
        assert main(command(tmp_path / "sweep.csv")) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert theirs.read_text() == "years of work\n"
        assert list(tmp_path.iterdir()) == [theirs]
        theirs.unlink()


def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path) -> None:
    path, repeats = tmp_path / "sweep.csv", tmp_path / "sweep.repeats.csv"
    assert main(command(path)) == 0
    lines = repeats.read_text().splitlines(keepends=True)
    repeats.write_text("".join(lines[:5]) + lines[5][:20])
    assert main(command(path)) == 0
    rows = list(csv.DictReader(repeats.read_text().splitlines()))
    assert len(rows) == 10
    assert len({(row["repeat"], row["gpu_hz"]) for row in rows}) == 10


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--knob", "fan"], "no such knob"),
        (["--batch", "0"], "--batch must be sizes"),
        (["--batch", "\u00b2"], "--batch must be sizes"),
        (["--batch", "1,9999999"], "at most 1,000,000"),
        (["--repeats", "10000"], "settings, that is more than 1,000,000 measurements"),
        (["--repeats", "10001"], "--repeats"),
        (["--seconds", "inf"], "--seconds"),
        (["--seed", "-1"], "--seed"),
        (["--knob", "gpu_hz=/\u00b2"], "is not a count"),
        (["--batch", "study"], "yolov8n is not of the study, whose networks are alexnet"),
        (["--ambient", "nan"], "--ambient 'nan' is not in degrees Celsius"),
        (["--on-error", "shrug"], "--on-error must be stop or skip"),
        (["--knob", "gpu_hz=1", "--knob", "gpu_hz=2"], "given twice"),
    ],
)
def test_bad_usage_is_one_line_and_changes_nothing(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["sweep", "--device", "emulated:nano", "-o", str(tmp_path / "s.csv"), *words]
    assert main(extra) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "name", "code", "complaint"),
    [
        ("def run(): raise ValueError('boom')", "mine:run", 1, "ValueError: boom"),
        ("import nothing_there", "mine:run", 2, "cannot be imported: ModuleNotFoundError"),
        ("import sys; sys.exit(3)", "mine:run", 2, "cannot be imported: SystemExit: 3"),
        ("def run(): raise SystemExit(0)", "mine:run", 1, "the workload failed: SystemExit"),
        ("run = 3", "mine:run", 2, "is no callable"),
        ("def run(batch_size): return 3", "mine:run", 2, "it gave int"),
        ("", "resnet-19", 2, "or one of alexnet"),
        ("", "mine.onnx", 2, "there is no such file"),
    ],
)
def test_a_workload_that_cannot_run_is_said_in_one_line(
    source: str, name: str, code: int, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(source)
    done = in_shell(tmp_path, "--workload", name, "--repeats", "1")
    assert done.returncode == code
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def in_shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sweep_process(folder, *words), capture_output=True, text=True, cwd=folder)


def sweep_process(folder: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "governor", "sweep", "--device", "emulated:orin-nano",
        "--knob", "gpu_hz=2", "--inferences", "3", "--seconds", "0.1", "--cool-down", "100",
        "-o", str(folder / "s.csv"), *words,
    ]  # fmt: skip


def test_a_killed_sweep_goes_on_without_repeating_a_setting(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\ndef run(): time.sleep(0.01)\n")
    words = ("--workload", "mine:run", "--repeats", "1")
    repeats = tmp_path / "s.repeats.csv"
    process = subprocess.Popen(
        sweep_process(tmp_path, *words), cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 30.0
    while not repeats.exists() or len(repeats.read_text().splitlines()) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = repeats.read_text()
    done = in_shell(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "of them done before" in done.stdout
    assert repeats.read_text().startswith(kept[: kept.rfind("\n") + 1])
    rows = list(csv.DictReader(repeats.read_text().splitlines()))
    assert len({(row["repeat"], row["gpu_hz"]) for row in rows}) == len(rows) == 3


def test_ctrl_c_ends_it_with_130_and_the_files_whole(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\ndef run(): time.sleep(0.01)\n")
    repeats = tmp_path / "s.repeats.csv"
    process = subprocess.Popen(
        sweep_process(tmp_path, "--workload", "mine:run"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30.0
    while not repeats.exists() or len(repeats.read_text().splitlines()) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert repeats.read_text().endswith("\n")
    (trace,) = read_traces([tmp_path / "s.csv"])
    assert 1 <= len(trace.space) <= 2
    json.loads((tmp_path / "s.json").read_text())


def test_sigterm_in_an_inference_ends_it_with_143_and_is_no_failure_of_the_workload(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, signal, time\ncount = 0\ndef run():\n    global count\n    count += 1\n"
        "    if count == 40: os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.05)\n"
    )
    done = in_shell(tmp_path, "--workload", "mine:run", "--on-error", "skip", "--seconds", "0.5")
    assert done.returncode == 143
    assert done.stderr == ""
    (trace,) = read_traces([tmp_path / "s.csv"])
    assert 1 <= len(trace.space) <= 2
    assert json.loads((tmp_path / "s.json").read_text())["failed"] == []


def test_a_full_disk_ends_the_sweep_with_what_it_has(tmp_path: Path) -> None:
    """/dev/full takes the place of the repeats once the sweep has begun."""
    from governor.sweep.file import SweepFile

    file = SweepFile(tmp_path / "s.csv", ["gpu_hz"], {"device": "toy", "emulated": True})
    board = ToyBoard()
    small = thin(board.space, {"gpu_hz": "2"})
    sweep = Sweep(board, schedule(small, 1, seed=0), file.keep, BRIEF)
    file.repeats_path = Path("/dev/full")

    def measure() -> None:
        with sweep:
            for _ in sweep.turns():
                board.infer()

    with pytest.raises(OSError, match="No space left"):
        measure()
    assert board.now_set == board.found
    assert sweep.begun is not None


def limited(folder: Path, kib: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A sweep of 60 settings in which no file may grow larger: as where a disk is full."""
    program = [
        "bash", "-c", f'ulimit -f {kib}; exec "$@"', "sh",
        sys.executable, "-B", "-m", "governor", "sweep", "--device", "emulated:nano/resnet-18",
        "--knob", "gpu_hz", "--knob", "cpu_hz=5", "--repeats", "1", "--inferences", "3",
        "-o", str(folder / "s.csv"), *words,
    ]  # fmt: skip
    return subprocess.run(program, capture_output=True, text=True, cwd=folder)


def test_no_room_to_begin_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = limited(tmp_path, 0)
    assert done.returncode == 2
    assert "the sweep cannot be begun there (File too large); give another -o" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_room_that_ends_in_the_middle_keeps_every_whole_line_and_it_goes_on(
    tmp_path: Path,
) -> None:
    done = limited(tmp_path, 4)
    assert done.returncode == 1
    assert "s.repeats.csv: cannot be written at CPU" in done.stderr
    repeats = tmp_path / "s.repeats.csv"
    kept = repeats.read_text()
    assert kept.endswith("\n")
    assert 10 < len(kept.splitlines()) < 60
    assert not list(tmp_path.glob("*.part"))
    again = limited(tmp_path, 1000)
    assert again.returncode == 0, again.stderr
    assert repeats.read_text().startswith(kept)
    assert len(repeats.read_text().splitlines()) == 1 + 12 * 5 + 1


def test_a_trace_that_cannot_be_written_fails_the_command_and_is_written_the_next_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, there = tmp_path / "sweep.csv", tmp_path / "sweep.csv.part"
    there.mkdir()
    assert main(command(path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep.csv.part: cannot be written" in line
    assert "sweep.repeats.csv holds all that was measured" in line
    there.rmdir()
    assert main(command(path)) == 0
    assert len(read_traces([path])[0].space) == 4


def test_an_onnx_model_is_a_workload(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="python -m pip install onnx")
    pytest.importorskip("onnxruntime", reason="python -m pip install onnxruntime")
    helper = onnx.helper
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 8])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    (result,) = load_callable(str(path))(4)()  # pyright: ignore[reportGeneralTypeIssues]
    assert result.shape == (4, 8)
    assert math.isfinite(float(result.sum()))


@pytest.mark.parametrize(
    ("made", "result_shape"),
    [
        ("torch.rand(batch_size, 8)", (4, 3)),
        ("(torch.rand(batch_size, 8),)", (4, 3)),
        ("dict(input=torch.rand(batch_size, 8))", (4, 3)),
    ],
)
def test_a_torch_module_and_its_input_are_a_workload(
    made: str,
    result_shape: tuple[int, ...],
    torch: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"net_{len(made)}"
    (tmp_path / f"{name}.py").write_text(
        f"import torch\ndef net(batch_size): return torch.nn.Linear(8, 3), {made}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = load_callable(f"{name}:net")(4)()
    assert isinstance(result, torch.Tensor)
    assert result.shape == result_shape
    assert not result.requires_grad, "no gradient is kept"


def test_a_torch_module_without_an_input_is_refused(
    torch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare.py").write_text(
        "import torch\ndef net(batch_size): return torch.nn.Linear(8, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"a torch\.nn\.Module and its input; it gave Linear"):
        load_callable("bare:net")(1)


@pytest.mark.parametrize(("name", "shape"), [("bert-tiny", (2, 128)), ("mobilenet-v2", (2, 1000))])
def test_a_built_in_network_is_a_workload_of_any_batch_size(
    name: str, shape: tuple[int, ...], torch: ModuleType
) -> None:
    result = load_callable(name)(2)()
    first = result[0] if isinstance(result, tuple) else result
    assert isinstance(first, torch.Tensor)
    assert first.shape[: len(shape)] == shape


def test_an_inference_on_a_gpu_lasts_until_the_gpu_is_done(
    torch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed to tell: the module and the waiting are recorded."""
    happened: list[str] = []

    class Net(torch.nn.Module):
        def to(self, *places: object, **_more: object) -> Net:
            happened.append(f"moved to {places[0]}")
            return self

        def forward(self, _given: object) -> None:
            happened.append("launched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("waited for"))
    infer = network.prepare(Net(), "no tensor: stays where it is")
    infer()
    assert happened == ["moved to cuda", "launched", "waited for"]


def test_a_real_network_is_swept_in_the_shadow_of_a_board_that_runs_the_same(
    torch: ModuleType, tmp_path: Path
) -> None:
    words = ("--workload", "bert-tiny", "--sample", "1", "--repeats", "1", "--batch", "2")
    done = in_shell(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    (trace,) = read_traces([tmp_path / "s.csv"])
    assert (trace.workload, trace.batch_size) == ("bert-tiny", 2)


def test_batch_sizes_are_the_study_s_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    words = ["sweep", "--device", "emulated:nano/distilbert", "--batch", "study", "-o", str(path)]
    assert main([*words, "--sample", "1", "--repeats", "1", "--inferences", "2"]) == 0
    assert [trace.batch_size for trace in read_traces([path])] == [4, 8, 16]
