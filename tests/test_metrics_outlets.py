"""For those who cannot be scraped: Pushgateway, node_exporter's textfiles, OpenTelemetry."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from metrics_rig import exposition, fetch, free_port, governed, infer, until_hold, value, values

from governor import GovernorError, MetricsConfig, MissingExtraError
from governor.exporter.otel import instrument_name
from governor.exporter.outlets import Outlet, write
from governor.metrics import FAMILIES, Collector


@pytest.fixture
def otel() -> ModuleType:
    """OpenTelemetry's metrics; an extra."""
    reason = "OpenTelemetry is not installed; python -m pip install 'energy-governor[otel]'"
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=reason)
    return pytest.importorskip("opentelemetry.sdk.metrics", reason=reason)


@contextmanager
def daemon(package: str, *options: str) -> Iterator[str]:
    """One of Prometheus's own programs on a free port; yields its URL."""
    program = shutil.which(package)
    if program is None:
        pytest.skip(f"{package} is not installed; apt-get install {package}")
    url = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [program, f"--web.listen-address={url}", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            try:
                fetch(f"http://{url}/metrics")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        yield f"http://{url}"
    finally:
        process.terminate()
        process.wait(10)


# Textfile ---------------------------------------------------------------------------------


def test_node_exporter_hands_on_the_textfile(tmp_path: Path) -> None:
    options = ("--collector.disable-defaults", "--collector.textfile")
    folder = f"--collector.textfile.directory={tmp_path}"
    file = tmp_path / "governor.prom"
    with daemon("prometheus-node-exporter", *options, folder) as url:
        with governed(MetricsConfig(listen="", textfile=file)) as (gov, board):
            infer(gov, board, 50)
        text = fetch(f"{url}/metrics")
    assert value(text, "governor_inferences_total") == 50
    assert value(text, "node_textfile_scrape_error") == 0


def test_the_textfile_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "governor.prom"
    done = threading.Event()
    with governed() as (gov, _):
        collector = Collector(gov)
        write(file, collector)

        def keep_writing() -> None:
            while not done.is_set():
                write(file, collector)

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            whole = len(values(exposition(gov)))
            for _ in range(30):
                assert len(values(file.read_text(encoding="utf-8"))) == whole
        finally:
            done.set()
            writer.join()
    assert list(tmp_path.iterdir()) == [file]


@contextmanager
def full_disk() -> Iterator[None]:
    """Every file of this process ends after 100 bytes, as where there is no more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_counted_and_said_once_and_leaves_the_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "governor.prom"
    with governed() as (gov, _):
        collector = Collector(gov)
        outlet = Outlet("textfile", lambda some: write(file, some), collector)
        outlet.send()
        before = file.read_text(encoding="utf-8")
        with caplog.at_level(logging.WARNING, "governor"), full_disk():
            outlet.send()
            outlet.send()
        assert file.read_text(encoding="utf-8") == before
        assert [one.message.split(":")[0] for one in caplog.records] == ["metrics"]
        outlet.send()
        text = file.read_text(encoding="utf-8")
    assert value(text, "governor_export_errors_total", outlet="textfile") == 2
    assert list(tmp_path.iterdir()) == [file]


def test_governing_goes_on_where_the_folder_is_gone(tmp_path: Path) -> None:
    config = MetricsConfig(listen="", textfile=tmp_path / "gone" / "x.prom", interval_s=0.1)
    with governed(config) as (gov, board):
        until_hold(gov, board)
    assert gov.phase == "hold"


# Pushgateway ------------------------------------------------------------------------------


def test_a_pushgateway_has_the_last_state_of_a_run_that_has_ended() -> None:
    with daemon("prometheus-pushgateway") as url:
        for name in ("", "detector"):
            with governed(MetricsConfig(listen="", push=url), name=name) as (gov, board):
                infer(gov, board, 50)
        text = fetch(f"{url}/metrics")
    pushed = {
        dict(labels).get("governor", ""): number
        for (name, labels), number in values(text).items()
        if name == "governor_inferences_total"
    }
    assert pushed == {"": 50, "detector": 50}


def test_a_gateway_that_is_away_does_not_keep_the_block_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = MetricsConfig(listen="", push=f"http://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING, "governor"), governed(config) as (gov, board):
        infer(gov, board, 5)
    assert "metrics: pushgateway failed" in caplog.text


# OpenTelemetry ----------------------------------------------------------------------------


def test_instruments_read_the_same_numbers_as_the_scrape(otel: ModuleType) -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from governor.exporter.otel import instrument

    reader = InMemoryMetricReader()
    provider = otel.MeterProvider([reader], shutdown_on_exit=False)
    with governed(name="detector") as (gov, board):
        instrument(gov.collector(), provider.get_meter("test"))
        until_hold(gov, board)
        infer(gov, board, 50)  # for what is told of inferences at the point that is held
        data = reader.get_metrics_data()
        assert data is not None
        seen = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
        text = exposition(gov)
    provider.shutdown()
    for family in FAMILIES:
        if family.kind == "histogram" or family.labels:
            continue
        if family.exposed_name == "governor_power_cap_watts":  # there is no cap here
            assert instrument_name(family) not in seen
            assert family.exposed_name + "{" not in text
            continue
        (point,) = seen[instrument_name(family)].data.data_points
        assert point.attributes == {"governor": "detector"}
        assert point.value == value(text, family.exposed_name, governor="detector")
    rails = {
        point.attributes["rail"]: point.value for point in seen["governor.energy"].data.data_points
    }
    for rail, joules in rails.items():
        exposed = value(text, "governor_energy_joules_total", governor="detector", rail=rail)
        assert joules == exposed
    assert seen["governor.energy"].unit == "J"
    assert seen["governor.frozen"].unit == ""  # "1" would be called a ratio
    assert seen["governor.energy"].data.is_monotonic
    latency = {
        p.attributes["statistic"]: p.value for p in seen["governor.latency"].data.data_points
    }
    assert latency["percentile"] >= latency["mean"] > 0


@pytest.mark.usefixtures("otel")
def test_an_opentelemetry_collector_is_sent_what_was_measured() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

    received: list[ExportMetricsServiceRequest] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/metrics"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Take) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with governed(MetricsConfig(listen="", otlp=url)) as (gov, board):
            infer(gov, board, 50)
        server.shutdown()
        thread.join()
    (resource_metrics,) = received[-1].resource_metrics
    names = {metric.name: metric for metric in resource_metrics.scope_metrics[0].metrics}
    assert names["governor.inferences"].sum.data_points[0].as_double == 50


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    config = MetricsConfig(listen="", otlp="http://localhost:4318")
    with pytest.raises(MissingExtraError, match=r"energy-governor\[otel\]"), governed(config):
        pass
    assert issubclass(MissingExtraError, GovernorError)
