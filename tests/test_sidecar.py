"""``governor sidecar`` as a process beside real applications."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest
from toy import ToyPolicy

from governor import InputError, Pace
from governor.devices.emulated import ShadowBoard
from governor.sidecar.client import Client
from governor.sidecar.server import Sidecar
from governor.sidecar.spec import App, SourceSpec

APP = textwrap.dedent("""
    import sys, time
    from governor.sidecar.client import Client
    client = Client(sys.argv[1], sys.argv[2], emulated=True)
    while True:
        with client.frame():
            time.sleep(float(sys.argv[3]))
        time.sleep(0.01)
""")
GOVERNOR = [
    sys.executable,
    "-c",
    "import sys; from governor.cli.main import main; sys.exit(main())",
]
PATIENCE_S = 60.0
PACE = Pace(
    baseline_precision=0.2, precision=0.2, baseline_max_s=0.6, window_max_s=0.5,
    window_min_s=0.2, readings_min=0.0, stall_s=0.5,
)  # fmt: skip


@contextmanager
def application(name, socket, frame_s=0.01):
    child = subprocess.Popen([sys.executable, "-c", APP, name, str(socket), str(frame_s)])
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@contextmanager
def sidecar(tmp_path, *words, slo="500ms"):
    child = subprocess.Popen(
        [*GOVERNOR, "sidecar", "--latency-slo", slo, "--device", "emulated:agx-orin/yolov8n",
         "--socket", str(tmp_path / "s.sock"), "--status-file", str(tmp_path / "status.json"),
         "--policy", "coordinate", *words],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        child.stdin.close()


def status(tmp_path):
    try:
        return json.loads((tmp_path / "status.json").read_text())
    except FileNotFoundError:
        return {"inferences": 0, "sources": {}, "apps": {}}


def until(true, patience_s=PATIENCE_S):
    for _ in range(int(patience_s / 0.02)):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def governed(tmp_path, slo="500ms", **kwargs):
    return Sidecar(
        slo, socket=tmp_path / "s.sock", device=ShadowBoard("agx-orin", "yolov8n"),
        policy=ToyPolicy, trials=3, pace=PACE, **kwargs,
    )  # fmt: skip


# as a process


def test_it_sees_an_application_says_so_and_ends_cleanly_on_sigterm(tmp_path):
    socket = tmp_path / "s.sock"
    with sidecar(tmp_path) as child, application("main", socket):
        until(lambda: status(tmp_path)["inferences"] > 20)
        child.send_signal(signal.SIGTERM)
        said = child.stderr.read()
        assert child.wait(PATIENCE_S) == 0
    assert "EMULATED" in said
    assert not socket.exists()
    seen = status(tmp_path)
    assert seen["emulated"]
    assert seen["sources"]["app main"]["taken"] >= seen["inferences"] > 20


def test_a_status_file_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "gone").mkdir()
    words = ("--status-file", str(tmp_path / "gone" / "status.json"))
    with sidecar(tmp_path, *words) as child:
        until(lambda: (tmp_path / "gone" / "status.json").exists())
        (tmp_path / "gone").rename(tmp_path / "moved")
        assert any("cannot write" in line for line in child.stderr)
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 0


def test_a_killed_sidecar_is_followed_by_another_at_the_same_socket(tmp_path):
    with application("main", tmp_path / "s.sock"):
        for _ in range(2):
            with sidecar(tmp_path) as child:
                until(lambda: status(tmp_path)["inferences"] > 5)
                child.kill()
            (tmp_path / "status.json").unlink()


def test_lines_on_its_standard_input_are_inferences(tmp_path):
    words = ("--source", "log:-#took (?P<ms>[0-9]+) ms")
    with sidecar(tmp_path, *words) as child:
        for _ in range(20):
            child.stdin.write("took 12 ms\n")
            child.stdin.flush()
            time.sleep(0.02)
        until(lambda: status(tmp_path)["inferences"] == 20)
        child.send_signal(signal.SIGTERM)  # while it waits for another line
        assert child.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--app", "x"], "--app 'x'"),
        (["--source", "x"], "--source 'x'"),
        (["--source", "cam=triton:http://h/"], "no --app cam=SLO"),
        (["--interval", "1h"], "--interval"),
        (["--tail", "0.5"], "--tail"),
        (["--socket-mode", "9"], "--socket-mode"),
        (["--device", "emulated:x"], "board"),
        (["--socket", "/proc/x/y"], "no socket at"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tmp_path, capsys, words, said):
    from governor.cli.main import main

    base = ["sidecar", "--latency-slo", "50ms", "--device", "emulated:nano", "--socket"]
    assert main([*base, str(tmp_path / "s"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


# several applications, and what may happen to them


def test_the_point_keeps_the_bound_of_every_application(tmp_path):
    apps = [App.parse("slow=300ms")]
    with (
        governed(tmp_path, apps=apps) as one,
        application("main", tmp_path / "s.sock"),
        application("slow", tmp_path / "s.sock", 0.03),
    ):
        until(lambda: one.governor.phase == "hold")
        seen = {stream.name: stream for stream in one.governor.status().streams}
        assert not any(stream.silent for stream in seen.values())
        assert all(stream.latency_s <= stream.slo_s for stream in seen.values())
        assert {source for source, _ in one.counts()} == {"app main", "app slow"}


def test_an_application_changes_its_own_bound(tmp_path):
    with governed(tmp_path, apps=[App.parse("slow=300ms")]) as one:
        assert Client("slow", str(tmp_path / "s.sock")).bound(0.4)
        until(lambda: one.governor.status().streams[1].slo_s == 0.4)


def test_when_all_are_silent_it_freezes_and_goes_on_when_they_return(tmp_path):
    with governed(tmp_path) as one:
        with application("main", tmp_path / "s.sock"):
            until(lambda: one.governor.baseline is not None)
        until(lambda: one.governor.status().frozen)
        with application("main", tmp_path / "s.sock"):
            until(lambda: not one.governor.status().frozen)


def test_a_slow_application_makes_the_guard_fall_back(tmp_path):
    with governed(tmp_path, slo="60ms") as one:
        with application("main", tmp_path / "s.sock", 0.005):
            until(lambda: one.governor.phase == "hold")
        with application("main", tmp_path / "s.sock", 0.08):
            until(lambda: one.governor.status().fallbacks > 0)


def test_a_source_that_fails_takes_nothing_down_with_it(tmp_path):
    class Broken:
        def __init__(self):
            self.counts = one.feeds["main"].counts.__class__()

        def run(self, ending):
            raise RuntimeError("disk on fire")

    one = governed(tmp_path)
    one.sources["broken"] = Broken()
    with one, application("main", tmp_path / "s.sock"):
        until(lambda: one.governor.status().inferences > 3)
        assert one.counts()["broken", "failed"] == 1


def test_nothing_is_left_open_when_it_ends(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with governed(tmp_path):
            pass
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "kwargs",
    [
        {"sources": [SourceSpec.parse("cam=triton:http://h/")]},
        {"sources": [SourceSpec.parse("triton:http://h/")] * 2},
        {"sources": [SourceSpec.parse("log:-#(?P<s>.)"), SourceSpec.parse("a=log:-#(?P<s>.)")],
         "apps": [App.parse("a=1s")]},
        {"interval_s": 0.0},
        {"tail": 0.9},
        {"apps": [App.parse("a=1s"), App.parse("a=2s")]},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, kwargs):
    with pytest.raises(InputError):
        governed(tmp_path, **kwargs)
