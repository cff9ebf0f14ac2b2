"""The sidecar: one governor, the applications it serves, and the sources that tell of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from governor.devices import open_device
from governor.devices.device import Device, ShadowDevice
from governor.errors import InputError
from governor.governor import EnergyGovernor
from governor.pace import Pace
from governor.sidecar.feed import Feed
from governor.sidecar.sources import Datagrams, LogLines, Scrape, Source
from governor.sidecar.spec import App, SourceSpec
from governor.trial import MAIN
from governor.units import Duration

SOCKET = Path("/run/energy-governor/sidecar.sock")
INTERVAL_S = 1.0
TAIL = 1.25
"""The percentile over the mean where only the mean is counted. Loops on an Orin Nano show 1.03 at
most (jetson-latency-lab, 96 settings); a server that queues shows more."""
SCRAPES = 3.0
"""A scraped stream is silent after so many scrapes without an inference."""
JOIN_S = 2.0
logger = logging.getLogger("governor")


class Sidecar:
    """Governs pipelines of other processes while its ``with`` block lasts.

    Attributes:
        governor: what finds and holds the operating point.
        feeds: by application.
        sources: by name, what is listened to.
    """

    def __init__(
        self,
        latency_slo: Duration,
        *,
        percentile: float = 0.95,
        apps: Sequence[App] = (),
        sources: Sequence[SourceSpec] = (),
        socket: Path | None = SOCKET,
        socket_mode: int = 0o660,
        device: str | Device = "auto",
        interval_s: float = INTERVAL_S,
        tail: float = TAIL,
        **options: Any,
    ) -> None:
        """
        Args:
            latency_slo, percentile: of the application ``main``.
            apps: others, each with its own bound.
            sources: metrics to scrape and logs to follow.
            socket: where the client's frames arrive; None: nowhere.
            socket_mode: who may send there, as file permissions.
            device: as of :class:`EnergyGovernor`.
            interval_s: between two scrapes.
            tail: the percentile over the mean, where a source knows only the mean.
            options: further ones of :class:`EnergyGovernor`.

        Raises:
            InputError: an argument cannot be used. Nothing was changed.
            NoDeviceError: there is nothing to govern.
        """
        _check(apps, sources, socket, interval_s, tail)
        scraped = {spec.app for spec in sources if spec.kind != "log"}
        stall_s = SCRAPES * interval_s
        if MAIN in scraped:
            pace = options.get("pace") or Pace()
            options["pace"] = _with_stall(pace, stall_s)
        self._owned = isinstance(device, str)
        self._device = open_device(device) if isinstance(device, str) else device
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self.sources: dict[str, Source] = {}
        try:
            self.governor = EnergyGovernor(
                latency_slo, percentile=percentile, device=self._device, **options
            )
            self.governor.count_sources(self.counts)
            shadow = self._device if isinstance(self._device, ShadowDevice) else None
            self.feeds = {MAIN: Feed(MAIN, self.governor, shadow, self._binding(MAIN))}
            for app in apps:
                stream = self.governor.stream(
                    app.name,
                    latency_slo=app.latency_slo,
                    percentile=app.slo.percentile,
                    stall_s=stall_s if app.name in scraped else 0.0,
                )
                self.feeds[app.name] = Feed(app.name, stream, shadow, self._binding(app.name))
            for spec in sources:
                self._add(spec, interval_s, tail)
            if socket is not None:
                self.sources["client"] = Datagrams(socket, self.feeds, socket_mode)
        except BaseException:
            self._close_device()
            raise

    def _binding(self, app: str) -> Callable[[float], None]:
        return lambda bound_s: self.governor.set_slo(bound_s, stream=app)

    def _add(self, spec: SourceSpec, interval_s: float, tail: float) -> None:
        feed = self.feeds[spec.app]
        name = f"{spec.app}:{spec.kind}"
        if spec.kind == "log":
            self.sources[name] = LogLines(spec, feed)
            return
        scrape = Scrape(spec, feed, interval_s, tail)
        self.governor.set_resolution(spec.app, scrape.edges.around)
        self.sources[name] = scrape

    def __enter__(self) -> Sidecar:
        self.governor.__enter__()
        for name, source in self.sources.items():
            thread = threading.Thread(
                target=self._listen, args=(name, source), name=f"source {name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return self

    def _listen(self, name: str, source: Source) -> None:
        """The sidecar must not fall over one of its sources."""
        try:
            source.run(self._ending)
        except Exception:
            logger.exception("the source %s failed; nothing more is heard of it", name)
            source.counts["failed"] += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        try:
            self.governor.__exit__(kind, error, trace)
        finally:
            until_s = time.monotonic() + JOIN_S
            for thread in self._threads:
                thread.join(max(0.0, until_s - time.monotonic()))
            self._close_device()

    def counts(self) -> dict[tuple[str, str], int]:
        """By source and outcome: ``app NAME`` for what came in for an application."""
        counters = {f"app {name}": feed.counts for name, feed in self.feeds.items()}
        counters |= {name: source.counts for name, source in self.sources.items()}
        return {
            (name, outcome): count
            for name, counter in counters.items()
            for outcome, count in dict(counter).items()
        }

    def _close_device(self) -> None:
        if self._owned:
            self._device.close()


def _with_stall(pace: Pace, stall_s: float) -> Pace:
    return replace(pace, stall_s=max(pace.stall_s, stall_s))


def _check(
    apps: Sequence[App],
    sources: Sequence[SourceSpec],
    socket: Path | None,
    interval_s: float,
    tail: float,
) -> None:
    known = {MAIN, *(app.name for app in apps)}
    for spec in sources:
        if spec.app not in known:
            raise InputError(f"a source for {spec.app!r}, but no --app {spec.app}=SLO")
    twice = [key for key, n in Counter((s.app, s.kind != "log") for s in sources).items() if n > 1]
    if twice:
        raise InputError(f"{twice[0][0]!r} has two sources of one kind; it would be counted twice")
    if sum(spec.where == "-" for spec in sources) > 1:
        raise InputError("standard input can be the source of one application only")
    if not sources and socket is None:
        raise InputError("no source: nothing would ever be seen")
    if not 0.1 <= interval_s <= 60.0:
        raise InputError(f"--interval must be from 0.1s to 60s, got {interval_s:g} s")
    if not 1.0 <= tail <= 10.0:
        raise InputError(f"--tail must be from 1 to 10, got {tail:g}")
