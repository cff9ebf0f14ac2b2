"""Watches a run and writes its record: every trial, every decision, and how it went meanwhile."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from governor.controller import Controller
from governor.decision import Decision, Phase
from governor.devices.device import DeviceInfo, Sample
from governor.records.file import LineFile
from governor.records.lines import (
    FORMAT,
    DecisionLine,
    End,
    Header,
    Line,
    TrialLine,
    WindowLine,
    known,
    plain,
)
from governor.roofline.work import Work
from governor.space import OperatingPoint, Space
from governor.streams import SeenStreams
from governor.trial import Span, Trial

WINDOW_S = 1.0
"""Of a line that says how it went, and of one in hold, where less happens and for longer."""
HOLD_WINDOW_S = 5.0


class Recorder:
    """Writes down what a governor does, seen from its control loop."""

    def __init__(self, path: Path, controller: Controller, space: Space | None, info: DeviceInfo,
                 *, policy: str, trials: int, seed: int,
                 work: Work | None = None) -> None:  # fmt: skip
        """Nothing is written before :meth:`begin`. ``work``: what one inference is known to do."""
        self._path = path
        self._controller = controller
        self._space = space
        self._info = info
        self._policy = policy
        self._trials = trials
        self._seed = seed
        self._work = work
        self._file: LineFile | None = None
        self._began_s = 0.0
        self._baseline: Trial | None = None
        self._written = 0
        self._window = _Window(0.0, "baseline", None, 0.0)
        self._before = (0, 0, 0, 0.0)

    @property
    def errors(self) -> int:
        """Lines that could not be written."""
        return 0 if self._file is None else self._file.errors

    def begin(self, now_s: float) -> None:
        """The run starts."""
        self._file = LineFile(self._path)
        self._begin(now_s)

    def move(self, now_s: float, space: Space, info: DeviceInfo) -> None:
        """Other settings from now on: another run in the same file, as its header names them."""
        self._end(now_s, "other settings")
        self._space, self._info, self._before = space, info, self._totals
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        slo, work = self._controller.slo, self._work
        levels = {} if self._space is None else {k.name: list(k.levels) for k in self._space.knobs}
        self._put(
            Header(
                format=FORMAT,
                version=version("energy-governor"),
                started_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                program=Path(sys.argv[0]).name if sys.argv else "",
                device=self._info.name,
                description=self._info.description,
                emulated=self._info.emulated,
                workload=self._info.workload,
                total_rail=self._info.total_rail,
                levels=levels,
                settings=0 if self._space is None else len(self._space),
                slo=str(slo),
                slo_s=None if slo.bound.relative else slo.bound.value,
                percentile=slo.percentile,
                policy=self._policy,
                trials=self._trials,
                seed=self._seed,
                objective=str(self._controller.objective),
                model="" if work is None else work.name,
                precision="" if work is None else work.precision,
                flop=None if work is None else work.flop / work.batch_size,
                bytes_moved=None if work is None else work.bytes / work.batch_size,
            )
        )
        self._open_window(now_s)

    def look(self, now_s: float, spans: Sequence[Span], sample: Sample | None) -> None:
        """What the control loop is about to show its controller."""
        window = self._window
        window.add(spans, sample, self._controller.seen.streams)
        longest_s = HOLD_WINDOW_S if window.phase == "hold" else WINDOW_S
        if now_s - window.start_s >= longest_s:
            self._close_window(now_s)
            self._open_window(now_s)

    def decided(self, decision: Decision) -> None:
        """A decision is in force."""
        controller, now_s = self._controller, decision.time_s
        self._close_window(now_s)
        self._put_trials(now_s)
        self._put(
            DecisionLine(
                time_s=self._since(now_s),
                kind=decision.kind,
                phase=decision.phase,
                point=plain(decision.point),
                change=decision.change,
                reason=decision.reason,
                slo_s=known(controller.slo_s),
                slo_feasible=controller.slo_feasible,
                saving=controller.saving,
            )
        )
        self._open_window(now_s)

    def end(self, now_s: float, reason: str) -> None:
        """The run is over; everything is written when this returns."""
        if self._file is None:
            return
        self._end(now_s, reason)
        self._file.close()

    @property
    def _totals(self) -> tuple[int, int, int, float]:
        """Inferences, items, violations and joules of all runs so far."""
        seen = self._controller.seen
        return seen.inferences, seen.items, seen.violations, seen.meter.total_j

    def _end(self, now_s: float, reason: str) -> None:
        inferences, items, violations, total_j = self._totals
        before = self._before
        self._close_window(now_s)
        self._put_trials(now_s)
        self._put(
            End(
                time_s=self._since(now_s),
                reason=reason,
                inferences=inferences - before[0],
                items=items - before[1],
                violations=violations - before[2],
                total_j=total_j - before[3],
                baseline_energy_j=_energy(self._controller.baseline),
                held_energy_j=_energy(self._controller.held),
                saving=self._controller.saving,
            )
        )

    def _put_trials(self, now_s: float) -> None:
        """Those that are new."""
        controller = self._controller
        if controller.baseline is not None and controller.baseline is not self._baseline:
            self._baseline = controller.baseline
            self._put(self._trial(now_s, "baseline", self._baseline))
        for trial in controller.trials[self._written :]:
            self._put(self._trial(now_s, "search", trial))
        self._written = len(controller.trials)

    def _trial(self, now_s: float, role: Literal["baseline", "search"], trial: Trial) -> TrialLine:
        return TrialLine(
            time_s=self._since(now_s),
            role=role,
            point=plain(trial.point),
            latency_s=trial.latency_s,
            latency_se_s=trial.latency_se_s,
            mean_latency_s=trial.mean_latency_s,
            mean_latency_se_s=trial.mean_latency_se_s,
            energy_j=known(trial.energy_j),
            energy_se_j=known(trial.energy_se_j),
            power_w=known(trial.power_w),
            inferences=trial.inferences,
            items=trial.items,
            duration_s=trial.duration_s,
            throttled=trial.throttled,
            disturbed=trial.disturbed,
            too_short=trial.too_short,
            warming=trial.warming,
        )

    def _open_window(self, now_s: float) -> None:
        controller = self._controller
        total_j = controller.seen.meter.total_j
        self._window = _Window(now_s, controller.phase, controller.target, total_j)

    def _close_window(self, now_s: float) -> None:
        window, controller = self._window, self._controller
        if now_s <= window.start_s:
            return
        power_w, elapsed_s = window.power_w, now_s - window.start_s
        total_w = power_w.get(self._info.total_rail)
        counted_j = controller.seen.meter.total_j - window.start_j
        energy_j = counted_j if total_w is None else total_w * elapsed_s
        latencies_s = np.array(window.latencies_s)
        seen = len(latencies_s) > 0
        self._put(
            WindowLine(
                start_s=self._since(window.start_s),
                end_s=self._since(now_s),
                phase=window.phase,
                point=plain(window.point),
                slo_s=known(controller.slo_s),
                inferences=len(latencies_s),
                items=window.items,
                violations=window.violations,
                latency_s=float(np.quantile(latencies_s, controller.slo.percentile))
                if seen
                else None,
                mean_latency_s=float(latencies_s.mean()) if seen else None,
                energy_j=energy_j / window.items if window.items and energy_j > 0 else None,
                power_w=power_w,
                temperature_c=dict(window.temperature_c),
                throttle_events=dict(window.throttle_events),
                saving=controller.saving,
            )
        )

    def _since(self, now_s: float) -> float:
        return round(max(now_s - self._began_s, 0.0), 6)

    def _put(self, line: Line) -> None:
        if self._file is not None:
            self._file.put(json.dumps(asdict(line), allow_nan=False))


class _Window:
    """What is seen between two lines."""

    def __init__(
        self,
        start_s: float,
        phase: Phase,
        point: OperatingPoint | None,
        start_j: float,
    ) -> None:
        self.start_s = start_s
        self.phase: Phase = phase
        self.point = point
        self.start_j = start_j
        self.items = self.violations = 0
        self.latencies_s: list[float] = []
        self.temperature_c: Mapping[str, float] = {}
        self.throttle_events: Mapping[str, int] = {}
        self._power_w: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, spans: Sequence[Span], sample: Sample | None, streams: SeenStreams) -> None:
        for span in spans:
            self.latencies_s.append(streams.scaled_s(span))
            self.items += span.items
            self.violations += streams.missed(span)
        if sample is None:
            return
        self.temperature_c = {z: c for z, c in sample.temperature_c.items() if math.isfinite(c)}
        self.throttle_events = sample.throttle_events
        for rail, watts in sample.power_w.items():
            if math.isfinite(watts):
                self._power_w[rail].append(watts)

    @property
    def power_w(self) -> dict[str, float]:
        """Mean watts by rail."""
        return {rail: sum(watts) / len(watts) for rail, watts in self._power_w.items()}


def _energy(trial: Trial | None) -> float | None:
    return None if trial is None else known(trial.energy_j)
