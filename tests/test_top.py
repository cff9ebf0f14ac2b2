"""``governor top``: a governor watched by its record, and by its metrics."""

from __future__ import annotations

import base64
import io
import math
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry
from rich.console import Console

from governor import EnergyGovernor, InputError
from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.metrics import Collector
from governor.report.terminal import sparkline
from governor.report.top import View, line, screen
from governor.report.watch import quantile, watch

COMMAND = [sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"]


def shown(view: View) -> list[str]:
    """As a terminal of 80 columns without colour shows it."""
    file = io.StringIO()
    Console(file=file, width=80, height=24, no_color=True).print(screen(view))
    return file.getvalue().splitlines()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, EnergyGovernor]:
    """A recorded run, its metrics, and the governor."""
    path = tmp_path_factory.mktemp("top") / "run.jsonl"
    board = EmulatedBoard("agx-orin", "yolov8n-trt")
    with EnergyGovernor("1.5x", device=board, policy="coordinate", record=path) as gov:
        while gov.phase != "hold" or board.clock.now() < 30:
            with gov.inference():
                board.infer()
        registry, collector = CollectorRegistry(), Collector()
        collector.add(gov)
        registry.register(collector)
        text = generate_latest(registry)
        status = gov.status()
    assert status.phase == "hold"
    return path, text, gov


@contextmanager
def served(*answers: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """An address that gives these answers in turn, the last one for ever; and what was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
            body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# what it shows


def test_a_record_and_the_metrics_of_one_run_show_the_same(
    run: tuple[Path, bytes, EnergyGovernor],
) -> None:
    path, text, gov = run
    by_record = watch(str(path)).look()
    with served(text) as (url, _):
        by_metrics = watch(url).look()
    for view in (by_record, by_metrics):
        assert view.phase == "hold"
        assert view.point == dict(gov.operating_point)
        assert view.slo_s == pytest.approx(gov.slo_s)
        assert view.trials == len(gov.trials)
        assert view.missed == sum(trial.latency_s > gov.slo_s for trial in gov.trials)
        assert view.power_w.keys() == by_record.power_w.keys()
    assert by_metrics.energy_j == pytest.approx(by_record.energy_j, rel=0.03)
    assert by_metrics.baseline_energy_j == pytest.approx(by_record.baseline_energy_j)
    assert by_metrics.inferences == pytest.approx(by_record.inferences, rel=0.01)
    assert by_metrics.saved_j == pytest.approx(by_record.saved_j, rel=0.35)
    assert "(emulated)" in by_record.title
    assert "(emulated)" in by_metrics.title


def test_the_screen_fits_80_by_24_and_tells_everything_without_colour(
    run: tuple[Path, bytes, EnergyGovernor],
) -> None:
    rows = shown(watch(str(run[0])).look())
    assert len(rows) <= 23
    assert max(map(len, rows)) <= 80
    text = "\n".join(rows)
    for words in ("[HOLD]", "latency p95", "against the default governors", "saved so far", "MHz"):
        assert words in text
    for rail in ("total", "VDD_GPU_SOC", "VDD_CPU_CV"):
        assert any(row.startswith(rail) and " W " in row for row in rows)


def test_it_fits_with_many_rails_zones_and_long_names() -> None:
    view = View(
        title="a very long name of a program on a board with a very long name " * 2,
        time="12:30:05",
        phase="fallback",
        point={f"gpu{n}_hz": 1e9 for n in range(4)},
        percentile=0.999,
        slo_s=0.01,
        slo_feasible=False,
        latency_s=0.02,
        inferences=10**9,
        violations=10**8,
        power_w={f"A_RAIL_WITH_A_LONG_NAME_{n}": 10.0 + n for n in range(20)},
        temperature_c={f"zone-{n}": 40.0 + n for n in range(20)},
        latencies_s=[0.02, math.nan] * 200,
        note="a long story " * 30,
    )
    rows = shown(view)
    assert len(rows) <= 24
    assert max(map(len, rows)) <= 80
    assert any("SLO MISSED" in row for row in rows)
    assert any("NOTHING KEEPS THE SLO" in row for row in rows)


def test_a_line_for_a_pipe_is_one_line(run: tuple[Path, bytes, EnergyGovernor]) -> None:
    text = line(watch(str(run[0])).look())
    assert "\n" not in text
    assert "hold; p95 " in text
    assert text.endswith("over")


def test_a_run_of_which_nothing_is_known_yet_can_be_shown(
    run: tuple[Path, bytes, EnergyGovernor], tmp_path: Path
) -> None:
    path = tmp_path / "young.jsonl"
    path.write_bytes(run[0].read_bytes().splitlines(keepends=True)[0])
    view = watch(str(path)).look()
    assert any("[BASELINE]" in row for row in shown(view))
    assert "the system's own governors" in line(view)


# small charts and quantiles


@given(st.lists(st.one_of(st.floats(0.0, 1e6), st.just(math.nan)), max_size=100))
def test_a_sparkline_is_as_long_as_what_it_shows_and_higher_for_more(values: list[float]) -> None:
    text = sparkline(values, 40)
    assert len(text) == min(len(values), 40)
    for (one, a), (other, b) in zip(
        list(zip(values[-40:], text, strict=True))[1:],
        zip(values[-40:], text, strict=True),
        strict=False,
    ):
        if one > other and " " not in (a, b):
            assert a >= b


def test_a_quantile_is_that_of_what_was_counted_since() -> None:
    before = {0.01: 1000.0, 0.02: 1000.0, math.inf: 1000.0}
    now = {0.01: 1000.0, 0.02: 1100.0, math.inf: 1100.0}
    assert quantile(now, before, 0.5) == pytest.approx(0.015)
    assert quantile(now, {}, 0.5) < 0.01
    assert math.isnan(quantile(before, before, 0.5))
    assert quantile({0.01: 0.0, math.inf: 5.0}, {}, 0.95) == 0.01


# the metrics


def test_the_path_is_metrics_and_a_password_is_sent_as_a_header(
    run: tuple[Path, bytes, EnergyGovernor],
) -> None:
    with served(run[1]) as (url, asked):
        view = watch(url.replace("://", "://me:se%20cret@")).look()
        watch(f"{url}/elsewhere").look()
    word = base64.b64encode(b"me:se cret").decode()
    assert asked == [f"/metrics Basic {word}", "/elsewhere"]
    assert "se cret" not in view.title
    assert "se%20cret" not in view.title


def test_one_of_several_governors_is_chosen_by_its_name() -> None:
    boards = {name: EmulatedBoard(name, "yolov8n-trt") for name in ("nano", "tx2")}
    registry, collector = CollectorRegistry(), Collector()
    governors = [EnergyGovernor("1.5x", device=board, name=name) for name, board in boards.items()]
    for gov in governors:
        collector.add(gov)
    registry.register(collector)
    with served(generate_latest(registry)) as (url, _):
        assert watch(url, "tx2").look().title.startswith("tx2: tx2 (emulated)")
        assert "choose with --governor" in watch(url).look().title
        with pytest.raises(InputError, match="'nano', 'tx2'"):
            watch(url, "orin").look()


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (b"<html>hello</html>", 200, "no metrics"),
        (b"\xff\xfe\x00", 200, "no metrics"),
        (b"", 200, "none of a governor"),
        (b"node_load1 0.5\n", 200, "none of a governor"),
        (b"x" * 5_000_000, 200, "more than"),
        (b"", 401, "Unauthorized"),
        (b"", 500, "cannot be read"),
    ],
)
def test_what_is_no_governor_is_said_in_one_line(answer: bytes, status: int, says: str) -> None:
    with served(answer, status=status) as (url, _), pytest.raises(InputError, match=says) as said:
        watch(url).look()
    assert "\n" not in str(said.value)


# the command


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/no/such/run.jsonl", "cannot be read"),
        ("ftp://host/run", "http://"),
        ("http://", "names no host"),
        ("http://host:port", "is no address"),
        ("http://127.0.0.1:1", "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_watched_is_one_line_and_exit_code_2(
    source: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", source]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert says in said.err


def test_once_shows_the_screen_once_and_colour_is_left_out_in_a_pipe(
    run: tuple[Path, bytes, EnergyGovernor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", str(run[0]), "--once"]) == 0
    text = capsys.readouterr().out
    assert text.count("[HOLD]") == 1
    assert "\x1b" not in text


def test_in_a_pipe_it_prints_a_line_a_look_until_the_run_is_over(
    run: tuple[Path, bytes, EnergyGovernor], tmp_path: Path
) -> None:
    path, lines = tmp_path / "run.jsonl", run[0].read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]))
    with subprocess.Popen(
        [*COMMAND, "top", str(path), "--interval", "0.1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with path.open("ab") as growing:
            growing.write(b"".join(lines[10:]))
        rest = process.stdout.readlines()
    assert process.returncode == 0
    assert "over" not in first
    assert rest[-1].endswith("over\n")


def test_a_terminal_gets_a_screen_that_ctrl_c_leaves_with_0(
    run: tuple[Path, bytes, EnergyGovernor],
) -> None:
    with served(run[1]) as (url, asked):
        ours, theirs = pty.openpty()
        environment = os.environ | {
            "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"
        }  # fmt: skip
        with subprocess.Popen(
            [*COMMAND, "top", url, "--interval", "0.1"],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        ) as process:  # fmt: skip
            os.close(theirs)
            while len(asked) < 3 and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            text = b""
            try:
                while chunk := os.read(ours, 65536):
                    text += chunk
            except OSError:  # Linux says so when the last process has closed it
                pass
        os.close(ours)
    assert process.returncode == 0
    assert b"[HOLD]" in text
    assert b"Traceback" not in text
    assert b"\x1b[3" not in text  # no colour, where none is wanted


def test_an_answer_that_fails_for_a_while_is_noted_and_watched_on(
    run: tuple[Path, bytes, EnergyGovernor],
) -> None:
    with (
        served(run[1], b"oops {", run[1]) as (url, asked),
        subprocess.Popen(
            [*COMMAND, "top", url, "--interval", "0.1"], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert all("hold" in each for each in lines)
    assert len(asked) >= 3
