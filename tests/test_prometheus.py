"""A real Prometheus scrapes governed runs: what its queries say is what the board really did."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from metrics_rig import free_port, governed, infer

from governor.devices.emulated import EmulatedBoard
from governor.exporter import Address
from governor.metrics import FAMILIES
from governor.report.queries import ROWS, Panel, Query
from governor.status import Status

DEPLOY = Path(__file__).parent.parent / "deploy"
SCRAPE_S = 0.2
RANGE = "60s"
"""Longer than the runs take: ``increase`` over it is all that they did."""
VARIABLES = {
    "$instance": ".*",
    "$governor": ".*",
    "$board": ".*",
    "$__range": RANGE,
    "$__rate_interval": "2s",
    "$tariff": "0.30",
    "$carbon": "300",
}


@dataclass
class Prometheus:
    """A server that is running."""

    url: str

    def api(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def ask(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series, now."""
        for name, value in VARIABLES.items():
            promql = promql.replace(name, value)
        result = self.api("/api/v1/query", query=promql)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def one(self, promql: str) -> float:
        ((_, value),) = self.ask(promql)
        return value

    def wait_for(self, promql: str, at_least: float) -> None:
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            if any(value >= at_least for _, value in self.ask(promql)):
                return
            time.sleep(0.05)
        raise AssertionError(f"{promql} never came to {at_least}")


@dataclass
class Run:
    """Two governed runs, one after the other at one address, as a process that restarts.

    Attributes:
        spent_j: by the board in each, the emulator's truth.
        statuses: at the end of each.
    """

    prometheus: Prometheus
    spent_j: list[float] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)

    @property
    def inferences(self) -> int:
        return sum(status.inferences for status in self.statuses)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed; apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    target, port = free_port(), free_port()
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    for shipped, ours in (
        ("scrape_interval: 5s", f"scrape_interval: {SCRAPE_S * 1000:.0f}ms"),
        ("evaluation_interval: 15s", "evaluation_interval: 500ms"),
        ("localhost:9477", f"localhost:{target}"),
    ):
        assert shipped in config
        config = config.replace(shipped, ours)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copy(DEPLOY / "prometheus" / "governor.rules.yml", folder)
    process = subprocess.Popen(
        [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield from _runs(Run(Prometheus(f"http://127.0.0.1:{port}")), target)
    finally:
        process.terminate()
        process.wait(20)


def _runs(run: Run, target: int) -> Iterator[Run]:
    prometheus = run.prometheus
    _wait_until_ready(prometheus)
    for seed in (1, 2):
        board = EmulatedBoard("nano", "yolov8n-trt", seed=seed)
        with governed(f"localhost:{target}", board=board) as (gov, _):
            # a first scrape of zeros: what was counted before it, no increase can know
            prometheus.wait_for("governor_inferences_total == 0", 0.0)
            before_j = board.spent_j
            tracker = gov.stream("tracker", latency_slo="10s", counts_items=False)
            held = 0
            for _ in range(300):
                infer(gov, board, 50)
                with tracker.inference():
                    board.idle(1e-3)
                if gov.phase == "hold":
                    held += 1
                    time.sleep(0.03)
                if held == 60:
                    break
            run.spent_j.append(board.spent_j - before_j)
            run.statuses.append(gov.status())
            prometheus.wait_for("governor_inferences_total", run.statuses[-1].inferences)
            if seed == 2:
                yield run


def _wait_until_ready(prometheus: Prometheus) -> None:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        with (
            suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=5),
        ):
            return
        time.sleep(0.1)
    raise AssertionError("Prometheus did not start")


def panel(title: str) -> Panel:
    return next(one for row in ROWS for one in row.panels if one.title == title)


def only(title: str) -> str:
    """The query of a panel that has one."""
    (query,) = panel(title).queries
    return query.promql


# What the run did -------------------------------------------------------------------------


def test_every_metric_arrives(run: Run) -> None:
    names = set(run.prometheus.api("/api/v1/label/__name__/values"))
    shown = [family for family in FAMILIES if list(family.samples(run.statuses[1]))]
    assert len(shown) > 25  # all but those of several streams and of a sidecar
    for family in shown:
        name = family.exposed_name
        assert (f"{name}_bucket" if family.kind == "histogram" else name) in names


def test_joules_are_what_the_boards_spent_over_a_restart(run: Run) -> None:
    seen_j = run.prometheus.one(
        f'sum(increase(governor_energy_joules_total{{rail="total"}}[{RANGE}]))'
    )
    assert run.statuses[1].total_j < 0.6 * sum(run.spent_j)  # it did start again
    assert seen_j == pytest.approx(sum(run.spent_j), rel=0.06)


def test_inferences_and_violations_are_counted_over_a_restart(run: Run) -> None:
    seen = run.prometheus.one(f"sum(increase(governor_inferences_total[{RANGE}]))")
    assert seen == pytest.approx(run.inferences, rel=0.06)
    kept = 1 - sum(status.violations for status in run.statuses) / run.inferences
    assert run.prometheus.one(only("Inferences within the bound")) == pytest.approx(kept, abs=0.01)
    budget = run.prometheus.one(only("Error budget left"))
    assert budget == pytest.approx(1 - (1 - kept) / 0.05, abs=0.2)


def test_savings_in_joules_percent_euros_and_grams_are_the_same_saving(run: Run) -> None:
    saved_j = sum(status.saved_j for status in run.statuses)
    assert saved_j > 100.0
    ask = run.prometheus.one
    assert ask(only("Energy saved")) == pytest.approx(saved_j, rel=0.06)
    share = saved_j / (saved_j + sum(run.spent_j))
    assert ask(only("Share saved")) == pytest.approx(share, rel=0.06)
    assert ask(only("Money saved")) == pytest.approx(saved_j / 3.6e6 * 0.30, rel=0.06)
    assert ask(only("CO2 saved")) == pytest.approx(saved_j / 3.6e6 * 300, rel=0.06)


def test_the_latency_panel_shows_the_percentile_below_the_bound(run: Run) -> None:
    median, percentile, bound = (
        run.prometheus.one(query.promql) for query in panel("Latency against the bound").queries
    )
    assert bound == run.statuses[1].slo_s
    assert median <= percentile <= bound
    assert percentile == pytest.approx(run.statuses[1].latency_s, rel=0.25)


def test_the_search_panel_shows_prediction_measurement_and_best(run: Run) -> None:
    status = run.statuses[1]
    predicted, measured, best = (
        run.prometheus.one(query.promql) for query in panel("Predicted, measured, best").queries
    )
    assert predicted == pytest.approx(status.predicted_energy_j)
    assert measured == pytest.approx(status.energy_j, rel=0.2)
    assert best == pytest.approx(status.best_energy_j)
    trials = {labels["outcome"]: count for labels, count in run.prometheus.ask(only("Trials"))}
    assert sum(trials.values()) == sum(status.outcomes.values())


def test_the_clocks_are_those_that_are_held(run: Run) -> None:
    point = run.statuses[1].point
    assert point is not None
    for query in panel("Clocks").queries:
        seen = {labels["knob"]: level for labels, level in run.prometheus.ask(query.promql)}
        assert seen == dict(point)


def test_exactly_one_phase_is_shown(run: Run) -> None:
    phases = {labels["phase"]: on for labels, on in run.prometheus.ask(only("Phase"))}
    assert phases == dict.fromkeys(phases, 0.0) | {"hold": 1.0}


def test_the_fleet_has_a_line_for_each_board(run: Run) -> None:
    for query in panel("Boards").queries:
        ((labels, _),) = run.prometheus.ask(query.promql)
        assert labels["device"] == "nano"


EMPTY = {"Other knobs"}
"""Nothing but clocks is governed in these runs."""


@pytest.mark.parametrize(
    ("title", "query"),
    [(one.title, query) for row in ROWS for one in row.panels for query in one.queries],
)
def test_every_query_of_the_dashboard_has_an_answer(title: str, query: Query, run: Run) -> None:
    assert bool(run.prometheus.ask(query.promql)) is (title not in EMPTY)


def test_every_rule_is_evaluated_without_an_error_and_no_alert_fires(run: Run) -> None:
    groups = run.prometheus.api("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10
    for rule in rules:
        assert rule["health"] == "ok", rule
        if rule["type"] == "recording":
            run.prometheus.wait_for(rule["name"], 0.0)
        else:
            assert rule["state"] == "inactive", rule


# What is shipped --------------------------------------------------------------------------


@pytest.mark.parametrize("check", [["check"], ["test"]])
def test_promtool_accepts_the_rules_and_their_tests(check: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; apt-get install prometheus")
    file = "governor.rules.yml" if check == ["check"] else "governor.rules.test.yml"
    done = subprocess.run(
        [promtool, *check, "rules", str(DEPLOY / "prometheus" / file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shipped_configuration_scrapes_where_a_governor_listens() -> None:
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    address = Address.parse("localhost:9477")
    assert f'targets: ["{address.host}:{address.port}"]' in config
