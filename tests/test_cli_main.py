from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import command_names, main
from governor.devices.trace import write_trace
from policies import policy as registry
from policies.measured import Measured
from policies.policy import Proposal

COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]


def governor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_the_version_is_the_installed_distributions() -> None:
    done = governor("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("energy-governor ")


def test_help_lists_every_command() -> None:
    done = governor("--help")
    assert done.returncode == 0
    for name in command_names():
        assert f"\n  {name} " in done.stdout


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: governor {name}" in capsys.readouterr().out


def test_help_is_in_words_of_people_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("", *command_names()):
        assert main([*filter(None, [name]), "--help"]) == 0
        shown = capsys.readouterr().out
        assert not re.search("<(list|str|int|float|Path)", shown), shown
        assert "...\n" not in shown.partition("Commands:")[2]
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [["top", "run.jsonl", "--interval"], ["bench", "heat", "--minutes"], ["roofline", "--work"]],
)
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_number_that_is_none_is_refused(
    number: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, number]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"governor: Invalid value for '{arguments[-1]}': ")
    assert said.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from governor.cli.main import main; main(['--help']); "
        "heavy = {'scipy', 'sklearn', 'skopt', 'matplotlib', 'torch', 'sqlalchemy'}; "
        "raise SystemExit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], "No such command 'fly'"),
        (["--nope"], "No such option: --nope"),
        (["replay"], "Missing argument"),
        (["replay", "x.csv"], "Missing option '--latency-slo'"),
        (["replay", "x.csv", "--latency-slo", "1x", "--trials", "many"], "'--trials'"),
        (["replay", "x.csv", "--latency-slo", "1x", "--seeds", "0"], "'--seeds'"),
        (["replay", "x.csv", "--latency-slo", "1x", "--noise", "-1"], "'--noise'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("governor: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert "--help" in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--nope"], "No such option: --nope. See: governor demo --help"),
        (["demo", "--seed", "-1"], "greater than or equal to 0. See: governor demo --help"),
        (["profiles", "ist"], "'ist' is not one of 'list', 'show'"),
        (["demo", "--board", "agx-orn"], "'agx-orn' (did you mean 'agx-orin'?)"),
        (["demo", "--board", "tx"], "'tx' (did you mean 'tx2'?)"),
        (["demo", "--policy", "bayes"], "'bayes' (did you mean 'bayesian'?)"),
        (["demo", "--objective", "nofile.csv"], "nofile.csv cannot be read (No such file"),
        (["status", "--sysfs-root", "/nowhere"], "/nowhere has no folder sys in it"),
        (["restore", "--state-dir", "/proc/version"], "'/proc/version' is a file."),
    ],
)
def test_what_is_wrong_is_said_in_sentences_for_people(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Value error" not in error
    assert error.count("\n") == 1


def test_short_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-h"]) == 0
    assert "Usage: governor demo" in capsys.readouterr().out


class Interrupted(Measured):
    """Its user has had enough."""

    def ask(self) -> Proposal | None:
        raise KeyboardInterrupt


def test_an_interrupt_is_exit_code_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    monkeypatch.setitem(registry._BUILT_IN, "interrupted", f"{__name__}:Interrupted")
    arguments = ["replay", str(tmp_path / "t.csv"), "--latency-slo", "1x"]
    assert main([*arguments, "--policy", "interrupted"]) == 130
    assert capsys.readouterr().err == "governor: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_processes_that_share_the_work(
    number: signal.Signals, tmp_path: Path
) -> None:
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    arguments = ["replay", str(tmp_path / "t.csv"), "--latency-slo", "1x", "--policy", "random"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--jobs", "2", "--seeds", "5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    if number == signal.SIGINT:  # Ctrl-C reaches all of a terminal
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, errors = process.communicate()
    assert process.returncode == 128 + number
    assert (output, errors) == ("", "governor: interrupted\n" * (number == signal.SIGINT))


def test_work_that_fails_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["compare", str(tmp_path / "t.csv"), "--latency-slo", "1x", "--policies", "random"]
    assert main([*arguments, "--plot", str(tmp_path / "plot.png")]) == 1
    assert "energy-governor[report]" in capsys.readouterr().err


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    arguments = ["replay", str(tmp_path / "t.csv"), "--latency-slo", "1x", "--policy", "random"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == b""
