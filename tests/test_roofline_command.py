"""``governor roofline``: tables, JSON, pictures and a power mode, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from governor.cli.main import main
from governor.devices.emulated.kernel import load_kernel
from governor.devices.emulated.nvpmodel import configuration
from governor.roofline.board_file import format_board
from governor.roofline.boards import load_board

GIVEN = ["roofline", "--work", "8e9", "--bytes", "3e8"]


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What the command prints: on stdout if it went well, on stderr otherwise."""
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    return err if code else out


def predicted(tmp_path: Path, *words: str) -> dict[str, Any]:
    path = tmp_path / "out.json"
    assert main([*words, "--json", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "nvpmodel.conf"
    kernel = load_kernel("agx-orin")
    path.write_text(configuration(kernel, "/sys/class/devfreq/17000000.ga10b"))
    return path


def test_counts_alone_give_every_mode_and_the_tuned_clocks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = run(capsys, *GIVEN, "--precision", "fp16", "--batch", "1,16")
    for mode in load_board("agx-orin").modes:
        assert mode.name in out
    assert "Batch 16" in out
    assert "least energy" in out
    assert "nothing was measured" in out
    assert re.search(r"The board.s constants: \d+ published, \d+ derived, \d+ assumed", out)


def test_counts_stand_beside_published_ones_with_what_any_difference_is(
    capsys: pytest.CaptureFixture[str], torch: ModuleType
) -> None:
    pytest.importorskip("onnx", reason="python -m pip install onnx")
    out = run(capsys, "roofline", "lstm", "--check-counts")
    assert re.search(r"lstm +Pagoda +FLOP +1 +0.1290035 +0.1290035 +none", out)
    assert re.search(r"lstm +Pagoda +bytes +1024 +1.019465 +1.040436 +\+2 %", out)
    assert "its file returns the states too" in out


def test_a_module_of_ones_own_is_counted_with_a_shape_or_its_own_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: ModuleType
) -> None:
    (tmp_path / "own_nets.py").write_text(
        "import torch\n"
        "def alone(): return torch.nn.Linear(32, 8)\n"
        "def with_example(): return alone(), torch.zeros(1, 32)\n"
    )
    monkeypatch.chdir(tmp_path)
    shaped = predicted(tmp_path, "roofline", "own_nets:alone", "--shape", "32", "--batch", "4")
    own = predicted(tmp_path, "roofline", "own_nets:with_example", "--batch", "4")
    assert shaped["batches"][0]["flop"] == own["batches"][0]["flop"] == 2 * 4 * 32 * 8


def test_the_tables_fit_a_terminal_of_80_columns() -> None:
    code = "import sys; from governor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *GIVEN, "--latency-slo", "50ms"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "LC_ALL": "C.UTF-8"},
    )
    assert not done.stderr
    tables = [line for line in done.stdout.splitlines() if "─" in line]
    assert tables
    assert max(len(line.rstrip()) for line in tables) <= 80


def test_a_network_is_counted_and_named(
    capsys: pytest.CaptureFixture[str], torch: ModuleType
) -> None:
    out = run(capsys, "roofline", "bert-tiny", "--board", "nano", "--mode", "5W")
    assert "bert-tiny, inference, on Jetson Nano with pytorch" in out
    assert "MAXN" not in out


def test_training_takes_more_of_everything(tmp_path: Path, torch: ModuleType) -> None:
    (inference,) = predicted(tmp_path, "roofline", "lstm")["batches"]
    (training,) = predicted(tmp_path, "roofline", "lstm", "--training")["batches"]
    for key in ("flop", "bytes", "kernels"):
        assert training[key] > 2 * inference[key]
    assert training["least_energy"]["energy_j"] > 2 * inference["least_energy"]["energy_j"]


def test_json_holds_what_the_tables_show_in_si_units(tmp_path: Path) -> None:
    found = predicted(tmp_path, *GIVEN, "--latency-slo", "1s", "--batch", "4")
    (batch,) = found["batches"]
    assert batch["flop"] == 4 * 8e9
    assert [mode["name"] for mode in batch["modes"]] == ["MAXN", "MODE_50W", "MODE_30W", "MODE_15W"]
    assert batch["within_slo"]["time_s"] <= found["slo_s"] == 1.0
    assert batch["least_energy"]["energy_j"] <= batch["modes"][0]["energy_j"]
    (layer,) = batch["layers"]
    assert 0 < layer["gpu_s"] <= batch["modes"][0]["time_s"]
    roof = found["roofs"]["MAXN"]
    assert roof["ridge_flop_per_byte"] == pytest.approx(roof["flop_per_s"] / roof["bytes_per_s"])
    assert "nothing was measured" in found["origin"]


def test_an_slo_that_nothing_keeps_is_said_and_leaves_no_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (batch,) = predicted(tmp_path, *GIVEN, "--latency-slo", "1us")["batches"]
    assert batch["within_slo"] is None
    assert "No setting keeps the SLO of 1 µs" in capsys.readouterr().out


def test_a_board_of_ones_own_is_given_by_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(format_board("My board", load_board("tx2").constants))
    assert "on My board with" in run(capsys, *GIVEN, "--board", str(path))


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_the_picture_is_drawn_and_says_that_it_is_predicted(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="python -m pip install matplotlib")
    path = tmp_path / f"roofline.{ending}"
    assert main([*GIVEN, "--batch", "1,4", "--plot", str(path)]) == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == "html":
        assert path.read_text().count("<svg") == 2


def test_the_tuned_mode_is_added_to_the_configuration_with_the_next_number(
    tmp_path: Path, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, output = conf.read_text(), tmp_path / "tuned.conf"
    (batch,) = predicted(tmp_path, *GIVEN)["batches"]
    out = run(capsys, *GIVEN, "--export", "nvpmodel", "--conf", str(conf), "-o", str(output))
    after = output.read_text()
    assert conf.read_text() == before
    assert set(before.splitlines()) <= set(after.splitlines())
    assert "< POWER_MODEL ID=4 NAME=TUNED_GIVEN_COUNTS >" in after
    assert f"GPU MAX_FREQ {batch['least_energy']['gpu_hz']:.0f}" in after
    assert "predicted (not measured)" in after
    assert "mode 4, TUNED_GIVEN_COUNTS, as MAXN" in " ".join(out.split())


def test_a_mode_of_ones_choice_is_the_base_of_the_tuned_one(tmp_path: Path, conf: Path) -> None:
    output = tmp_path / "tuned.conf"
    words = ["--mode", "MODE_30W", "--export", "nvpmodel", "--conf", str(conf), "-o", str(output)]
    assert main([*GIVEN, *words]) == 0
    block = output.read_text().split("NAME=TUNED_GIVEN_COUNTS >")[1]
    assert "CPU_ONLINE CORE_8 0" in block


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a MODEL, or its counts with --work FLOP and --bytes BYTES"),
        (["--work", "1e9"], "give a MODEL, or its counts"),
        (["resnet-18", "--work", "1e9", "--bytes", "1"], "not both"),
        (["--work", "-1", "--bytes", "1"], "--work must be positive and finite, got -1"),
        (["--work", "1", "--bytes", "nan"], "'--bytes': nan is not finite"),
        (["--work", "1", "--bytes", "0"], "--bytes must be positive and finite"),
        (["--work", "1e300", "--bytes", "1"], "--work 1e+300 is more than any machine"),
        ([*GIVEN[1:], "--board", "orin"], "unknown board 'orin'"),
        ([*GIVEN[1:], "--board", "none.toml"], "cannot read the board file none.toml"),
        ([*GIVEN[1:], "--mode", "MAXQ"], "agx-orin has no power mode 'MAXQ'; choose one of MAXN"),
        ([*GIVEN[1:], "--stack", "jax"], "nothing is known of 'jax' on agx-orin"),
        ([*GIVEN[1:], "--precision", "fp12"], "precision 'fp12' is unknown"),
        ([*GIVEN[1:], "--batch", "1,x"], "--batch '1,x' is no list of batch sizes"),
        ([*GIVEN[1:], "--batch", "0"], "no list of batch sizes"),
        ([*GIVEN[1:], "--shape", "3,8,8"], "--shape is that of MODEL's items"),
        (["my:net", "--shape", "3x8"], "--shape '3x8' is no list of sizes; write it like 3,224"),
        ([*GIVEN[1:], "--latency-slo", "fast"], "--latency-slo 'fast' is not a number"),
        ([*GIVEN[1:], "--plot", "a.gif"], "end it in .png, .svg, .html"),
        ([*GIVEN[1:], "--json", "no/such/folder/a.json"], "cannot be written"),
        ([*GIVEN[1:], "--export", "yaml"], "the only form is nvpmodel"),
        ([*GIVEN[1:], "--export", "nvpmodel"], "needs --conf FILE to add to and -o FILE"),
        (
            [*GIVEN[1:], "--export", "nvpmodel", "--conf", "none.conf", "-o", "out.conf"],
            "cannot read none.conf",
        ),
        ([*GIVEN[1:], "--conf", "a.conf"], "belong to --export nvpmodel"),
        (["--published", "resnet-18"], "MODEL does not go with --published"),
        (["--check-counts", "resnet-9"], "no counts of 'resnet-9' are published"),
        ([*GIVEN[1:], "--refit"], "give it with --published"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = run(capsys, "roofline", *words, code=2)
    assert said in err
    assert err.count("\n") == 1


def test_a_configuration_that_is_none_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf, output = tmp_path / "any.conf", tmp_path / "out.conf"
    conf.write_text("hello\n")
    words = ["--export", "nvpmodel", "--conf", str(conf), "-o", str(output)]
    assert f"{conf}: no < POWER_MODEL" in run(capsys, *GIVEN, *words, code=2)
    assert not output.exists()
    words[-1] = str(conf)
    assert "is the --conf itself" in run(capsys, *GIVEN, *words, code=2)
    assert conf.read_text() == "hello\n"
