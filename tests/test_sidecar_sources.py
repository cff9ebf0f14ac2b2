"""Where a sidecar sees inferences: datagrams, metrics, logs; and what it makes of nonsense."""

from __future__ import annotations

import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, Summary, generate_latest

from governor.errors import InputError
from governor.instrument.explicit import SpanRecorder
from governor.instrument.stream import Stream
from governor.sidecar.client import Client
from governor.sidecar.feed import MOST_PER_S, Feed
from governor.sidecar.histogram import Edges, Reading, latencies
from governor.sidecar.sources import Datagrams, LogLines, Scrape
from governor.sidecar.spec import App, SourceSpec

PATIENCE_S = 10.0


class Listened:
    """A feed whose spans can be looked at."""

    def __init__(self, name="main", shadow=None):
        self.recorder = SpanRecorder(time.perf_counter)
        self.recorder.start()
        self.feed = Feed(name, Stream(self.recorder), shadow)

    def latencies(self):
        return [span.latency_s for span in self.recorder.drain()]


@pytest.fixture
def listened():
    return Listened()


def until(true):
    for _ in range(int(PATIENCE_S / 0.01)):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


@contextmanager
def running(source):
    ending = threading.Event()
    thread = threading.Thread(target=source.run, args=(ending,))
    thread.start()
    try:
        yield source
    finally:
        ending.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# what is taken


def test_an_inference_is_taken_at_its_senders_times(listened):
    now_s = time.perf_counter()
    assert listened.feed.inference(now_s - 0.06, now_s - 0.01, 3)
    assert listened.recorder.drain() == [(now_s - 0.06, now_s - 0.01, 3, "main", None)]


@pytest.mark.parametrize("offset_s", [-1e6, -10.0, 5.0, 1e9])
def test_times_of_another_clock_count_by_their_duration_from_their_arrival(listened, offset_s):
    now_s = time.perf_counter()
    listened.feed.inference(now_s + offset_s - 0.05, now_s + offset_s)
    (span,) = listened.recorder.drain()
    assert span.latency_s == pytest.approx(0.05, abs=1e-6)
    assert abs(span.end_s - now_s) < 1.0
    assert listened.feed.counts["other clock"] == 1


@pytest.mark.parametrize(
    ("duration_s", "items", "slept_s"),
    [(0.0, 1, 0), (-1.0, 1, 0), (1e4, 1, 0), (0.1, 0, 0), (0.1, -5, 0), (0.1, 10**9, 0),
     (0.1, 1, 0.2), (0.1, 1, -0.1), (math.nan, 1, 0), (math.inf, 1, 0)],
)  # fmt: skip
def test_what_no_inference_can_be_is_dropped_and_counted(listened, duration_s, items, slept_s):
    now_s = time.perf_counter()
    assert not listened.feed.inference(now_s - duration_s, now_s, items, slept_s)
    assert listened.feed.counts == {"implausible": 1}
    assert listened.recorder.drain() == []


def test_a_flood_is_dropped_and_counted(listened):
    now_s = time.perf_counter()
    many = int(3 * MOST_PER_S)
    for _ in range(many):
        listened.feed.inference(now_s - 0.01, now_s)
    taken = len(listened.recorder.drain())
    assert taken < many
    assert listened.feed.counts["flooded"] == many - taken


def test_a_pause_between_ticks_is_no_inference(listened):
    now_s = time.perf_counter()
    for _ in range(5):
        listened.feed.inference(now_s - 0.1, now_s, ticked=True)
    assert not listened.feed.inference(now_s - 30.0, now_s, ticked=True)
    assert listened.feed.counts["pause"] == 1


class Half:
    """An emulated board at half its speed."""

    def follow(self, start_s, end_s, items):
        return end_s - start_s


def test_an_emulated_board_lengthens_what_did_not_sleep_for_it():
    listened = Listened(shadow=Half())
    now_s = time.perf_counter()
    listened.feed.inference(now_s - 0.05, now_s)
    listened.feed.inference(now_s - 0.10, now_s, slept_s=0.05)
    assert listened.latencies() == pytest.approx([0.1, 0.1])
    assert listened.feed.slowdown == pytest.approx(2.0)


@pytest.mark.parametrize(("end_s", "slept_s"), [(1e-12, 0.0), (1e-3, 1e-3 - 1e-15)])
def test_what_a_clock_cannot_tell_from_nothing_is_no_inference(end_s, slept_s):
    """Its times are of another clock: on ours, whose numbers are larger, it would be none."""
    listened = Listened(shadow=Half())
    assert not listened.feed.inference(0.0, end_s, 1, slept_s)
    assert listened.feed.counts == {"implausible": 1}


# datagrams


@pytest.fixture
def heard(tmp_path, listened):
    other = Listened("other")
    source = Datagrams(tmp_path / "s.sock", {"main": listened.feed, "other": other.feed})
    with running(source):
        yield source
    assert not source.path.exists()


def send(source, *messages):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        for message in messages:
            end.sendto(message, str(source.path))


def test_the_clients_frames_arrive(heard, listened):
    client = Client(path=str(heard.path))
    for _ in range(20):
        with client.frame():
            time.sleep(0.002)
    until(lambda: listened.feed.counts["taken"] == client.sent == 20)
    assert all(0.002 <= latency_s < 1.0 for latency_s in listened.latencies())


def test_an_application_may_be_bound_anew_within_reason(tmp_path):
    bounds: list[float] = []
    recorder = SpanRecorder(time.perf_counter)
    feed = Feed("main", Stream(recorder), bind=bounds.append)
    with running(Datagrams(tmp_path / "s.sock", {"main": feed})) as source:
        client = Client(path=str(source.path))
        for bound_s in (0.7, 0.0, -1.0, 1e9, 0.25):
            assert client.bound(bound_s)
        until(lambda: feed.counts["bound"] == 2 and feed.counts["implausible"] == 3)
    assert bounds == [0.7, 0.25]


@pytest.mark.parametrize(
    "message",
    [b"", b"1", b"2 f main 1 2 1 0", b"1 f main 1 2 1", b"1 f main nan 2 1 0", b"1 f main 1 2 x 0",
     b"1 f main 1 inf 1 0", b"1 q main 1 2 1 0", b"\xff" * 40, b"x" * 5000, b"1 f main 1 2 1 0 0",
     b"1 f main 1 2 1e3 0", b"{}" * 99],
)  # fmt: skip
def test_malformed_messages_are_counted_and_hurt_nothing(heard, listened, message):
    send(heard, message)
    until(lambda: heard.counts["malformed"] == 1)
    with Client(path=str(heard.path)).frame():
        pass
    until(lambda: listened.feed.counts["taken"] == 1)


@given(st.binary(max_size=300))
def test_no_message_whatever_raises(message):
    source = object.__new__(Datagrams)
    listened = Listened()
    source.counts, source._feeds, source._users = listened.feed.counts, {"main": listened.feed}, {}
    source._take(message, 0)
    assert sum(source.counts.values()) >= 1


def test_an_application_that_was_not_named_is_counted(heard):
    send(heard, b"1 f nobody 1 2 1 0")
    until(lambda: heard.counts["unknown app"] == 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user; run as root")
def test_another_user_cannot_speak_for_an_application(heard, listened):
    with Client(path=str(heard.path)).frame():
        pass
    until(lambda: listened.feed.counts["taken"] == 1)
    heard.path.chmod(0o666)
    heard.path.parent.chmod(0o755)
    program = (
        "import os, socket; os.setuid(65534); "
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        f"s.sendto(b'1 f main 1 2 1 0', {heard.path.name!r})"
    )
    # from inside its folder: that user may not walk there
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=heard.path.parent)
    until(lambda: heard.counts["spoofed"] == 1)
    assert listened.feed.counts["taken"] == 1


def test_a_socket_is_taken_over_from_a_dead_sidecar_but_not_from_a_live_one(tmp_path, listened):
    path = tmp_path / "s.sock"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(path))
    with pytest.raises(InputError, match="a sidecar listens"):
        Datagrams(path, {})
    dead.close()
    with running(Datagrams(path, {"main": listened.feed})):
        assert path.stat().st_mode & 0o777 == 0o660


def test_a_file_in_its_place_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(InputError, match="is no socket"):
        Datagrams(path, {})
    assert path.read_text() == "data"


# metrics

APART_S = 0.15
"""Between two scrapes: no more inferences are believed than fit in between."""


class Served:
    """An application that serves a page of metrics."""

    def __init__(self):
        self.page = b""
        app = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(app.page if isinstance(app.page, bytes) else app.page())

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("localhost", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/metrics"


@pytest.fixture
def app():
    app = Served()
    thread = threading.Thread(target=app.server.serve_forever, args=(0.01,))
    thread.start()
    yield app
    app.server.shutdown()
    app.server.server_close()
    thread.join()


def scrape(app, listened, kind, what, tail=1.25):
    return Scrape(SourceSpec.parse(f"{kind}:{app.url}#{what}"), listened.feed, 1.0, tail)


def test_an_applications_histogram_is_read_to_the_bucket(app, listened):
    registry = CollectorRegistry()
    seconds = Histogram(
        "detect_seconds", "x", ["model"], registry=registry, buckets=(0.01, 0.025, 0.05, 0.1)
    )
    app.page = lambda: generate_latest(registry)
    seconds.labels("other").observe(9.0)
    source = scrape(app, listened, "prometheus", 'detect_seconds{model="yolo"}')
    seconds.labels("yolo").observe(5.0)
    source.look()
    true = [random.Random(n).uniform(0.03, 0.045) for n in range(200)]
    for latency_s in true:
        seconds.labels("yolo").observe(latency_s)
    time.sleep(APART_S)
    source.look()
    spans = listened.recorder.drain()
    seen = [span.latency_s for span in spans]
    assert len(seen) == 200
    assert all(0.025 <= latency_s <= 0.05 for latency_s in seen)
    assert np.mean(seen) == pytest.approx(np.mean(true), rel=0.01)
    assert all(span.since_s == spans[0].since_s <= span.start_s for span in spans)
    assert source.edges.around(0.03) == (0.025, 0.05)


def test_a_summary_tells_only_the_mean(app, listened):
    registry = CollectorRegistry()
    seconds = Summary("infer_ms", "x", registry=registry)
    app.page = lambda: generate_latest(registry)
    source = scrape(app, listened, "prometheus", "infer_ms", tail=1.5)
    source.look()
    for milliseconds in (10.0, 30.0):
        seconds.observe(milliseconds)
    time.sleep(APART_S)
    source.look()
    assert listened.latencies() == pytest.approx([0.03, 0.03])


TRITON = b"""# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="yolo",version="1"} %d
nv_inference_request_success{model="other",version="1"} 77
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="yolo",version="1"} %d
nv_inference_request_duration_us{model="other",version="1"} 99
"""


def test_tritons_counters_tell_the_mean_and_a_margin_stands_for_the_rest(app, listened):
    source = scrape(app, listened, "triton", "yolo", tail=1.25)
    app.page = TRITON % (100, 5_000_000)
    source.look()
    app.page = TRITON % (110, 5_400_000)
    time.sleep(APART_S)
    source.look()
    assert listened.latencies() == pytest.approx([0.05] * 10)


def test_an_application_that_began_anew_is_seen_from_there_on(app, listened):
    source = scrape(app, listened, "triton", "yolo")
    for count, micros in ((100, 5_000_000), (3, 90_000), (5, 150_000)):
        app.page = TRITON % (count, micros)
        time.sleep(APART_S)
        source.look()
    assert len(listened.latencies()) == 2
    assert source.counts["began anew"] == 1


@pytest.mark.parametrize(
    ("page", "cause"),
    [(b"\xff\xfe{{{", "malformed"), (b"<html>", "malformed"), (b"", "no such metric"),
     (b"x_count 1\n", "no such metric"), (b"a" * (9 * 1024 * 1024), "malformed")],
)  # fmt: skip
def test_a_page_that_says_nothing_is_counted_and_tried_again(app, listened, page, cause):
    source = scrape(app, listened, "triton", "yolo")
    app.page = page
    source.look()
    assert source.counts == {cause: 1}
    for count in (100, 104):
        app.page = TRITON % (count, 5_000_000 + count)
        time.sleep(APART_S)
        source.look()
    assert len(listened.latencies()) == 4


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\ncut",
     b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200],
    ids=("another protocol", "cut short", "a long header", "many headers"),
)  # fmt: skip
def test_what_is_no_answer_of_http_is_counted_and_tried_again(listened, answer):
    with socket.create_server(("localhost", 0)) as server:
        url = f"http://localhost:{server.getsockname()[1]}/metrics"
        source = Scrape(SourceSpec.parse(f"triton:{url}"), listened.feed, 1.0, 1.0)

        def answer_twice():
            for _ in range(2):
                with server.accept()[0] as end:
                    end.recv(4096)
                    end.sendall(answer)
                    end.shutdown(socket.SHUT_WR)
                    while end.recv(4096):
                        pass

        thread = threading.Thread(target=answer_twice, daemon=True)
        thread.start()
        source.look()
        source.look()
        thread.join()
    assert source.counts == {"malformed": 2}


@pytest.mark.parametrize("page", [TRITON.replace(b"%d", b"+Inf"), TRITON.replace(b"%d", b"1e999")])
def test_counters_that_are_not_finite_are_counted_and_tried_again(app, listened, page):
    app.page = page
    source = scrape(app, listened, "triton", "yolo")
    source.look()
    source.look()
    assert source.counts == {"malformed": 2}


def test_an_unreachable_application_is_counted(listened):
    source = Scrape(SourceSpec.parse("triton:http://localhost:1/metrics"), listened.feed, 0.1, 1.0)
    source.look()
    assert source.counts == {"unreachable": 1}


@given(
    st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any),
    st.floats(0.0, 1.0),
)
def test_latencies_agree_with_the_histogram_they_are_made_of(counts, place):
    edges = (0.01, 0.02, 0.05, 0.1)
    lows = (0.0, *edges)
    sum_s = sum(
        n * (low + place * (edge - low)) for n, low, edge in zip(counts, lows, edges, strict=False)
    )
    cumulative = dict(zip(edges, np.cumsum(counts).tolist(), strict=True))
    seen = np.array(latencies(Reading(sum(counts), sum_s, cumulative), tail=1.0))
    for low, edge, number in zip(lows, edges, counts, strict=False):
        assert ((seen > low) & (seen <= edge + 1e-12)).sum() == number
    if 0.1 < place < 0.9 and min(n for n in counts if n) > 20:
        assert seen.sum() == pytest.approx(sum_s, rel=0.1)


def test_above_the_last_bucket_a_latency_is_known_by_its_sum():
    reading = Reading(10, 4.0, {0.1: 0, math.inf: 10})
    assert np.mean(latencies(reading, 1.0)) == pytest.approx(0.4, rel=0.6)
    assert min(latencies(reading, 1.0)) >= 0.1


def test_without_buckets_there_are_no_edges():
    assert Edges().around(0.03) == (0.03, 0.03)


def test_more_inferences_than_fit_between_two_scrapes_are_thinned_out(app, listened):
    source = scrape(app, listened, "triton", "yolo")
    for count in (0, 10_000_000):
        app.page = TRITON % (count, count * 1000)
        time.sleep(APART_S)
        source.look()
    assert 0 < len(listened.latencies()) < 2 * MOST_PER_S
    assert listened.feed.counts["flooded"] > 0


# logs


def log(where, listened, pattern="took (?P<ms>[0-9.]+) ms", **kwargs):
    return LogLines(SourceSpec.parse(f"log:{where}#{pattern}"), listened.feed, **kwargs)


def test_lines_of_standard_input_are_inferences(listened):
    reading, writing = os.pipe()
    os.write(writing, b"frame 1 took 20.5 ms\nhello\nframe 2 took 1.2.3 ms\nframe 3 took 30 ms")
    os.close(writing)
    source = log("-", listened, stdin=reading)
    source.run(threading.Event())
    os.close(reading)
    assert listened.latencies() == pytest.approx([0.0205, 0.030])
    assert source.counts == {"other line": 1, "malformed": 1}


def test_a_file_is_followed_through_rotation_and_truncation(tmp_path, listened):
    path = tmp_path / "app.log"
    path.write_text("took 999 ms\n")
    with running(log(path, listened)), path.open("a") as first:
        time.sleep(0.2)
        first.write("took 10 ms\ntook 2")
        first.flush()
        until(lambda: listened.feed.counts["taken"] == 1)
        first.write("0 ms\n")
        first.flush()
        until(lambda: listened.feed.counts["taken"] == 2)
        path.rename(tmp_path / "app.log.1")
        path.write_text("took 30 ms\n")
        until(lambda: listened.feed.counts["taken"] == 3)
        path.write_text("")
        time.sleep(0.2)
        with path.open("a") as file:
            file.write("took 40 ms\n")
        until(lambda: listened.feed.counts["taken"] == 4)
    assert listened.latencies() == pytest.approx([0.01, 0.02, 0.03, 0.04])


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path, listened):
    path = tmp_path / "late.log"
    with running(log(path, listened)):
        time.sleep(0.1)
        path.write_text("took 10 ms\n")
        until(lambda: listened.feed.counts["taken"] == 1)


def test_a_line_without_end_fills_no_memory(tmp_path, listened):
    path = tmp_path / "app.log"
    path.write_text("")
    with running(log(path, listened)) as source, path.open("a") as file:
        time.sleep(0.1)
        for _ in range(20):
            file.write("x" * 10_000)
        file.write("\ntook 10 ms\n")
        file.flush()
        until(lambda: listened.feed.counts["taken"] == 1)
    assert source.counts["too long"] >= 1


# what is written on the command line


def test_an_app_reads_as_people_write_it():
    app = App.parse("tracker=20fps@p99.9")
    assert (app.name, str(app.slo)) == ("tracker", "p99.9 <= 50 ms")


@pytest.mark.parametrize("text", ["", "a", "a=", "=50ms", "a=50", "a b=5ms", "a=5ms@p0", "a=5ms@x"])
def test_an_app_that_is_none_is_refused(text):
    with pytest.raises(InputError):
        App.parse(text)


def test_a_source_reads_as_people_write_it():
    spec = SourceSpec.parse('cam=prometheus:http://localhost:8000/metrics#a_b{x="1", y="2"}')
    assert (spec.app, spec.kind, spec.where) == (
        "cam",
        "prometheus",
        "http://localhost:8000/metrics",
    )
    assert (spec.name, spec.labels) == ("a_b", (("x", "1"), ("y", "2")))


@pytest.mark.parametrize(
    "text",
    ["", "file:x", "prometheus:localhost:80#a", "prometheus:http://h/", "log:-", "log:-#ms",
     "log:-#(?P<ms>", "log:-#(?P<ms>1)(?P<s>2)", "prometheus:http://h/#a{x=1}", "triton:ftp://h/",
     "prometheus:http://h:99999/#a", "prometheus:http://h/#9a"],
)  # fmt: skip
def test_a_source_that_is_none_is_refused_in_one_sentence(text):
    with pytest.raises(InputError, match="--source"):
        SourceSpec.parse(text)


def test_the_examples_in_its_docstring_are_sources():
    for text in ("triton:http://localhost:8002/metrics#yolo", "log:-#took (?P<ms>[0-9.]+) ms"):
        assert SourceSpec.parse(text).app == "main"
    assert Path(SourceSpec.parse("log:/var/log/a.log#(?P<s>.*)").where).name == "a.log"
