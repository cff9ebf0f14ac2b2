"""Logs: one event a decision, for people and for machines."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from toy import ToyBoard, ToyPolicy

from governor import EnergyGovernor
from governor.logs import JsonFormatter, TextFormatter

DEMO = [
    *(sys.executable, "-c", "from governor.cli.main import main; raise SystemExit(main())"),
    *("demo", "--policy", "coordinate"),
]


@pytest.fixture(scope="module")
def records() -> list[logging.LogRecord]:
    """What one governed run logs."""
    caught: list[logging.LogRecord] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            caught.append(record)

    logger, board, handler = logging.getLogger("governor"), ToyBoard(), Catch()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with EnergyGovernor("40ms", device=board, policy=ToyPolicy) as gov:
            for _ in gov.watch(range(2500)):
                board.infer()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return caught


def test_every_decision_is_one_event_that_says_what_and_why(
    records: list[logging.LogRecord],
) -> None:
    events = [json.loads(JsonFormatter().format(record)) for record in records]
    assert [event["kind"] for event in events][-1] == "hold"
    for event in events:
        assert event["reason"] in event["message"]
        assert event["logger"] == "governor"
        assert event["emulated"] is True
    tries = [event for event in events if event["kind"] == "try"]
    assert all(event["point"]["gpu_hz"] > 0 for event in tries)
    assert {event["level"] for event in tries} == {"info"}


def test_the_trial_that_led_to_a_decision_is_in_its_event(
    records: list[logging.LogRecord],
) -> None:
    hold = json.loads(JsonFormatter().format(records[-1]))
    assert 0 < hold["latency_s"] < hold["slo_s"] == 0.04
    assert hold["energy_j"] > 0
    assert hold["saving"] > 0.2


def test_what_is_not_known_is_null_and_never_nan(records: list[logging.LogRecord]) -> None:
    for record in records:
        text = JsonFormatter().format(record)
        json.loads(text, parse_constant=pytest.fail)
        assert "\n" not in text


def test_a_line_for_people_has_the_time_the_level_and_the_reason(
    records: list[logging.LogRecord],
) -> None:
    line = TextFormatter().format(records[-1])
    assert line.split()[1] == "info"
    assert records[-1].getMessage() in line


def test_an_exception_keeps_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord(
            "governor", logging.ERROR, "", 0, "the loop failed", None, sys.exc_info()
        )
    assert "ValueError: broken" in json.loads(JsonFormatter().format(record))["exception"]
    assert "ValueError: broken" in TextFormatter().format(record)


def test_the_demo_logs_json_to_stderr_and_its_summary_to_stdout() -> None:
    done = subprocess.run(
        [*DEMO, "--log-format", "json"], capture_output=True, text=True, check=True
    )
    kinds = [json.loads(line)["kind"] for line in done.stderr.splitlines()]
    assert kinds[0] == "try"
    assert "hold" in kinds
    assert "What it came to" in done.stdout
    assert "trying CPU" not in done.stdout


def test_an_unknown_format_is_refused() -> None:
    refused = subprocess.run(
        [*DEMO, "--log-format", "xml"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "json" in refused.stderr
    assert refused.stderr.count("\n") == 1
