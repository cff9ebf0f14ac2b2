"""``governor doctor``: what can be governed here, what is missing, and what mends it."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jetson_kernel import HandClock
from sysfs_trees import KINDS, Kind, Tree, kind

from governor.cli.main import main
from governor.devices import diagnosis
from governor.devices.ina3221 import find_rails
from governor.lease.jetson_board import identify


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensors of a plain tree never change: do not watch them for seconds."""
    monkeypatch.setattr(diagnosis, "WATCHED_S", 0.05)


def doctor(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> tuple[int, str]:
    code = main(["doctor", "--sysfs-root", str(root), *options])
    return code, capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], root: Path) -> dict[str, Any]:
    return json.loads(doctor(capsys, root, "--json")[1])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_board_can_be_governed(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = doctor(capsys, Tree(tmp_path, kind).root)
    assert code == 0
    assert kind.board in text
    assert f"{kind.l4t}.4.3" in text
    assert "Governing is possible: cpu_hz, gpu_hz, emc_hz" in text
    assert "(emulated)" in text


def test_a_terminal_of_80_columns_splits_neither_a_rail_nor_a_temperature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor.cli.replay.PIPE_WIDTH", 80)
    zones = {f"soc{number}-thermal": 48.123 for number in range(8)}
    here = Tree(tmp_path, replace(kind("agx-orin-r36"), zones=zones))
    lines = doctor(capsys, here.root)[1].splitlines()
    rail = next(
        line for line in lines if "VIN_SYS_5V0: module's 5 V: DRAM and input/output" in line
    )
    assert rail.split()[-1] == "total"
    dram = next(line for line in lines if "VDDQ_VDD2_1V8AO: DRAM" in line)
    assert dram.split()[-1] == "VIN_SYS_5V0"
    heat = next(line for line in lines if line.startswith("Temperatures: "))
    assert len(heat) <= 80
    assert heat.endswith("°C,")


def test_heat_that_holds_a_clock_down_is_a_problem_with_its_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Tree(tmp_path, kind("agx-orin-r36"))
    assert document(capsys, here.root)["problems"] == []
    here.file("sys/class/thermal/cooling_device1/cur_state", "1")
    (problem,) = document(capsys, here.root)["problems"]
    assert "too hot" in problem["what"]
    assert "sudo nvpmodel -m 0" in problem["fix"]


def test_json_has_knobs_rails_and_who_may_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Tree(tmp_path, kind("agx-orin-r36"))
    told = document(capsys, here.root)
    assert told["governable"] is True
    assert told["machine"]["power mode"] == "0 (MAXN)"
    gpu = next(knob for knob in told["knobs"] if knob["name"] == "gpu_hz")
    assert (gpu["levels"][-1], gpu["now"]) == (1300.5e6, 306e6)
    assert "root" in gpu["writers"]
    assert str(here.root / "sys/class/devfreq/17000000.gpu/max_freq") in gpu["files"]
    assert (told["total_rail"], told["total_w"]) == ("total", pytest.approx(15.0))
    inside = {rail["name"]: (rail["in_total"], rail["inside"]) for rail in told["rails"]}
    assert inside["VDDQ_VDD2_1V8AO"] == (False, "VIN_SYS_5V0")
    assert inside["VDD_GPU_SOC"] == (True, "")


def test_a_combined_rail_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = document(capsys, Tree(tmp_path, kind("orin-nx-r36")).root)
    feeds = {rail["name"]: rail["feeds"] for rail in told["rails"]}
    assert feeds["VDD_CPU_GPU_CV"] == "CPU, GPU and vision cores together"


def test_looking_changes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Tree(tmp_path, kind("agx-orin-r36")).root
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    doctor(capsys, root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("sys/kernel/debug", "mount -t debugfs"),
        ("sys/class/devfreq", "no GPU in"),
        ("sys/kernel", "emc_hz: debugfs is not mounted"),
    ],
)
def test_a_missing_knob_is_a_problem_with_its_fix_and_no_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: str, said: str
) -> None:
    root = Tree(tmp_path, kind("orin-nx-r36")).root
    shutil.rmtree(root / gone)
    code, text = doctor(capsys, root)
    assert code == 0
    assert said in text
    assert "fix: " in text


def test_a_memory_clock_that_only_root_may_see_is_not_called_unmounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Tree(tmp_path, kind("orin-nx-r36")).root
    debug = root / "sys/kernel/debug"
    shutil.rmtree(debug)
    debug.mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != debug and allowed(path, mode))
    text = doctor(capsys, root)[1]
    assert "it can be capped but not pinned; only root may look into" in text
    assert "fix: sudo systemctl enable --now energy-governor" in text


def test_without_power_sensors_nothing_can_be_governed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Tree(tmp_path, kind("orin-nx-r36")).root
    shutil.rmtree(root / "sys/bus")
    (root / ".dockerenv").touch()
    code, text = doctor(capsys, root)
    assert code == 1
    assert "power: no power sensor can be read" in text
    assert "--privileged -v /sys:/sys" in text
    assert "Governing is not possible: no power reading" in text


def test_a_machine_that_is_no_jetson_hears_what_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sys").mkdir()
    code, text = doctor(capsys, tmp_path)
    assert code == 1
    assert "jetson: this is no Jetson" in text
    assert "cpufreq: " in text
    assert "nvml: " in text
    told = document(capsys, tmp_path)
    assert told["governable"] is False
    assert {"jetson", "cpufreq", "nvml"} <= told["looked_for"].keys()


@pytest.mark.parametrize("seed", range(12))
def test_a_broken_tree_is_diagnosed_all_the_same(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(seed)
    here = Tree(tmp_path, draw.choice(KINDS))
    here.break_some_files(draw, share=0.2)
    code, text = doctor(capsys, here.root)
    assert code == (0 if "Governing is possible" in text else 1)


def test_a_folder_without_sys_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--sysfs-root", str(tmp_path)]) == 2
    assert "has no folder sys" in capsys.readouterr().err


def test_the_refresh_is_measured_where_the_sensor_changes(tmp_path: Path) -> None:
    here = Tree(tmp_path, kind("orin-nx-r36"))
    board = identify(here.root)
    assert board is not None
    rails = find_rails(here.root, board)
    clock = HandClock()

    def sensor() -> None:
        milliamperes = 2000 + int(clock.now() / 0.4)
        path = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon0/curr1_input"
        here.file(path, str(milliamperes))

    clock.on_sleep = sensor
    power_w, refresh_s = diagnosis.watch(rails, 4.0, clock)
    assert power_w["VDD_IN"] > 10.0
    assert refresh_s == pytest.approx(0.4, abs=diagnosis.LOOK_S)


def test_a_sensor_that_does_not_change_has_no_measured_refresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = document(capsys, Tree(tmp_path, kind("orin-nx-r36")).root)
    assert told["measured_refresh_s"] is None
    assert told["stated_refresh_s"] == pytest.approx(0.43)
