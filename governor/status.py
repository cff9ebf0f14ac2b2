"""What a governor knows at one moment, for whoever shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from governor.controller import Controller
from governor.decision import Phase
from governor.devices.device import DeviceInfo
from governor.latencies import LatencyBuckets
from governor.meter import resolved_energy_j
from governor.runtime import Runtime
from governor.space import OperatingPoint
from governor.streams import StreamStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A snapshot for a terminal or for metrics.

    Attributes:
        name: of this governor among others in one process; empty: it has none.
        device, emulated: what is governed; no figure of an emulated device was measured on
            hardware.
        phase, frozen, governing: where the controller stands.
        lease_held: whether the device has been set by this governor and not yet put back.
        point: what is set; None: the system's own governors.
        knobs: what was last read of it on the device; empty: nothing of ours.
        slo_percentile: the share of inferences that must keep the SLO.
        slo_s: infinite while a relative SLO is not yet resolved.
        slo_feasible: None until known.
        objective: what is to be small now, for people.
        objective_kind: one of :data:`governor.objective.KINDS`.
        power_cap_w: the most it may take on average; infinite: there is no cap.
        latency_s, mean_latency_s: at the SLO's percentile and on average, s, in the latest
            finished window, of the stream nearest to its bound (see :class:`Trial`); NaN
            before the first, as every energy an item.
        energy_j: joules an item, in that window.
        baseline_energy_j, held_energy_j: joules an item, before and in hold.
        best_energy_j: of the present search's trials the least that keeps the SLO.
        predicted_energy_j: what the policy expects at what is set; NaN: no idea.
        total_rail: the one of ``power_w`` that is the whole of what is charged.
        power_w, temperature_c: latest readings by rail and zone.
        thermal_limits_c: by zone, in °C; under ``hottest`` that of all zones, the board's own trip
            point included.
        thermal_headroom_c: degrees left below the nearest of them; NaN: none, or not known.
        throttle_events: the device's own counters, by cause.
        total_j, rail_j: joules on the total rail and by rail since the start; rails overlap.
        saved_j: joules against the baseline, what the search cost included; never falls.
        saving: share of energy an item saved against the baseline; None until known.
        defaults_held: nothing better than the system's own governors was found, so they are
            left to govern, and watched.
        inferences, items, violations: since the start.
        latencies: of the inferences since the SLO is known in seconds; those of other streams
            than the main one scaled so that their bound is its.
        failed: inferences that ended in an exception; not among ``inferences``.
        trials: told to the policy.
        outcomes, disturbances, sensor_errors, restores: counts by kind.
        fallbacks, drifts: how often the SLO guard and the drift detector spoke.
        record_errors: lines of the run record that could not be written.
        sources: a sidecar's messages, by source and what became of them.
        streams: each with its own bound, the governor's own first.
    """

    name: str
    device: str
    emulated: bool
    phase: Phase
    frozen: bool
    governing: bool
    lease_held: bool
    point: OperatingPoint | None
    knobs: Mapping[str, float]
    slo_percentile: float
    objective: str
    objective_kind: str
    power_cap_w: float
    slo_s: float
    slo_feasible: bool | None
    latency_s: float
    mean_latency_s: float
    energy_j: float
    baseline_energy_j: float
    held_energy_j: float
    best_energy_j: float
    predicted_energy_j: float
    total_rail: str
    power_w: Mapping[str, float]
    temperature_c: Mapping[str, float]
    thermal_limits_c: Mapping[str, float]
    thermal_headroom_c: float
    throttle_events: Mapping[str, int]
    total_j: float
    rail_j: Mapping[str, float]
    saved_j: float
    saving: float | None
    defaults_held: bool
    inferences: int
    items: int
    violations: int
    latencies: LatencyBuckets
    failed: int
    trials: int
    outcomes: Mapping[str, int]
    disturbances: Mapping[str, int]
    sensor_errors: Mapping[str, int]
    restores: Mapping[str, int]
    fallbacks: int
    drifts: int
    record_errors: int
    sources: Mapping[tuple[str, str], int]
    streams: tuple[StreamStatus, ...]

    @classmethod
    def of(
        cls,
        controller: Controller,
        runtime: Runtime,
        info: DeviceInfo,
        *,
        name: str,
        failed: int,
        record_errors: int,
        sources: Mapping[tuple[str, str], int],
    ) -> Status:
        """A snapshot; the caller holds the runtime's lock, so that all is of one moment."""
        seen = controller.seen
        latest, sample = seen.latest, seen.meter.latest
        return cls(
            name=name,
            device=info.name,
            emulated=info.emulated,
            phase=controller.phase,
            frozen=controller.frozen,
            governing=controller.governing,
            lease_held=runtime.touched,
            point=controller.target,
            objective=str(controller.objective),
            objective_kind=controller.objective.kind,
            power_cap_w=controller.objective.power_cap_w,
            knobs=dict(controller.read_back or {}),
            slo_percentile=controller.slo.percentile,
            slo_s=controller.slo_s,
            slo_feasible=controller.slo_feasible,
            latency_s=math.nan if latest is None else latest.latency_s,
            mean_latency_s=math.nan if latest is None else latest.mean_latency_s,
            energy_j=resolved_energy_j(latest),
            baseline_energy_j=resolved_energy_j(controller.baseline),
            held_energy_j=resolved_energy_j(controller.held),
            best_energy_j=resolved_energy_j(controller.best),
            predicted_energy_j=controller.predicted_j,
            total_rail=info.total_rail,
            power_w=dict(sample.power_w) if sample is not None else {},
            temperature_c=dict(sample.temperature_c) if sample is not None else {},
            thermal_limits_c=controller.heat.known_limits_c,
            thermal_headroom_c=controller.heat.headroom_c,
            throttle_events=dict(sample.throttle_events) if sample is not None else {},
            total_j=seen.meter.total_j,
            rail_j=dict(seen.meter.rail_j),
            saved_j=controller.savings.total_j,
            saving=controller.saving,
            defaults_held=controller.defaults_held,
            inferences=seen.inferences,
            items=seen.items,
            violations=seen.violations,
            latencies=seen.latencies.buckets(),
            failed=failed,
            trials=len(controller.trials),
            outcomes=dict(controller.outcomes),
            disturbances=dict(controller.disturbances),
            sensor_errors=dict(runtime.senses.errors),
            restores=dict(runtime.restores),
            fallbacks=controller.fallbacks,
            drifts=controller.drifts,
            record_errors=record_errors,
            sources=sources,
            streams=tuple(stream.status() for stream in seen.streams),
        )

    @property
    def slo_burn_rate(self) -> float:
        """Of the stream that spends its budget fastest; NaN: no inference yet."""
        return max((each.burn_rate for each in self._heard), default=math.nan)

    @property
    def slo_confidence(self) -> float:
        """That the operating point keeps every stream's bound, of the least sure; NaN: none."""
        return min((each.confidence for each in self._heard), default=math.nan)

    @property
    def _heard(self) -> list[StreamStatus]:
        return [each for each in self.streams if not math.isnan(each.burn_rate)]
