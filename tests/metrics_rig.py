"""Governed runs on an emulated board in virtual time, and their metrics as a scraper sees them."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from governor import EnergyGovernor, MetricsConfig
from governor.devices.emulated import EmulatedBoard

Sample = tuple[str, tuple[tuple[str, str], ...]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def infer(gov: EnergyGovernor, board: EmulatedBoard, inferences: int) -> None:
    for _ in range(inferences):
        with gov.inference():
            board.infer()


@contextmanager
def governed(
    metrics: bool | str | MetricsConfig | None = None,
    *,
    slo: str | float = "1.5x",
    board: EmulatedBoard | None = None,
    name: str = "",
) -> Iterator[tuple[EnergyGovernor, EmulatedBoard]]:
    """A governor of a board that reaches hold after some 500 inferences."""
    board = board or EmulatedBoard("nano", "yolov8n-trt", seed=1)
    with EnergyGovernor(slo, device=board, metrics=metrics, name=name, policy="coordinate") as gov:
        yield gov, board


def until_hold(gov: EnergyGovernor, board: EmulatedBoard, inferences: int = 5000) -> None:
    for _ in range(inferences):
        infer(gov, board, 1)
        if gov.phase == "hold":
            return
    raise AssertionError(f"not in hold but in {gov.phase}")


def exposition(gov: EnergyGovernor) -> str:
    registry = CollectorRegistry()
    registry.register(gov.collector())
    return generate_latest(registry).decode()


def families(text: str) -> dict[str, Metric]:
    return {metric.name: metric for metric in text_string_to_metric_families(text)}


def values(text: str) -> dict[Sample, float]:
    """Each sample's value by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return values(text)[name, tuple(sorted(labels.items()))]


def fetch(url: str | None, **headers: str) -> str:
    assert url is not None
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()
