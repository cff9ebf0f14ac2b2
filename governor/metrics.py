"""The metrics: what each is called, what it says, and where in a governor's status it stands.

One table, :data:`FAMILIES`, is the source for Prometheus, for OpenTelemetry and for the
documentation. Reading it takes a snapshot from memory; no sensor is asked for a scrape.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from governor import __version__
from governor.decision import Phase
from governor.errors import InputError
from governor.latencies import LatencyBuckets
from governor.objective import KINDS
from governor.status import Status
from governor.streams import StreamStatus

if TYPE_CHECKING:
    from prometheus_client import Metric

Kind = Literal["counter", "gauge", "histogram"]
Value = float | LatencyBuckets
Sample = tuple[tuple[str, ...], Value]
"""The labels' values, and what is measured."""

NAME_LABEL = "governor"
"""Tells governors of one process apart. An unnamed one goes without: to Prometheus, a label
that is missing and one that is empty are the same."""
UNITS = {"seconds": "s", "joules": "J", "watts": "W", "celsius": "Cel", "ratio": "1"}
"""The last word of a metric's name before ``_total``, and the unit by UCUM."""


class Source(Protocol):
    """What has metrics: an :class:`~governor.EnergyGovernor`."""

    def status(self) -> Status:
        """A snapshot."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: without the ``_total`` that a counter's samples carry.
        read: its samples in a status; what is not known has none.
    """

    name: str
    kind: Kind
    documentation: str
    labels: tuple[str, ...]
    read: Callable[[Status], Iterable[Sample]]

    @property
    def unit(self) -> str:
        """The unit's name in the metric's; empty: it counts, or its unit is a label's."""
        word = self.name.rpartition("_")[2]
        return word if word in UNITS else ""

    @property
    def exposed_name(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def samples(self, status: Status) -> Iterator[Sample]:
        """What is known and finite, at one moment."""
        for labels, value in self.read(status):
            if isinstance(value, LatencyBuckets) or math.isfinite(value):
                yield labels, value


def _one(read: Callable[[Status], Value | None]) -> Callable[[Status], Iterable[Sample]]:
    def samples(status: Status) -> Iterator[Sample]:
        value = read(status)
        if value is not None:
            yield (), value

    return samples


def _each(
    read: Callable[[Status], Mapping[str, float]], *always: str
) -> Callable[[Status], Iterable[Sample]]:
    """A sample for each key; those of ``always`` are there from the start, with 0."""

    def samples(status: Status) -> Iterator[Sample]:
        values = dict.fromkeys(always, 0.0) | {**read(status)}
        return (((key.replace(" ", "_"),), value) for key, value in values.items())

    return samples


def _joules(status: Status) -> dict[str, float]:
    return {**status.rail_j, "total": status.total_j}


def _watts(status: Status) -> dict[str, float]:
    total_w = status.power_w.get(status.total_rail, math.nan)
    return {**status.power_w, "total": total_w}


def _streams(read: Callable[[StreamStatus], float]) -> Callable[[Status], Iterable[Sample]]:
    """A sample for each stream, where there are several."""

    def samples(status: Status) -> Iterator[Sample]:
        if len(status.streams) > 1:
            for stream in status.streams:
                yield (stream.name,), read(stream)

    return samples


def _states(status: Status) -> Iterable[Sample]:
    yield ("baseline",), status.baseline_energy_j
    yield ("now",), status.energy_j


FAMILIES: tuple[Family, ...] = (
    Family(
        "governor_build_info",
        "gauge",
        "Always 1; the version of energy-governor.",
        ("version",),
        lambda status: [((__version__,), 1.0)],
    ),
    Family(
        "governor_device_info",
        "gauge",
        "Always 1; what is governed, and whether its figures are emulated.",
        ("device", "emulated"),
        lambda status: [((status.device, str(status.emulated).lower()), 1.0)],
    ),
    Family(
        "governor_inferences",
        "counter",
        "Inferences completed.",
        (),
        _one(lambda status: status.inferences),
    ),
    Family(
        "governor_failed_inferences",
        "counter",
        "Inferences that ended in an exception; not among the completed ones.",
        (),
        _one(lambda status: status.failed),
    ),
    Family(
        "governor_items",
        "counter",
        "Items in the inferences completed.",
        (),
        _one(lambda status: status.items),
    ),
    Family(
        "governor_inference_latency_seconds",
        "histogram",
        "Latency of inferences since the SLO is known in seconds; the SLO is a bucket's edge. "
        "That of other streams is scaled from their bound to this one.",
        (),
        _one(lambda status: status.latencies),
    ),
    Family(
        "governor_slo_seconds",
        "gauge",
        "The latency bound; absent while a relative one is not yet resolved.",
        (),
        _one(lambda status: status.slo_s),
    ),
    Family(
        "governor_slo_objective_ratio",
        "gauge",
        "Share of inferences that must keep the bound.",
        (),
        _one(lambda status: status.slo_percentile),
    ),
    Family(
        "governor_slo_violations",
        "counter",
        "Inferences that took longer than the bound.",
        (),
        _one(lambda status: status.violations),
    ),
    Family(
        "governor_slo_burn_rate_ratio",
        "gauge",
        "Share of the latest inferences at this operating point, up to 25,600, that took longer "
        "than the bound, over the share that may. 1: the budget is just spent.",
        (),
        _one(lambda status: status.slo_burn_rate),
    ),
    Family(
        "governor_slo_confidence_ratio",
        "gauge",
        "Confidence, from these inferences and the clustering of their misses, that the bound is "
        "kept at this operating point.",
        (),
        _one(lambda status: status.slo_confidence),
    ),
    Family(
        "governor_slo_feasible",
        "gauge",
        "1 if some setting keeps the SLO, 0 if none does; absent until known.",
        (),
        _one(lambda status: status.slo_feasible),
    ),
    Family(
        "governor_energy_joules",
        "counter",
        'Energy by rail. Rails overlap: never sum over them; rail="total" is all that counts.',
        ("rail",),
        _each(_joules),
    ),
    Family(
        "governor_power_watts",
        "gauge",
        'Latest power reading by rail. Rails overlap: never sum over them; rail="total" is all.',
        ("rail",),
        _each(_watts),
    ),
    Family(
        "governor_energy_per_item_joules",
        "gauge",
        "Energy an item under the system's own governors, and in the latest window.",
        ("state",),
        _states,
    ),
    Family(
        "governor_energy_saved_joules",
        "counter",
        "Energy saved against the baseline, less what the search cost; stands still while "
        "that is being earned back.",
        (),
        _one(lambda status: status.saved_j),
    ),
    Family(
        "governor_saving_ratio",
        "gauge",
        "Share of energy an item saved against the baseline; absent while not in hold.",
        (),
        _one(lambda status: status.saving),
    ),
    Family(
        "governor_best_energy_per_item_joules",
        "gauge",
        "Least energy an item among the search's trials that keep the SLO.",
        (),
        _one(lambda status: status.best_energy_j),
    ),
    Family(
        "governor_predicted_energy_per_item_joules",
        "gauge",
        "Energy an item that the policy expects at what is set; absent where it has no idea.",
        (),
        _one(lambda status: status.predicted_energy_j),
    ),
    Family(
        "governor_knob_value",
        "gauge",
        "What was last read of a knob that this governor has set, in the unit its name ends in.",
        ("knob",),
        _each(lambda status: status.knobs),
    ),
    Family(
        "governor_knob_target",
        "gauge",
        "What a knob should be at; absent while the system's own governors have it.",
        ("knob",),
        _each(lambda status: status.point or {}),
    ),
    Family(
        "governor_phase",
        "gauge",
        "1 for the phase that the controller is in, 0 for the others.",
        ("phase",),
        lambda status: [((one,), float(one == status.phase)) for one in get_args(Phase)],
    ),
    Family(
        "governor_objective",
        "gauge",
        "1 for what is to be small now, 0 for the others; weighted: a tariff's weight of energy.",
        ("objective",),
        lambda status: [((one,), float(one == status.objective_kind)) for one in KINDS],
    ),
    Family(
        "governor_power_cap_watts",
        "gauge",
        "The most that may be taken on average; absent where there is no cap.",
        (),
        _one(lambda status: status.power_cap_w),
    ),
    Family(
        "governor_frozen",
        "gauge",
        "1 while no inferences arrive, so that nothing can be measured.",
        (),
        _one(lambda status: status.frozen),
    ),
    Family(
        "governor_lease_held",
        "gauge",
        "1 while this governor has set the device and has yet to put it back.",
        (),
        _one(lambda status: status.lease_held),
    ),
    Family(
        "governor_trials",
        "counter",
        "Windows measured in searches, by whether they kept the SLO or why they were dropped.",
        ("outcome",),
        _each(lambda status: status.outcomes, "kept", "violated", "throttled"),
    ),
    Family(
        "governor_fallbacks",
        "counter",
        "Times that the SLO's budget burnt and the governor went back to a safe point.",
        (),
        _one(lambda status: status.fallbacks),
    ),
    Family(
        "governor_drifts",
        "counter",
        "Times that what was held had changed.",
        (),
        _one(lambda status: status.drifts),
    ),
    Family(
        "governor_temperature_celsius",
        "gauge",
        "Latest temperature by zone.",
        ("zone",),
        _each(lambda status: status.temperature_c),
    ),
    Family(
        "governor_thermal_limit_celsius",
        "gauge",
        'The warmest allowed, by zone; zone="hottest": of all, the board\'s trip included.',
        ("zone",),
        _each(lambda status: status.thermal_limits_c),
    ),
    Family(
        "governor_thermal_headroom_celsius",
        "gauge",
        "Degrees left below the nearest thermal limit; absent where there is none.",
        (),
        _one(lambda status: status.thermal_headroom_c),
    ),
    Family(
        "governor_throttle_events",
        "counter",
        "The device's own counters of throttling, by cause.",
        ("cause",),
        _each(lambda status: status.throttle_events),
    ),
    Family(
        "governor_restores",
        "counter",
        "Times that the device was put back as it was found, by reason.",
        ("reason",),
        _each(lambda status: status.restores, "release", "error", "failed"),
    ),
    Family(
        "governor_source_messages",
        "counter",
        "A sidecar's messages from each application and source, by what became of them.",
        ("source", "outcome"),
        lambda status: status.sources.items(),
    ),
    Family(
        "governor_disturbances",
        "counter",
        "Times that someone else set a knob, or the input stalled.",
        ("cause",),
        _each(lambda status: status.disturbances, "knob", "stalled"),
    ),
    Family(
        "governor_sensor_errors",
        "counter",
        "Readings that failed.",
        ("sensor",),
        _each(lambda status: status.sensor_errors, "power", "knobs"),
    ),
    Family(
        "governor_stream_inferences",
        "counter",
        "Inferences completed, by stream; absent where there is one only.",
        ("stream",),
        _streams(lambda stream: stream.inferences),
    ),
    Family(
        "governor_stream_slo_violations",
        "counter",
        "Inferences that took longer than their stream's bound.",
        ("stream",),
        _streams(lambda stream: stream.violations),
    ),
    Family(
        "governor_stream_slo_seconds",
        "gauge",
        "The latency bound of a stream.",
        ("stream",),
        _streams(lambda stream: stream.slo_s),
    ),
    Family(
        "governor_stream_latency_seconds",
        "gauge",
        "Latency of a stream at its SLO's percentile, in the latest window that it was in.",
        ("stream",),
        _streams(lambda stream: stream.latency_s),
    ),
    Family(
        "governor_record_errors",
        "counter",
        "Lines of the run record that could not be written.",
        (),
        _one(lambda status: status.record_errors),
    ),
)

EXPORT_ERRORS = Family(
    "governor_export_errors",
    "counter",
    "Times that the metrics could not be pushed or written, by where to.",
    ("outlet",),
    lambda status: (),
)
"""Of the process, not of a governor."""
DOCUMENTED = (*FAMILIES, EXPORT_ERRORS)


class Collector:
    """The metrics of some governors, for a registry of prometheus_client.

    ``prometheus_client.REGISTRY.register(gov.collector())`` is all that an application with an
    exporter of its own needs. One collector serves every governor of a registry.

    Attributes:
        export_errors: times that these could not be handed on, by where to.
    """

    def __init__(self, *sources: Source) -> None:
        self.export_errors: Counter[str] = Counter()
        self._sources: dict[str, Source] = {}
        self._lock = threading.RLock()
        for source in sources:
            self.add(source)

    def add(self, source: Source) -> None:
        """Show this governor, too.

        Raises:
            InputError: another one here has the same name.
        """
        name = source.status().name
        with self._lock:
            if name in self._sources:
                raise InputError(
                    f"two governors named {name!r} share one set of metrics; give each a name: "
                    "EnergyGovernor(..., name='detector')"
                )
            self._sources[name] = source

    def remove(self, source: Source) -> None:
        """Show it no more."""
        with self._lock:
            self._sources = {name: one for name, one in self._sources.items() if one is not source}

    def statuses(self) -> list[Status]:
        """A snapshot of each governor."""
        with self._lock:
            sources = list(self._sources.values())
        return [source.status() for source in sources]

    def describe(self) -> list[Metric]:
        """The names, so that a registry refuses a second collector of them."""
        return [_metric(family) for family in DOCUMENTED]

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a sample now."""
        statuses = self.statuses()
        for family in FAMILIES:
            metric = _metric(family)
            for status in statuses:
                name = {NAME_LABEL: status.name} if status.name else {}
                for labels, value in family.samples(status):
                    named = {**name, **dict(zip(family.labels, labels, strict=True))}
                    _add(metric, family, named, value)
            if metric.samples:
                yield metric
        errors = _metric(EXPORT_ERRORS)
        for outlet, count in self.export_errors.items():
            _add(errors, EXPORT_ERRORS, {"outlet": outlet}, count)
        if errors.samples:
            yield errors


def _metric(family: Family) -> Metric:
    from prometheus_client import Metric

    return Metric(family.name, family.documentation, family.kind, family.unit)


def _add(metric: Metric, family: Family, labels: dict[str, str], value: Value) -> None:
    if not isinstance(value, LatencyBuckets):
        metric.add_sample(family.exposed_name, labels, float(value))
        return
    total = 0
    for edge_s, count in zip((*value.edges_s, math.inf), value.counts, strict=True):
        total += count
        edge = "+Inf" if math.isinf(edge_s) else repr(edge_s)
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": edge}, total)
    metric.add_sample(f"{family.name}_count", labels, total)
    metric.add_sample(f"{family.name}_sum", labels, value.sum_s)
