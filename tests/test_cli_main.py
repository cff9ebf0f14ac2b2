from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from analytic_sweep import analytic_sweep
from rich.console import Console

from governor.cli.main import command_names, main
from governor.cli.replay import result_console, result_table
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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("demo --metrics=", "'--metrics': it is empty"),
        ("metrics --password=", "'--password': it is empty"),
        ("seeding --emulated nano", "'nano' names no workload; write it like nano/resnet-18"),
        ("calibrate --device emulated:nano --kernels numpy", "--kernels are those of real"),
        ("calibrate --seed 3", "--seed is that of an emulated board's noise"),
        ("calibrate --read-only --points 9", "--points is how many clocks to set"),
        ("emulate --seed 3", "--seed says how a board is mounted; add --mount DIR"),
        ("emulate --mount m --json x", "--json is for the comparison"),
        ("transfer TRACE --emulated nano/vgg19", "--emulated is for sweeps without traces"),
        ("profiles list 3e", "ID|FILE has no effect on list"),
        ("profiles show -o x.json", "--output has no effect on show"),
        ("profiles forget --all 3e", "--all and names are too much"),
        ("roofline --published --board nano", "--board does not go with --published"),
        ("roofline --check-counts --json x", "--json has no effect on --check-counts"),
        ("top run.jsonl --once --interval 2", "--interval is between two looks"),
        ("run --latency-slo 1s --workload-name x -- python", "--workload-name names a profile"),
        ("compare TRACE --latency-slo 1x --policies random,fixed,random", "random twice"),
        ("bench --policy random converge", "give options after the name: bench converge"),
        ("replay TRACE --latency-slo 1x --seeds 99999999999", "'--seeds'"),
        ("replay TRACE --latency-slo 1x --trials 999", "--trials 999 are more than the"),
        ("replay TRACE --latency-slo 1x --latency-slo 1x", "'--latency-slo': 1x is there twice"),
        ("replay TRACE --latency-slo 1e308s", "is more than a day; write none"),
        ("replay TRACE --latency-slo 1e9x", "is more than 1000x; write none"),
        ("bench heat --minutes 1e9", "'--minutes'"),
        ("roofline --work 1e9 --bytes 1e6 --precision fp8", "this board's GPU has no FP8"),
        ("run --latency-slo 1s -- python9.9", "name a Python that is, such as"),
        ("run --latency-slo 1s -- nothing", "'nothing'; give its path"),
        ("daemon", "only root may set this machine's clocks: sudo governor daemon"),
    ],
)
def test_what_would_have_no_effect_or_no_end_is_refused(
    words: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.chdir(tmp_path)
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    assert main(words.replace("TRACE", "t.csv").split()) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert (out, err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_home_that_cannot_be_written_draws_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    write_trace(tmp_path / "t.csv", [analytic_sweep()])
    arguments = ["compare", str(tmp_path / "t.csv"), "--latency-slo", "1x", "--policies", "fixed"]
    unset = {"MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    done = subprocess.run(
        [*COMMAND, *arguments, "--plot", str(tmp_path / "p.svg")],
        env={key: value for key, value in os.environ.items() if key not in unset}
        | {"HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_title_is_not_folded_to_a_narrow_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = result_table("A title that is wider than what stands below it", "a", "b")
    table.add_row("1", "2")
    result_console().print(table)
    assert capsys.readouterr().out.startswith("A title that is wider than what stands below it\n")


def test_a_table_that_is_too_wide_is_a_list_with_every_figure() -> None:
    table = result_table("Title", "policy", "energy\nexcess", "trials\na run")
    table.add_row("a policy's name", "12.5 %", "12")
    shown = io.StringIO()
    for width in (40, 20):
        Console(file=shown, width=width).print(table)
    words = shown.getvalue().split("Title\n")[-1].split()
    assert " ".join(words) == "a policy's name energy excess 12.5 %; trials a run 12"
    assert "policy" in shown.getvalue().splitlines()[3]


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
