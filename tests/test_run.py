"""``governor run`` governs a Python program that knows nothing of it, and is not in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from governor.cli.main import main
from governor.launch import prepare
from governor.launch.inside import Options
from governor.records.reader import read_run

OPTIONS = Options(
    latency_slo="50ms",
    percentile=0.95,
    device="emulated:agx-orin",
    policy="fixed",
    trials=12,
)
RUN = (sys.executable, "-c", "from governor.cli.main import main; main()", "run")
GOVERNED = ("--latency-slo", "50ms", "--device", "emulated:agx-orin", "--policy", "fixed")


def governed(*command: str, **how) -> subprocess.Popen:
    return subprocess.Popen(
        [*RUN, *GOVERNED, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def finish(process: subprocess.Popen, given: str = "") -> tuple[str, str, int]:
    with process:
        output, errors = process.communicate(given, timeout=60)
    return output, errors, process.returncode


def test_without_anything_to_govern_it_says_what_to_write_on_the_command_line() -> None:
    arguments = ("--latency-slo", "50ms", "--", sys.executable, "-c", "print('ran')")
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Use --device emulated:agx-orin" in done.stderr
    assert "device='" not in done.stderr


SEES = """
import os, sys
print(__name__, sys.argv[1:], sys.path[0] == os.path.dirname(__file__))
print(sorted(name for name in os.environ if name.startswith(("GOVERNOR_", "PYTHONPATH"))))
print(sys.stdin.read(), end="")
print("a word of its own", file=sys.stderr)
sys.exit(7)
"""


def test_a_program_finds_everything_as_it_would_without(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(SEES)
    arguments = (sys.executable, "-W", "error", str(script), "--trials", "x y")
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    output, errors, code = finish(governed(*arguments, env=environment), "typed in\n")
    bare = subprocess.run(
        arguments, input="typed in\n", text=True, capture_output=True, env=environment, check=False
    )
    assert (output, code) == (bare.stdout, bare.returncode)
    assert errors.splitlines()[0] == bare.stderr.strip()
    assert errors.splitlines()[1].startswith("governor: no inference was seen")


def test_inferences_of_a_program_are_seen_and_summed_up_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="python -m pip install onnxruntime")
    from seen_kinds import onnx_model

    (tmp_path / "net.onnx").write_bytes(onnx_model())
    (tmp_path / "app.py").write_text(
        "import time, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('net.onnx')\n"
        "time.sleep(0.3)\n"
        "for _ in range(20):\n"
        "    session.run(None, {'x': numpy.zeros((1, 4), dtype='float32')})\n"
    )
    output, errors, code = finish(governed(sys.executable, "app.py", cwd=tmp_path))
    assert (output, code) == ("", 0)
    assert errors.startswith("governor: 20 inferences, 100.0 % within 50 ms, ended in baseline")
    assert errors.endswith("(energy is emulated)\n")


def test_a_module_and_a_command_are_run_as_well() -> None:
    assert finish(governed(sys.executable, "-m", "this"))[0].startswith("The Zen of Python")
    assert finish(governed(sys.executable, "-c", "print(6 * 7)"))[0] == "42\n"


def test_a_script_that_is_itself_a_program_is_run(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable}\nprint('by its shebang')\n")
    script.chmod(0o755)
    output, errors, code = finish(governed(str(script)))
    assert (output, code) == ("by its shebang\n", 0)
    assert "governor: no inference was seen" in errors


def test_a_run_can_be_recorded_though_the_program_changes_its_folder(tmp_path: Path) -> None:
    command = (*RUN, *GOVERNED, "--record", "run.jsonl", "--", sys.executable, "-c")
    elsewhere = "import os; os.chdir('/')"
    subprocess.run([*command, elsewhere], cwd=tmp_path, check=True, capture_output=True)
    run = read_run(tmp_path / "run.jsonl")
    assert run.header.device == "agx-orin"
    assert run.end is not None
    assert run.end.reason == "exit"


def test_knobs_can_be_kept_within_limits(tmp_path: Path) -> None:
    limits = ("--limit", "gpu_hz=300MHz:612MHz", "--limit", "emc_hz=:665600000Hz")
    command = (*RUN, *GOVERNED, *limits, "--record", "run.jsonl", "--", sys.executable, "-c", "1")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    levels = read_run(tmp_path / "run.jsonl").header.levels
    assert (min(levels["gpu_hz"]), max(levels["gpu_hz"])) == (306e6, 612e6)
    assert max(levels["emc_hz"]) == 665.6e6
    assert max(levels["cpu_hz"]) > 2e9


def test_a_failing_program_fails_as_it_would() -> None:
    _, errors, code = finish(governed(sys.executable, "-c", "raise OSError('camera')"))
    assert code == 1
    assert "OSError: camera" in errors
    assert "governor: no inference was seen" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_program_as_it_would(number: signal.Signals) -> None:
    process = governed(
        sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert finish(process)[2] == -number


def test_programs_that_it_starts_are_not_governed() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)'])"
    output, errors, _ = finish(governed(sys.executable, "-c", child))
    assert output == "1\n"
    assert errors.count("governor:") == 1


def test_a_sitecustomize_of_the_programs_own_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    look = "import os, sitecustomize; print(sitecustomize.__file__, os.environ['PYTHONPATH'])"
    output, _, code = finish(governed(sys.executable, "-c", look, env=environment))
    by_governor_run, by_the_program = "mine\n", "mine\n"
    shown = f"{tmp_path / 'sitecustomize.py'} {tmp_path}\n"
    assert output == by_governor_run + by_the_program + shown
    assert code == 0


def test_what_cannot_be_governed_does_not_run(tmp_path: Path) -> None:
    process = subprocess.run(
        [*RUN, *GOVERNED[:3], "emulated:toaster", "--", sys.executable, "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.stdout, process.returncode) == ("", 2)
    assert process.stderr.startswith("governor: unknown board 'toaster'")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency-slo", "50ms", "--", "ls"], "is not a Python program"),
        (["--latency-slo", "50ms", "--", "ls"], "governor sidecar"),
        (["--latency-slo", "50ms", "--", "no-such-program"], "no program 'no-such-program'"),
        (["--latency-slo", "50ms", "--", "python", "-Ic", "1"], "started with -I, which isolates"),
        (["--latency-slo", "50ms", "--", "python", "-W", "error", "-E", "x.py"], "with -E"),
        (["--latency-slo", "50", "--", "python", "x.py"], "has no unit"),
        (["--latency-slo", "5ms", "--policy", "genius", "--", "python", "x.py"], "unknown policy"),
        (["--latency-slo", "5ms", "--percentile", "95", "--", "python", "x.py"], "between 0 and 1"),
        (["--latency-slo", "5ms", "--limit", "gpu_hz=1GHz", "--", "python", "x.py"], "no limit"),
        (["--latency-slo", "5ms", "--limit", "gpu_hz=1:", "--", "python", "x.py"], "has no unit"),
        (["--", "python", "x.py"], "Missing option"),
        (["--latency-slo", "50ms"], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin"]))
    assert main(["run", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "head",
    [
        "#!/usr/bin/python3\n",
        "#!/usr/bin/env python3\n",
        "#!/usr/bin/env -S python3 -u\n",
        "#!/opt/my venv/bin/python3.11\n".replace("my venv", "venv"),
        "#!/bin/sh\n'''exec' \"/opt/a very long path/bin/python3\" \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_every_way_to_name_an_interpreter_is_known(tmp_path: Path, head: str) -> None:
    script = tmp_path / "tool"
    script.write_text(head)
    script.chmod(0o755)
    program, environment = prepare([str(script)], OPTIONS, {"PATH": "/usr/bin"})
    assert program == str(script)
    assert "GOVERNOR_RUN" in environment
