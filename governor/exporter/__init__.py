"""Where a governor's metrics go: an address to scrape, a Pushgateway, a file, a collector.

Everything here reads :class:`~governor.metrics.Collector` from threads of its own. Whatever
happens to a scraper, a gateway or a disk, the governor's threads never wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from governor.errors import InputError
from governor.metrics import Collector, Source
from governor.web import check_url

if TYPE_CHECKING:
    from governor.exporter.server import MetricsServer

DEFAULT_ADDRESS = "localhost:9477"
INTERVAL_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Where the metrics go.

    Attributes:
        listen: ``"localhost:9477"``, ``"0.0.0.0:9477"`` to be reached from elsewhere,
            ``"localhost:9477+"`` for the next free port where that one is taken, port 0 for
            any; empty: nothing listens.
        certificate, key: PEM files; with them, only TLS is spoken.
        passwords: a file with a line ``NAME:HASH`` for each who may scrape, as printed by
            ``governor metrics --password NAME``; without it, everybody may.
        push: URL of a Pushgateway.
        textfile: file for node_exporter's textfile collector; ends in ``.prom``.
        otlp: URL of an OpenTelemetry collector that takes OTLP over HTTP.
        interval_s: seconds between two pushes or writes.
    """

    listen: str = DEFAULT_ADDRESS
    certificate: Path | None = None
    key: Path | None = None
    passwords: Path | None = None
    push: str = ""
    textfile: Path | None = None
    otlp: str = ""
    interval_s: float = INTERVAL_S

    def __post_init__(self) -> None:
        if self.listen:
            Address.parse(self.listen)
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs both a certificate and its key")
        if not self.listen and (self.certificate or self.passwords):
            raise InputError("a certificate or passwords without an address to listen at")
        for url in filter(None, (self.push, self.otlp)):
            check_url(url)
        if self.textfile is not None and self.textfile.suffix != ".prom":
            raise InputError(
                f"{self.textfile}: node_exporter reads only files whose names end in .prom"
            )
        if not 0.1 <= self.interval_s <= 3600.0:
            raise InputError(f"interval_s must be from 0.1 to 3600 s, got {self.interval_s!r}")

    @classmethod
    def parse(cls, metrics: bool | str | MetricsConfig | None) -> MetricsConfig | None:
        """What ``EnergyGovernor(metrics=...)`` and ``--metrics`` take.

        A string is an address to listen at, or ``push:URL``, ``otlp:URL``, ``textfile:PATH``.

        Raises:
            InputError: it is none of these.
        """
        if metrics is None or metrics is False:
            return None
        if metrics is True:
            return cls()
        if isinstance(metrics, MetricsConfig):
            return metrics
        if not isinstance(metrics, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"metrics must be True, an address such as {DEFAULT_ADDRESS!r}, "
                f"or a MetricsConfig, got {metrics!r}"
            )
        kind, _, rest = metrics.partition(":")
        if kind == "push":
            return cls(listen="", push=rest)
        if kind == "otlp":
            return cls(listen="", otlp=rest)
        if kind == "textfile":
            return cls(listen="", textfile=Path(rest))
        return cls(listen=metrics)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        port: 0: any that is free.
        next_free: where the port is taken, try those after it.
    """

    host: str
    port: int
    next_free: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``"localhost:9477"``, ``"[::1]:9477"`` or ``"9477"``, perhaps with a ``+``.

        >>> Address.parse("[::1]:9477+")
        Address(host='::1', port=9477, next_free=True)

        Raises:
            InputError: it is no address.
        """
        found = re.fullmatch(
            r"(?:([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):)?([0-9]{1,5})(\+?)", text.strip()
        )
        if found is None or int(found[2]) > 65535:
            raise InputError(
                f"{text!r} is no address to listen at; write HOST:PORT, such as "
                f"{DEFAULT_ADDRESS}, or 0.0.0.0:9477 to be reached from elsewhere"
            )
        return cls((found[1] or "localhost").strip("[]"), int(found[2]), bool(found[3]))


class Exporter:
    """Hands one governor's metrics on until it is closed."""

    def __init__(self, config: MetricsConfig, source: Source) -> None:
        """Begin at once.

        Raises:
            InputError: the address is taken, a file is unusable; nothing was begun.
            MissingExtraError: for ``otlp``, if OpenTelemetry is not installed.
        """
        self.server: MetricsServer | None = None
        with ExitStack() as stack:
            if config.listen:
                from governor.exporter.server import share

                self.server = share(config)
                stack.callback(self.server.leave, source)
                self.server.collector.add(source)
            if config.push or config.textfile:
                from governor.exporter.outlets import start

                stack.callback(start(config, Collector(source)))
            if config.otlp:
                from governor.exporter.otel import start as start_otel

                stack.callback(start_otel(config, Collector(source)))
            self._end: Callable[[], None] = stack.pop_all().close

    @property
    def url(self) -> str | None:
        """Where to scrape; None: nothing listens."""
        return None if self.server is None else self.server.url

    def close(self) -> None:
        """Hand on a last time, and let go of the address. May be called twice."""
        self._end()
