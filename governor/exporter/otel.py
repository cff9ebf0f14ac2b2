"""The same metrics through OpenTelemetry: observable instruments over the same table.

Names follow OpenTelemetry, ``governor.energy`` in ``J``, so that a collector that hands them
on to Prometheus arrives at the names of the exporter. There is no observable histogram in
OpenTelemetry: the latency goes out as the gauge ``governor.latency`` of the latest window, at
the SLO's percentile and on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from governor.errors import MissingExtraError
from governor.exporter import MetricsConfig
from governor.latencies import LatencyBuckets
from governor.metrics import FAMILIES, NAME_LABEL, UNITS, Collector, Family

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

SERVICE = "governor"
SEND_S = 5.0
"""A collector that takes longer has failed, and may keep the block from ending for so long."""
PATH = "/v1/metrics"


def instrument(collector: Collector, meter: Meter) -> None:
    """Let an application's own meter observe the governors of a collector."""
    for family in FAMILIES:
        if family.kind == "histogram":
            continue
        create = (
            meter.create_observable_counter
            if family.kind == "counter"
            else meter.create_observable_gauge
        )
        create(
            instrument_name(family),
            callbacks=[_observe(collector, family)],
            unit=UNITS.get(family.unit, ""),
            description=family.documentation,
        )
    meter.create_observable_gauge(
        "governor.latency",
        callbacks=[_latency(collector)],
        unit="s",
        description="Latency in the latest window, at the SLO's percentile and on average.",
    )


def instrument_name(family: Family) -> str:
    """``governor.energy`` for ``governor_energy_joules``: the unit stands beside the name."""
    name = family.name.removesuffix(f"_{family.unit}") if family.unit else family.name
    return name.replace("governor_", "governor.", 1)


def _named(name: str) -> dict[str, str]:
    return {NAME_LABEL: name} if name else {}


def _observe(
    collector: Collector, family: Family
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    from opentelemetry.metrics import Observation

    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for status in collector.statuses():
            for labels, value in family.samples(status):
                if not isinstance(value, LatencyBuckets):
                    attributes = dict(zip(family.labels, labels, strict=True))
                    yield Observation(float(value), {**_named(status.name), **attributes})

    return observe


def _latency(collector: Collector) -> Callable[[CallbackOptions], Iterable[Observation]]:
    from opentelemetry.metrics import Observation

    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for status in collector.statuses():
            for statistic, value in (
                ("percentile", status.latency_s),
                ("mean", status.mean_latency_s),
            ):
                if value == value:
                    yield Observation(value, {**_named(status.name), "statistic": statistic})

    return observe


def start(config: MetricsConfig, collector: Collector) -> Callable[[], None]:
    """Send to an OpenTelemetry collector every ``config.interval_s``; returns what ends it.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        raise MissingExtraError("opentelemetry", "otel") from error
    url = config.otlp.rstrip("/")
    endpoint = url if url.endswith(PATH) else url + PATH
    exporter = OTLPMetricExporter(endpoint=endpoint, timeout=SEND_S)
    reader = PeriodicExportingMetricReader(
        exporter, export_interval_millis=1000.0 * config.interval_s
    )
    provider = MeterProvider(
        [reader], resource=Resource.create({"service.name": SERVICE}), shutdown_on_exit=False
    )
    instrument(collector, provider.get_meter("governor"))
    return lambda: provider.shutdown(timeout_millis=1000.0 * SEND_S)
