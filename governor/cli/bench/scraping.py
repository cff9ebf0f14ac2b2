"""What scrapes cost: how long one takes, and how late the control loop looks meanwhile."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from governor.cli.bench.still import StillDevice
from governor.devices.device import MonotonicClock
from governor.errors import GovernorError
from governor.exits import interrupts_later
from governor.exporter.server import MOST_THREADS
from governor.progress import with_progress
from governor.runtime import POLL_S
from policies.fixed import FixedPolicy

RATE_HZ = 100.0
HANGING = MOST_THREADS - 1
"""Connections that say nothing: each keeps one of the server's threads, and one is left."""
WORK_S = 0.010
SAME_LOOK_S = 0.01
"""The control loop may ask for the time more than once a look."""


class _NotedClock(MonotonicClock):
    """Notes when the control loop asks for the time, as it does at each look."""

    def __init__(self) -> None:
        self.looks_s: list[float] = []

    def now(self) -> float:
        now_s = super().now()
        if threading.current_thread().name == "governor":
            self.looks_s.append(now_s)
        return now_s


@dataclass(frozen=True, slots=True)
class Scraping:
    """What was seen in alternating stretches of time, without scrapes and with them.

    Attributes:
        scrapes_s: how long each took, as its client saw it.
        quiet_late_s, scraped_late_s: by how much each look of the control loop came late.
    """

    scrapes_s: list[float]
    quiet_late_s: list[float]
    scraped_late_s: list[float]


def measure(seconds: float = 2.0, rounds: int = 4) -> Scraping:
    """Govern an inference loop; in every second stretch, another process scrapes it hard.

    That one scrapes ``RATE_HZ`` times a second, ``HANGING`` other connections open.
    """
    from governor import EnergyGovernor

    clock, seen = _NotedClock(), Scraping([], [], [])
    with ExitStack() as stack:
        gov = stack.enter_context(
            EnergyGovernor(
                "1s", device=StillDevice(clock), policy=FixedPolicy, metrics="localhost:0"
            )
        )

        def infer() -> list[float]:
            clock.looks_s.clear()
            until_s = time.perf_counter() + seconds
            while time.perf_counter() < until_s:
                with gov.inference():
                    time.sleep(WORK_S)
            return _late_s(clock.looks_s)

        scraper = stack.enter_context(_scraper(str(gov.metrics_url)))
        stack.callback(scraper.kill)
        for _ in with_progress(range(rounds), rounds, "Scraping"):
            seen.quiet_late_s.extend(infer())
            _tell(scraper, str(seconds))
            seen.scraped_late_s.extend(infer())
            seen.scrapes_s.extend(_answer(scraper))
    return seen


def _late_s(looks_s: list[float]) -> list[float]:
    between_s = np.diff(looks_s)
    return [float(one) - POLL_S for one in between_s[between_s > SAME_LOOK_S]]


def _scraper(url: str) -> subprocess.Popen[str]:
    with interrupts_later():
        return subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def _tell(scraper: subprocess.Popen[str], line: str) -> None:
    if scraper.stdin is not None:
        scraper.stdin.write(f"{line}\n")
        scraper.stdin.flush()


def _answer(scraper: subprocess.Popen[str]) -> list[float]:
    line = scraper.stdout.readline() if scraper.stdout is not None else ""
    if not line:
        raise GovernorError("the process that scrapes has failed; see its message above")
    return [float(one) for one in json.loads(line)]


def scrape(url: str, seconds: float) -> list[float]:
    """Scrape for a while, some connections hanging meanwhile; how long each scrape took."""
    parts = urlsplit(url)
    took_s: list[float] = []
    began_s = time.perf_counter()
    with ExitStack() as hanging:
        for _ in range(HANGING):
            hanging.enter_context(socket.create_connection((str(parts.hostname), parts.port or 0)))
        while (start_s := time.perf_counter()) < began_s + seconds:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
                answer.read()
            took_s.append(time.perf_counter() - start_s)
            next_s = began_s + len(took_s) / RATE_HZ
            time.sleep(max(next_s - time.perf_counter(), 0.0))
    return took_s


if __name__ == "__main__":
    for order in iter(sys.stdin.readline, ""):
        print(json.dumps(scrape(sys.argv[1], float(order))), flush=True)
