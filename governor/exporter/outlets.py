"""Metrics for those who cannot be scraped: a Pushgateway, node_exporter's textfile collector."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from governor.beat import Beat
from governor.exporter import MetricsConfig
from governor.metrics import NAME_LABEL, Collector

JOB = "governor"
PUSH_S = 5.0
"""A gateway that takes longer has failed."""
logger = logging.getLogger("governor")


def start(config: MetricsConfig, collector: Collector) -> Callable[[], None]:
    """Begin to push and write every ``config.interval_s``; returns what ends it.

    What fails is counted and said once, until it works again; it is tried again each time.
    """
    outlets: list[Outlet] = []
    if config.push:
        outlets.append(Outlet("pushgateway", partial(push, config.push), collector))
    if config.textfile is not None:
        outlets.append(Outlet("textfile", partial(write, config.textfile), collector))

    def send_all() -> None:
        for outlet in outlets:
            outlet.send()

    beat = Beat("metrics outlets", send_all, config.interval_s)

    def end() -> None:
        beat.end()
        beat.join(time.monotonic() + PUSH_S)
        send_all()

    return end


class Outlet:
    """Sends, and counts what fails."""

    def __init__(self, name: str, send: Callable[[Collector], None], collector: Collector) -> None:
        self._name = name
        self._send = send
        self._collector = collector
        self._failing = False

    def send(self) -> None:
        """Try to send; never raises."""
        try:
            self._send(self._collector)
        except Exception as error:  # a full disk, a gateway that is away, an answer of any kind
            self._collector.export_errors[self._name] += 1
            if not self._failing:
                logger.warning("metrics: %s failed: %s", self._name, error)
            self._failing = True
        else:
            self._failing = False


def push(gateway: str, collector: Collector) -> None:
    """Replace this host's group at a Pushgateway; a governor's name is part of the group."""
    from prometheus_client import (
        CollectorRegistry,
        push_to_gateway,  # pyright: ignore[reportUnknownVariableType]
    )

    registry = CollectorRegistry()
    registry.register(collector)
    group = {"instance": socket.gethostname()}
    for status in collector.statuses():
        if status.name:
            group[NAME_LABEL] = status.name
    push_to_gateway(gateway, JOB, registry, grouping_key=group, timeout=PUSH_S)


def write(path: Path, collector: Collector) -> None:
    """Write the file anew, at once and as a whole."""
    from prometheus_client import CollectorRegistry, write_to_textfile

    registry = CollectorRegistry()
    registry.register(collector)
    write_to_textfile(str(path), registry)
