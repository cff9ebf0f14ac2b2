"""What runs next: a state machine without I/O, threads or clocks.

It is shown what happened since the last look (inferences, a reading of the sensors, what is
really set) and answers with a :class:`Decision`, or with nothing: keep measuring.

    baseline -> profile -> search -> hold (-> profile, on drift)
                  any of them -> fallback

Whoever carries a decision out calls :meth:`Controller.applied` once it is in force.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from governor.devices.device import DeviceInfo, Sample
from governor.drift import Cusum
from governor.errors import InputError, PolicyError
from governor.known import (
    ENERGY_TOLERANCE,
    LATENCY_TOLERANCE,
    WANTED,
    Known,
    energy_change,
    latency_change,
)
from governor.meter import STALE, Meter
from governor.search import Search
from governor.slo import BurnGuard, LatencySLO, p_keeps
from governor.space import OperatingPoint, Space
from governor.trial import Span, Trial
from governor.units import (
    format_duration,
    format_energy,
    format_knob_name,
    format_percent,
    format_power,
)
from governor.window import Arrivals, Window
from policies.policy import NotReady, PolicyFactory, Problem, Proposal

Phase = Literal["baseline", "profile", "search", "hold", "fallback"]
Kind = Literal[
    "try",  # a point is tried
    "wait",  # at a safe point until the policy answers
    "verify",  # the chosen point is measured a second time
    "hold",  # the chosen point is held
    "infeasible",  # nothing keeps the SLO: the fastest point is held
    "fallback",  # the SLO's budget burns: back to a safe point
    "drift",  # what was held has changed
    "drop",  # a window was thrown away
    "reassert",  # someone else wrote a knob: ours again
    "release",  # hands off: the system's own governors
    "freeze",  # no inferences arrive
    "thaw",  # they arrive again
]
OnDrift = Literal["search", "baseline", "ignore"]
OnDisturbance = Literal["reassert", "yield"]

HOPELESS = 0.05
"""Under this probability of keeping the SLO at the fastest point, nothing keeps it."""
MOST_DROPS = 3
"""So many windows thrown away in a row, and the search rests."""
MOST_ROUNDS = 4
"""So many chosen points that fail their second window, and the fastest is held."""
EXTRA_TRIALS = 4
"""What the search may still spend after the guard threw out the point it chose."""
DEARER_SHARE = 0.6
"""Of the shortest window: enough to see that a point is plainly dearer than the best one."""
LOOK_AGAIN = 1.05
"""A window is judged anew when it has grown by so much: its statistics are not free."""
HUNG = 10.0
"""An unfinished inference that has lasted so many times the bound is violation enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things are looked at.

    Attributes:
        baseline_precision: relative standard error of the baseline's energy per item.
        precision: the same for a trial.
        baseline_max_s, window_max_s: seconds after which less has to do.
        window_min_s: seconds of the shortest window that ends without a plain violation.
        readings_min: sensor refreshes that it spans; the first of them is discarded.
        inferences_min: inferences in it.
        warm_up: inferences left out at the very beginning (lazy initialisation).
        stall_s: seconds without an inference that may still be an ordinary wait.
        rest_s: seconds until a search that could not measure is tried again; it doubles.
    """

    baseline_precision: float = 0.02
    precision: float = 0.015
    baseline_max_s: float = 20.0
    window_max_s: float = 6.0
    window_min_s: float = 1.2
    readings_min: float = 4.0
    inferences_min: int = 8
    warm_up: int = 3
    stall_s: float = 2.0
    rest_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done from now on, and why.

    Attributes:
        time_s: when, on the device's clock.
        point: what is in force from now on; None: the system's own governors.
        change: whether ``point`` must be set now.
        reason: for people.
        trial: the window that led here, where one did.
    """

    time_s: float
    kind: Kind
    phase: Phase
    point: OperatingPoint | None
    change: bool
    reason: str
    trial: Trial | None = None


class Controller:
    """Finds and holds the operating point of least energy that keeps the SLO.

    Attributes:
        phase: where it stands.
        target: what should be set now; None: nothing of ours.
        slo_s: the bound in seconds; infinite while a relative one is not yet resolved.
        slo_feasible: None until known.
        baseline: the trial taken before anything was touched.
        held: the latest window at the point that is held.
        latest: the latest finished window of any kind.
        trials: all that was told to a policy, in order.
        frozen: no inferences arrive.
        governing: whether it may set anything.
        outcomes: windows of a search: ``kept``, ``violated``, or why they were dropped.
        disturbances: by cause, ``knob`` or ``stalled``.
        fallbacks, drifts: how often the guard and the drift detector spoke.
        inferences, items, violations: seen so far; violations of ``slo_s``.
    """

    def __init__(
        self,
        space: Space | None,
        slo: LatencySLO,
        policy_for: PolicyFactory,
        info: DeviceInfo,
        *,
        trials: int = 12,
        seed: int = 0,
        on_drift: OnDrift = "search",
        on_disturbance: OnDisturbance = "reassert",
        pace: Pace | None = None,
    ) -> None:
        """``space`` None: there is nothing to set; it measures, and changes nothing."""
        if trials < 1:
            raise InputError(f"trials must be at least 1, got {trials}")
        if on_drift not in ("search", "baseline", "ignore"):
            raise InputError(f"on_drift must be search, baseline or ignore, got {on_drift!r}")
        if on_disturbance not in ("reassert", "yield"):
            raise InputError(f"on_disturbance must be reassert or yield, got {on_disturbance!r}")
        self.slo = slo
        self.meter = Meter(info)
        self.phase: Phase = "baseline"
        self.target: OperatingPoint | None = None
        self.slo_s = math.inf if slo.bound.relative else slo.bound.value
        self.slo_feasible: bool | None = None
        self.baseline: Trial | None = None
        self.held: Trial | None = None
        self.latest: Trial | None = None
        self.trials: list[Trial] = []
        self.frozen = False
        self.governing = space is not None
        self.outcomes: Counter[str] = Counter()
        self.disturbances: Counter[str] = Counter()
        self.fallbacks = self.drifts = 0
        self.inferences = self.items = self.violations = 0

        self._space = space
        self._fastest = OperatingPoint({}) if space is None else space.point(space.fastest)
        self._policy_for = policy_for
        self._settle_s = info.settle_s
        self._trial_budget = trials
        self._seed = seed
        self._on_drift = on_drift
        self._on_disturbance = on_disturbance
        self._pace = pace or Pace()
        self._window_min_s = max(
            self._pace.window_min_s, self._pace.readings_min * info.sensor_refresh_s
        )
        self._step: Callable[[float], Decision | None] = self._in_baseline
        self._window: Window | None = None
        self._expected: OperatingPoint | None = None
        self._batch_size: float | None = None
        self._arrivals = Arrivals(self._pace.stall_s)
        self._guard = BurnGuard(slo.budget)
        self._hung: Span | None = None
        self._known = Known(self._fastest)
        self._search: Search | None = None
        self._search_over = False
        self._because = ""
        self._rounds = self._drops = self._rests = 0
        self._retry_s = math.inf
        self._reference: Trial | None = None
        self._baseline_holds = True
        self._latency_drift = Cusum(LATENCY_TOLERANCE)
        self._energy_drift = Cusum(ENERGY_TOLERANCE)

    # What is seen ------------------------------------------------------------------------

    def applied(self, now_s: float, actual: OperatingPoint | None = None) -> None:
        """What was decided last is in force; also called once at the very beginning.

        ``actual``: what was read back of the device's knobs.
        """
        self.target = point = self._as_read(actual)
        self._expected = actual
        skip = self._pace.warm_up if self.baseline is None else 0
        batch_size = None if point is None else point.get("batch_size")
        if batch_size != self._batch_size:
            skip = 1  # the application may have read the old one for its next inference
        self._batch_size = batch_size
        latest = self.meter.latest
        self._window = Window(
            point,
            now_s + self._settle_s,
            self.slo.percentile,
            skip,
            latest.throttle_events if latest is not None else None,
        )
        self._guard.restart()

    def _as_read(self, actual: OperatingPoint | None) -> OperatingPoint | None:
        """The target, as the board rounded it up where that is a setting too."""
        if actual is None or self.target is None or self._space is None:
            return self.target
        rounded = OperatingPoint({**self.target, **actual})
        if rounded == self.target or self._lowered(actual) or rounded not in self._space:
            return self.target
        return rounded

    def _lowered(self, set_point: OperatingPoint) -> bool:
        """Whether some knob is below what was asked for."""
        target = self.target
        if target is None:
            return False
        return any(value < target.get(name, value) for name, value in set_point.items())

    def observe(
        self,
        now_s: float,
        spans: Sequence[Span] = (),
        sample: Sample | None = None,
        set_point: OperatingPoint | None = None,
        in_flight_s: float = 0.0,
    ) -> Decision | None:
        """Look at what happened since the last call.

        Args:
            now_s: the present, on the device's clock.
            spans: inferences that ended since the last look, in order.
            sample: a reading of the sensors, None if they could not be read.
            set_point: what is really set, None if it was not read.
            in_flight_s: for how long the oldest unfinished inference has lasted, 0: none.

        Returns:
            what to do, None to go on measuring.
        """
        if sample is not None:
            self.meter.add(sample)
            if self._window is not None:
                self._window.watch_throttling(sample.throttle_events)
        self._hung = self._unfinished(now_s, in_flight_s)
        return (
            self._see_inferences(now_s, spans)
            or self._see_silence(now_s, in_flight_s)
            or self._see_knobs(now_s, set_point)
            or (None if self.frozen else self._step(now_s))
        )

    def count(self, spans: Sequence[Span]) -> None:
        """Take note of inferences without deciding anything."""
        patience_s = self._arrivals.patience_s
        missed: list[bool] = []
        for span in spans:
            if self._arrivals.add(span, patience_s):
                self._interrupted(span.start_s)
            miss = span.end_s - span.start_s > self.slo_s
            self.violations += miss
            self.items += span.items
            if self._window is not None and self._window.add(span):
                missed.append(miss)
        self.inferences += len(spans)
        self._guard.add(missed)

    def _see_inferences(self, now_s: float, spans: Sequence[Span]) -> Decision | None:
        self.count(spans)
        if not (spans and self.frozen):
            return None
        self.frozen = False
        return self._decide(now_s, "thaw", "inferences arrive again")

    def _see_silence(self, now_s: float, in_flight_s: float) -> Decision | None:
        if self.frozen or in_flight_s or not self._arrivals.stalled(now_s):
            return None
        self._interrupted(now_s)
        self.frozen = True
        patience = format_duration(self._arrivals.patience_s)
        return self._decide(now_s, "freeze", f"no inference for {patience}: waiting for input")

    def _interrupted(self, now_s: float) -> None:
        """A pause is no data: begin the window again after it."""
        if self._window is not None:
            if len(self._window) and not self.frozen:
                self.disturbances["stalled"] += 1
            self._window = self._window.again(now_s)

    def _unfinished(self, now_s: float, in_flight_s: float) -> Span | None:
        """An inference of this window that is violation enough before it has ended."""
        began_s = now_s - in_flight_s
        window = self._window
        if window is None or began_s < window.start_s or in_flight_s <= HUNG * self.slo_s:
            return None
        return Span(began_s, now_s)

    def _see_knobs(self, now_s: float, set_point: OperatingPoint | None) -> Decision | None:
        """Somebody else's hand; a board that caps its own clocks is none."""
        target, expected = self.target, self._expected
        if target is None or set_point is None or expected is None or set_point == expected:
            return None
        if all(target[name] == value for name, value in set_point.items()):  # no cap any more
            self._expected = set_point
            self._measure_again(now_s)
            return None
        if self._throttled and self._lowered(set_point):
            self._expected = set_point
            return None
        changed = [name for name in expected if set_point.get(name) != expected[name]]
        self.disturbances["knob"] += 1
        what = f"someone else set {', '.join(format_knob_name(name) for name in changed)}"
        if self._on_disturbance == "yield":
            return self.stop_governing(now_s, f"{what}: yielding")
        return self._set(now_s, "reassert", f"{what}: setting ours again", target)

    @property
    def _throttled(self) -> bool:
        """Whether the board throttled in this window, or holds a knob below its target."""
        if self._window is not None and self._window.throttled:
            return True
        return self._expected is not None and self._lowered(self._expected)

    # Baseline ----------------------------------------------------------------------------

    def _in_baseline(self, now_s: float) -> Decision | None:
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        trial = self._finished(self._pace.baseline_precision, self._pace.baseline_max_s)
        if trial is None:
            return None
        self.baseline = trial
        self._baseline_holds = True
        if not self.governing:
            self._step = self._measuring
            self._measure_again(now_s)
            return None
        return self._begin_search(now_s, f"baseline: {_figures(trial)}", trial)

    def _measuring(self, now_s: float) -> Decision | None:
        """Nothing of ours is set: windows follow each other, for the record."""
        finished = self._finished(self._pace.precision, self._pace.window_max_s)
        if finished is not None or self._unusable():
            self._measure_again(now_s)
        if self.governing and now_s >= self._retry_s:
            return self._begin_search(now_s, "trying again")
        return None

    def stop_governing(self, now_s: float, reason: str) -> Decision:
        """Hands off for good; measuring goes on."""
        self.governing = False
        return self._release(now_s, reason)

    def _release(self, now_s: float, reason: str) -> Decision:
        self._step = self._in_baseline if self.baseline is None else self._measuring
        self.phase = "baseline"
        return self._set(now_s, "release", reason, None)

    # Profile and search ------------------------------------------------------------------

    def _begin_search(self, now_s: float, because: str, trial: Trial | None = None) -> Decision:
        """A new search starts with the fastest point there is."""
        self._forget()
        first = Proposal(point=self._fastest, purpose="profile", reason="the fastest first")
        return self._try(now_s, first, because, trial)

    def _forget(self) -> None:
        self._search = None
        self._search_over = False
        self._known = Known(self._fastest, self.slo_s)
        self._rounds = 0
        self._retry_s = math.inf

    def _try(self, now_s: float, proposal: Proposal, because: str, trial: Trial | None) -> Decision:
        self._step = self._in_trial
        self._drops = 0
        self.phase = proposal.purpose
        reason = f"{because}; trying {proposal.point}"
        if proposal.reason:
            reason += f": {proposal.reason}"
        return self._set(now_s, "try", reason, proposal.point, trial)

    def _in_trial(self, now_s: float) -> Decision | None:
        # the first point is the fastest: there is nowhere better to go
        violating = self._violation(or_hung=True) if self._search is not None else None
        if violating is not None:
            self._known.reject(violating.point)
            return self._learn(now_s, violating, "plainly violates the SLO")
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        trial = self._finished(self._pace.precision, self._pace.window_max_s, in_search=True)
        return None if trial is None else self._learn(now_s, trial, "measured")

    def _learn(self, now_s: float, trial: Trial, how: str) -> Decision:
        """Tell the search of a trial, and ask it what is next."""
        because = f"{how}: {_figures(trial)}"
        if self._search is not None or self._space is None:
            self._record(trial)
            return self._proceed(now_s, because, trial)
        # the fastest point resolves a relative SLO, and tells whether any point can keep it
        self.slo_s = self._known.slo_s = self.slo.bound.seconds(trial.latency_s)
        problem = Problem(self._space, self.slo_s, self._seed)
        self._search = Search(problem, self._policy_for(problem), self._trial_budget)
        self._search.next()
        self._record(trial)
        self.slo_feasible = p_keeps(trial, self.slo_s) >= HOPELESS
        if not self.slo_feasible:
            return self._hold(now_s, trial, because)
        return self._proceed(now_s, because, trial)

    def _record(self, trial: Trial) -> None:
        self.outcomes["kept" if self._known.keeps(trial) else "violated"] += 1
        self.trials.append(trial)
        self._known.add(trial)
        if self._search is not None:
            self._search.record(trial)

    def _proceed(self, now_s: float, because: str, trial: Trial | None) -> Decision:
        """On to the next point, or to a safe one until the policy has answered."""
        try:
            return self._advance(now_s, because, trial)
        except NotReady:
            self._step = self._waiting
            self._because = because
            thinking = f"{because}; the policy is thinking"
            if trial is not None and trial.point == self.target and self._known.keeps(trial):
                return self._decide(now_s, "wait", thinking, trial)
            return self._set(now_s, "wait", thinking, self._known.safest_point(), trial)

    def _waiting(self, now_s: float) -> Decision | None:
        if self._guard.burning:
            return self._fall_back(now_s)
        try:
            return self._advance(now_s, self._because, None)
        except NotReady:
            return None

    def _advance(self, now_s: float, because: str, trial: Trial | None) -> Decision:
        """Ask for the next point; where the search is over, choose.

        Raises:
            NotReady: the policy is still thinking.
        """
        proposal = None
        if self._search is not None and not self._search_over:
            try:
                proposal = self._search.next()
            except PolicyError as error:
                because += f"; {error}"
        if proposal is not None:
            return self._try(now_s, proposal, because, trial)
        self._search_over = True
        point, why = self._choose()
        self._step = self._in_verification
        self.phase = "search"
        self._drops = 0
        return self._set(now_s, "verify", f"{because}; verifying {point}: {why}", point, trial)

    def _choose(self) -> tuple[OperatingPoint, str]:
        """The point to hold, and why."""
        if self._rounds >= MOST_ROUNDS or self._search is None:
            return self._fastest, "no choice passed its second window"
        try:
            choice = self._search.choose()
        except PolicyError as error:
            return self._known.best_point(), str(error)
        if not choice.feasible or self._known.rejected(choice.point):
            return self._known.best_point(), "the best that was measured to keep the SLO"
        return choice.point, choice.reason or "the policy's choice"

    def _in_verification(self, now_s: float) -> Decision | None:
        trial = self._violation()
        if trial is None:
            if (dropped := self._drop_if_unusable(now_s)) is not None:
                return dropped
            trial = self._finished(self._pace.precision, self._pace.window_max_s, in_search=True)
        if trial is None:
            return None
        probability = p_keeps(trial, self.slo_s)
        if probability >= WANTED or trial.point == self._fastest:
            self.slo_feasible = probability >= HOPELESS
            return self._hold(now_s, trial, f"verified: {_figures(trial)}")
        self._record(trial)
        self._known.reject(trial.point)
        self._rounds += 1
        because = f"not verified: keeps the SLO with {format_percent(probability)} only"
        return self._proceed(now_s, because, trial)

    # Hold --------------------------------------------------------------------------------

    def _hold(self, now_s: float, trial: Trial, because: str) -> Decision:
        """Hold the point that ``trial`` was measured at, which is set now."""
        self._step = self._holding
        self.phase = "hold"
        self._drops = 0
        self.held = trial
        self._compare_with(trial)
        self._guard.restart()
        self._measure_again(now_s)
        if self.slo_feasible:
            return self._decide(now_s, "hold", because, trial)
        because += f"; nothing keeps {self.slo}: holding the fastest point"
        return self._decide(now_s, "infeasible", because, trial)

    def _compare_with(self, trial: Trial) -> None:
        self._reference = trial
        self._latency_drift.restart()
        self._energy_drift.restart()

    def _holding(self, now_s: float) -> Decision | None:
        if self.slo_feasible and self._guard.burning:
            return self._fall_back(now_s)
        if now_s >= self._retry_s:
            return self._begin_search(now_s, "trying again")
        if cause := self._unusable():
            return self._note_unusable(now_s, cause)
        trial = self._finished(self._pace.precision, self._pace.window_max_s)
        if trial is None:
            return None
        self._drops = 0
        self.held = trial
        self._measure_again(now_s)
        if not self.slo_feasible and p_keeps(trial, self.slo_s) >= WANTED:
            return self._drifted(now_s, trial, "the SLO can be kept again")
        what = self._drift_of(trial)
        return None if what is None else self._drifted(now_s, trial, what)

    def _note_unusable(self, now_s: float, cause: str) -> Decision | None:
        """What is held stays: say it once, and look again."""
        self.outcomes[cause] += 1
        self._drops += 1
        self._measure_again(now_s)
        if self._drops > 1:
            return None
        return self._decide(now_s, "drop", f"{cause} while holding")

    def _drift_of(self, trial: Trial) -> str | None:
        if self._reference is None:
            return None
        latency, latency_se = latency_change(trial, self._reference)
        energy, energy_se = energy_change(trial, self._reference)
        slower = self._latency_drift.add(latency, latency_se)
        dearer = self._energy_drift.add(energy, energy_se)
        if slower:
            return f"latency drifted by {format_percent(math.expm1(latency), signed=True)}"
        if dearer:
            return f"energy drifted by {format_percent(math.expm1(energy), signed=True)}"
        return None

    def _drifted(self, now_s: float, trial: Trial, what: str) -> Decision:
        self.drifts += 1
        self._baseline_holds = False
        if self._on_drift == "ignore":
            self._compare_with(trial)
            return self._decide(now_s, "drift", what, trial)
        if self._on_drift == "baseline":
            decision = self._release(now_s, f"{what}; measuring the baseline again")
            self._step = self._in_baseline
            return decision
        return replace(self._begin_search(now_s, what, trial), kind="drift")

    # Fallback ----------------------------------------------------------------------------

    def _fall_back(self, now_s: float) -> Decision:
        """The budget burns: to the fastest point known to be safe, and look again there."""
        self.fallbacks += 1
        evidence = None
        if self._window is not None and len(self._window) and not self._throttled:
            evidence = replace(self._window.trial(self.meter), too_short=True)
            self._record(evidence)
        self._known.reject(self.target)
        self._step = self._in_fallback
        self.phase = "fallback"
        self._drops = 0
        point = self._known.safest_point()
        reason = f"the SLO's budget burns at {self.target}; falling back to {point}"
        return self._set(now_s, "fallback", reason, point, evidence)

    def _in_fallback(self, now_s: float) -> Decision | None:
        violating = self._violation()
        if violating is not None:
            return self._still_violating(now_s, violating)
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        trial = self._finished(self._pace.precision, self._pace.window_max_s, in_search=True)
        if trial is None:
            return None
        if self._on_drift == "ignore" or not self._known.changed(trial):
            return self._resume(now_s, trial)
        self.drifts += 1
        self._baseline_holds = False
        if trial.point != self._fastest:
            return self._begin_search(now_s, "the workload has changed", trial)
        self._forget()
        return self._learn(now_s, trial, "the workload has changed")

    def _still_violating(self, now_s: float, trial: Trial) -> Decision:
        if trial.point == self._fastest:
            self.slo_feasible = False
            return self._hold(now_s, trial, f"even the fastest point: {_figures(trial)}")
        self._known.reject(trial.point)
        reason = f"{trial.point} is not safe either; falling back to {self._fastest}"
        return self._set(now_s, "fallback", reason, self._fastest, trial)

    def _resume(self, now_s: float, trial: Trial) -> Decision:
        """The workload is as before: the search goes on with what was learnt."""
        if self._search is None:
            return self._begin_search(now_s, "safe again", trial)
        self._record(trial)
        self._search.budget = max(self._search.budget, len(self._search.trials) + EXTRA_TRIALS)
        self._search_over = False
        self._rounds = 0
        return self._proceed(now_s, f"safe again: {_figures(trial)}", trial)

    # Windows -----------------------------------------------------------------------------

    def _measure_again(self, now_s: float) -> None:
        if self._window is not None:
            self._window = self._window.again(now_s)

    def _violation(self, or_hung: bool = False) -> Trial | None:
        """The window so far as a trial, where it is plain that the SLO is not kept."""
        window = self._window
        if window is None or self._throttled:
            return None
        if or_hung and self._hung is not None:
            window.add(self._hung)
        elif not window.plainly_violates(self.slo_s, self._guard.effect):
            return None
        if not len(window):
            return None
        self.latest = replace(window.trial(self.meter), too_short=True)
        return self.latest

    def _unusable(self) -> str:
        """Why the window is to be thrown away, empty: it is not."""
        window = self._window
        if window is None or window.duration_s < self._window_min_s:
            return ""
        if self._throttled and self.target is not None:
            return "throttled"
        if window.duration_s < 2.0 * self._pace.window_max_s:
            return ""
        return "" if self.meter.has_read_since(window.start_s) else "no power reading"

    def _drop_if_unusable(self, now_s: float) -> Decision | None:
        cause = self._unusable()
        if not cause:
            return None
        self.outcomes[cause] += 1
        self._drops += 1
        if self._drops >= MOST_DROPS and self.baseline is not None:
            return self._rest(now_s, cause)
        self._measure_again(now_s)
        return self._decide(now_s, "drop", f"{cause}: measuring again")

    def _rest(self, now_s: float, cause: str) -> Decision:
        """Nothing can be measured now: to what is known to be good, and try again later.

        From a fallback, where the SLO's budget burnt, that is the point already set.
        """
        self._retry_s = now_s + self._pace.rest_s * 2.0 ** min(self._rests, 6)
        self._rests += 1
        self._drops = 0
        reason = f"{cause} {MOST_DROPS} times in a row; resting"
        best = self._known.best() or self.held
        self._step = self._holding
        if self.phase == "fallback":
            self.phase = "hold"
            self.slo_feasible = False
            self._reference = None
            self._measure_again(now_s)
            return self._decide(now_s, "infeasible", reason)
        if best is None or not self._known.keeps(best):
            return self._release(now_s, reason)
        self.phase = "hold"
        self.held = best
        self._compare_with(best)
        return self._set(now_s, "hold", f"{reason} at {best.point}", best.point)

    def _finished(
        self, precision: float, longest_s: float, in_search: bool = False
    ) -> Trial | None:
        """The window's trial, once it says what it can.

        In a search it must be clear, too, whether the point keeps the SLO, unless it is
        plainly dearer than the best one.
        """
        window = self._window
        if window is None or len(window) < self._pace.inferences_min:
            return None
        if self._throttled and self.target is not None:
            return None
        shortest_s = self._window_min_s * (DEARER_SHARE if in_search else 1.0)
        if window.duration_s < max(shortest_s, window.looked_at_s * LOOK_AGAIN):
            return None
        window.looked_at_s = window.duration_s
        trial = window.trial(self.meter)
        error = _energy_error(trial)
        if not error < STALE:  # NaN too
            return None
        precise = window.duration_s >= self._window_min_s and error <= precision
        done = precise
        if in_search:
            probability = p_keeps(trial, self.slo_s)
            clear = probability >= 0.99 or probability <= 0.01
            done = (precise and clear) or self._plainly_dearer(trial)
        if not done and window.duration_s < longest_s:
            return None
        self.latest = replace(trial, too_short=not precise)
        return self.latest

    def _plainly_dearer(self, trial: Trial) -> bool:
        best = self._known.best()
        if best is None:
            return False
        return trial.energy_j - best.energy_j > 4.0 * math.hypot(
            trial.energy_se_j, best.energy_se_j
        )

    # What is known -----------------------------------------------------------------------

    @property
    def saving(self) -> float | None:
        """Energy an item saved against the baseline, as a share; None until it is held.

        None also after a drift: the baseline was taken of another workload.
        """
        if self.phase != "hold" or self.baseline is None or self.held is None:
            return None
        return 1.0 - self.held.energy_j / self.baseline.energy_j if self._baseline_holds else None

    # Decisions ---------------------------------------------------------------------------

    def _decide(
        self, now_s: float, kind: Kind, reason: str, trial: Trial | None = None
    ) -> Decision:
        """Note something; what is set stays as it is."""
        return Decision(
            time_s=now_s,
            kind=kind,
            phase=self.phase,
            point=self.target,
            change=False,
            reason=reason,
            trial=trial,
        )

    def _set(
        self,
        now_s: float,
        kind: Kind,
        reason: str,
        point: OperatingPoint | None,
        trial: Trial | None = None,
    ) -> Decision:
        """Change what is set; until :meth:`applied`, no inference counts."""
        self.target = point
        self._expected = None
        self._window = None
        return replace(self._decide(now_s, kind, reason, trial), change=True)


def _energy_error(trial: Trial) -> float:
    return trial.energy_se_j / trial.energy_j


def _figures(trial: Trial) -> str:
    latency = f"{format_duration(trial.latency_s)} at the percentile"
    if not _energy_error(trial) < STALE:
        return f"{latency}, left before its energy could be measured"
    return f"{latency}, {format_energy(trial.energy_j)} an item, {format_power(trial.power_w)}"
