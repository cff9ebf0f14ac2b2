"""What is seen of the inferences at one operating point, and when that says enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from governor.devices.device import DeviceInfo, Sample
from governor.heat import Heat
from governor.latencies import Latencies
from governor.meter import STALE, Meter, resolved_energy_j
from governor.objective import ENERGY, Objective
from governor.pace import Pace
from governor.setting import Setting
from governor.slo import LatencySLO
from governor.streams import SeenStreams
from governor.trial import Span, Trial
from governor.window import Window

CLEAR = 0.99
"""The probability at which it is clear that a point keeps the bounds, or that it does not."""
PLAINLY = 4.0
"""Standard errors by which a point is plainly dearer than another."""
DEARER_SHARE = 0.6
"""Of the shortest window: enough to see that a point is plainly dearer than the best one."""
LOOK_AGAIN = 1.05
"""A window is judged anew when it has grown by so much: its statistics are not free."""


class Observer:
    """Takes one window after another and judges them.

    Attributes:
        meter: the power readings.
        streams: whose inferences they are, with their bounds.
        latencies: of all inferences since the bound is known, each scaled to it.
        latest: the latest finished window as it was measured, None before the first.
        objective: what a point is judged by.
        inferences, items, violations: seen so far; violations of each stream's own bound.
    """

    def __init__(
        self,
        slo: LatencySLO,
        info: DeviceInfo,
        pace: Pace,
        setting: Setting,
        heat: Heat | None = None,
    ) -> None:
        self.meter = Meter(info)
        self.streams = SeenStreams(slo, pace.stall_s)
        self.latencies = Latencies(self.slo_s)
        self.latest: Trial | None = None
        self.objective: Objective = ENERGY
        self.inferences = self.items = self.violations = 0
        self._settle_s = info.settle_s
        self._pace = pace
        self._setting = setting
        self._heat = heat or Heat()
        self._shortest_s = max(pace.window_min_s, pace.readings_min * info.sensor_refresh_s)
        self._window: Window | None = None
        self._batch_size: float | None = None

    @property
    def slo_s(self) -> float:
        """The governor's bound in seconds; infinite while a relative one is not yet resolved."""
        return self.streams.slo_s

    # The window --------------------------------------------------------------------------

    def begin(self, now_s: float, skip: int) -> None:
        """A window at what has just come into force, without its first ``skip`` inferences."""
        point = self._setting.target
        batch_size = None if point is None else point.get("batch_size")
        if batch_size != self._batch_size:
            skip = 1  # the application may have read the old one for its next inference
        self._batch_size = batch_size
        latest = self.meter.latest
        self._window = Window(
            point,
            now_s + self._settle_s,
            self.streams.percentiles,
            skip,
            latest.throttle_events if latest is not None else None,
        )
        self.streams.restart_guards()

    def again(self, now_s: float) -> None:
        """A fresh window at the same point."""
        if self._window is not None:
            self._window = self._window.again(now_s)

    def end(self) -> None:
        """No inference counts until the next window begins."""
        self._window = None

    # What comes in -----------------------------------------------------------------------

    def read(self, sample: Sample) -> None:
        """Take note of a reading of the sensors."""
        self.meter.add(sample)
        self._heat.read(sample, self.meter.total_j)
        if self._window is not None:
            self._window.watch_throttling(sample.throttle_events)

    def count(self, spans: Sequence[Span]) -> int:
        """Take note of inferences; returns how many windows a stalled input has cut short."""
        interrupted = 0
        missed: list[tuple[str, bool]] = []
        for span in spans:
            if self.streams.arrive(span):
                interrupted += self.interrupt(span.start_s)
            miss = self.streams.missed(span)
            self.streams[span.stream].violations += miss
            self.latencies.add(self.streams.scaled_s(span))
            self.violations += miss
            self.items += span.items
            if self._window is not None and self._window.add(span):
                missed.append((span.stream, miss))
        self.inferences += len(spans)
        self.streams.note(missed)
        return interrupted

    @property
    def measuring(self) -> bool:
        """Whether there is anything in the window."""
        return self._window is not None and len(self._window) > 0

    def interrupt(self, now_s: float) -> bool:
        """A pause is no data: begin again after it. Returns whether a window was cut short."""
        cut_short = self.measuring
        self.again(now_s)
        return cut_short

    def note_unfinished(self, now_s: float, unfinished_s: Mapping[str, float]) -> None:
        """By stream, its oldest unfinished inference has lasted so long; absent: it has none.

        One of this window may be violation enough before it has ended.
        """
        window = self._window
        for stream in self.streams:
            in_flight_s = unfinished_s.get(stream.name, 0.0)
            here = window is not None and now_s - in_flight_s >= window.start_s
            stream.note_unfinished(now_s, in_flight_s, here)

    @property
    def temperature_c(self) -> Mapping[str, float]:
        """By zone, in the latest reading."""
        return {} if self.meter.latest is None else self.meter.latest.temperature_c

    @property
    def throttled(self) -> bool:
        """Whether the board throttled in this window, or caps a knob of ours."""
        return self._setting.capped or (self._window is not None and self._window.throttled)

    # What it says ------------------------------------------------------------------------

    def so_far(self) -> Trial | None:
        """What there is of the window; None where that says nothing about its point."""
        window = self._window
        if window is None or not len(window) or self.throttled:
            return None
        return replace(self.streams.judged(window.trial(self.meter)), too_short=True)

    def violation(self, or_hung: bool = False) -> Trial | None:
        """The window so far, where it is plain that a bound is not kept."""
        window = self._window
        if window is None or self.throttled:
            return None
        hung = [stream.hung for stream in self.streams if stream.hung is not None]
        if or_hung and hung:
            for span in hung:
                window.add_unfinished(span)
        elif not any(
            window.plainly_violates(stream.slo_s, stream.guard.effect, stream.name)
            for stream in self.streams
        ):
            return self.over_cap()
        trial = self.so_far()
        return None if trial is None else self._finish(trial)

    def over_cap(self) -> Trial | None:
        """The window so far, where it plainly takes more power than is allowed."""
        window = self._window
        if window is None or not self.objective.capped:
            return None
        if window.duration_s < DEARER_SHARE * self._shortest_s:
            return None
        trial = self.so_far()
        if trial is None or math.isnan(resolved_energy_j(trial)):
            return None
        plain = self.objective.p_keeps_cap(trial) < 1.0 - CLEAR
        return self._finish(trial) if plain else None

    def unusable(self) -> str:
        """Why the window is to be thrown away, empty: it is not."""
        window = self._window
        if window is None or window.duration_s < self._shortest_s:
            return ""
        if self.throttled and self._setting.target is not None:
            return "throttled"
        if window.duration_s < 2.0 * self._pace.window_max_s:
            return ""
        return "" if self.meter.has_read_since(window.start_s) else "no power reading"

    def baseline(self) -> Trial | None:
        """The finished window, as precise as a baseline has to be."""
        return self._finished(self._pace.baseline_precision, self._pace.baseline_max_s)

    def steady(self) -> Trial | None:
        """The finished window at a point that is kept."""
        return self._finished(self._pace.precision, self._pace.window_max_s)

    def verdict(self, best: Trial | None) -> Trial | None:
        """The finished window in a search.

        It must be clear, too, whether the point keeps the bounds, unless it is plainly dearer
        than the best one.
        """
        return self._finished(self._pace.precision, self._pace.window_max_s, True, best)

    def longer_look(self) -> Trial | None:
        """The finished window, more precise than a search can afford at each point."""
        return self._finished(self._pace.look_precision, self._pace.window_max_s, True)

    def _finished(
        self,
        precision: float,
        longest_s: float,
        in_search: bool = False,
        best: Trial | None = None,
    ) -> Trial | None:
        window = self._window
        least = self._pace.inferences_min
        if window is None or window.fewest(self.streams.active) < least:
            return None
        if self.throttled and self._setting.target is not None:
            return None
        shortest_s = self._shortest_s * (DEARER_SHARE if in_search else 1.0)
        if window.duration_s < max(shortest_s, window.looked_at_s * LOOK_AGAIN):
            return None
        window.looked_at_s = window.duration_s
        trial = self.streams.judged(window.trial(self.meter, least))
        error = trial.energy_se_j / trial.energy_j
        if not error < STALE:  # NaN too
            return None
        precise = window.duration_s >= self._shortest_s and error <= precision
        done = precise
        if in_search:
            done = (precise and self._clear(trial)) or self._plainly_dearer(trial, best)
        if not done and window.duration_s < longest_s:
            return None
        return self._finish(replace(trial, too_short=not precise))

    def resolve(self, trial: Trial) -> Trial:
        """``trial`` was measured at the fastest point, so that relative bounds are known now.

        Returns it, judged by them.
        """
        before_s = self.slo_s
        self.streams.resolve(trial)
        self._count_anew(before_s)
        if self.latest is not None:
            self._show(self.streams.judged(self.latest))
        return self.streams.judged(trial)

    def bind(self, bounds: Mapping[str, LatencySLO], anchor: Trial | None) -> bool:
        """By stream, another bound; returns whether what was measured can be judged by them.

        Args:
            anchor: the trial at the fastest point, which relative bounds follow from.
        """
        before_s = self.slo_s
        judgeable = [self.streams.bind(name, slo) for name, slo in bounds.items()]
        if anchor is not None:
            self.streams.resolve(anchor)
        self._count_anew(before_s)
        return all(judgeable)

    def _count_anew(self, before_s: float) -> None:
        if self.slo_s != before_s:
            self.latencies = Latencies(self.slo_s)

    def _finish(self, trial: Trial) -> Trial:
        self._show(trial)
        self._heat.learn(trial)
        return self._heat.settled(trial)

    def _show(self, trial: Trial) -> None:
        self.latest = trial
        for latency in trial.by_stream:
            self.streams[latency.stream].latest = latency

    def _clear(self, trial: Trial) -> bool:
        probability = self.objective.p_keeps(trial, self.slo_s)
        return max(probability, 1.0 - probability) >= CLEAR

    def _plainly_dearer(self, trial: Trial, best: Trial | None) -> bool:
        if best is None:
            return False
        cost, error = self.objective.cost, self.objective.cost_error
        return cost(trial) - cost(best) > PLAINLY * math.hypot(error(trial), error(best))
