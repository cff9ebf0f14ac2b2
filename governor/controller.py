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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from governor.backoff import MOST_DROPS, Backoff
from governor.bounds import Bounds, name_bounds
from governor.campaign import Campaign
from governor.decision import Decision, Kind, Phase, figures
from governor.devices.device import DeviceInfo, Sample
from governor.drift import DriftWatch
from governor.envelope import Envelope
from governor.errors import InputError, PolicyError
from governor.heat import Heat
from governor.known import WANTED, contradicts
from governor.objective import ENERGY, Objective
from governor.observer import Observer
from governor.pace import Pace
from governor.phases import PastPhase, Phases
from governor.savings import Savings
from governor.searches import HOPELESS, Searches
from governor.setting import Setting
from governor.slo import LatencySLO, p_keeps
from governor.space import Knob, OperatingPoint, Space, named
from governor.trial import MAIN, Span, Trial
from governor.units import format_duration, format_knob_name, format_percent
from policies.policy import NotReady, PolicyFactory, Proposal

OnDrift = Literal["search", "baseline", "ignore"]
OnDisturbance = Literal["reassert", "yield"]

SURE = 0.95
"""A trial that keeps the SLO with this probability is no risk."""
_NOTHING = Space([Knob("nothing", (1.0,))])
"""Stands for what can be set where there is nothing to set; it never is."""


class Controller:
    """Finds and holds the operating point of least cost that keeps the bounds.

    Attributes:
        phase: where it stands.
        seen: the inferences and readings so far.
        heat: the temperatures, and what they allow.
        slo_feasible: whether anything keeps the bounds; None until known.
        baseline: the window at the system's own governors: that before anything was touched, or
            where it did not tell whether they are better, the latest.
        held: the latest window at the point that is held.
        frozen: no inferences arrive.
        governing: whether it may set anything.
        stopped: hands off for good.
        disturbances: by cause, ``knob`` or ``stalled``.
        fallbacks, drifts: how often the guard and the drift detector spoke.
        savings: joules, against the baseline.
        predicted_j: joules an item that the policy expects at what is set; NaN: no idea.
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
        thermal_limits_c: Mapping[str, float] | None = None,
        objective: Objective = ENERGY,
    ) -> None:
        """``space`` None: there is nothing to set; it measures, and changes nothing."""
        if trials < 1:
            raise InputError(f"trials must be at least 1, got {trials}")
        if on_drift not in ("search", "baseline", "ignore"):
            raise InputError(f"on_drift must be search, baseline or ignore, got {on_drift!r}")
        if on_disturbance not in ("reassert", "yield"):
            raise InputError(f"on_disturbance must be reassert or yield, got {on_disturbance!r}")
        self.phase: Phase = "baseline"
        self.slo_feasible: bool | None = None
        self.baseline: Trial | None = None
        self.held: Trial | None = None
        self.frozen = False
        self.governing = space is not None
        self.stopped = False
        self.disturbances: Counter[str] = Counter()
        self.fallbacks = self.drifts = 0
        self.savings = Savings()
        self.predicted_j = math.nan

        self._on_drift = on_drift
        self._on_disturbance = on_disturbance
        self._pace = pace or Pace()
        self.heat = Heat(thermal_limits_c, info.trip_c)
        self._envelope = Envelope(space or _NOTHING, self.heat)
        self._setting = Setting(self._envelope.space)
        self.seen = Observer(slo, info, self._pace, self._setting, self.heat)
        self.seen.objective = objective
        self._bounds = Bounds(self.seen)
        self._searches = Searches(self._envelope, self.seen, policy_for, trials, seed)
        self._phases = {_mode(info): self.phases}
        self._step: Callable[[float], Decision | None] = self._in_baseline
        self._because = ""
        self._backoff = Backoff(self._pace.rest_s)
        self._baseline_holds = True
        self._drift = DriftWatch()
        self._hot_until_s = -math.inf

    @property
    def target(self) -> OperatingPoint | None:
        """What should be set now; None: nothing of ours."""
        return self._setting.target

    @property
    def slo(self) -> LatencySLO:
        """The governor's own bound."""
        return self.seen.streams[MAIN].slo

    @property
    def objective(self) -> Objective:
        """What it costs, and how much power it may take."""
        return self.seen.objective

    @property
    def _bounds_named(self) -> str:
        """The bounds, for people."""
        return name_bounds(self.slo, self.objective)

    @property
    def slo_s(self) -> float:
        """The bound in seconds; infinite while a relative one is not yet resolved."""
        return self.seen.slo_s

    @property
    def saving(self) -> float | None:
        """Energy an item saved against the baseline, as a share; None until it is held.

        None also after a drift: the baseline was taken of another workload.
        """
        if self.phase != "hold" or self.baseline is None or self.held is None:
            return None
        if self.defaults_held:
            return 0.0
        return 1.0 - self.held.energy_j / self.baseline.energy_j if self._baseline_holds else None

    @property
    def defaults_held(self) -> bool:
        """Whether nothing was found that is better than the system's own governors."""
        return self.phase == "hold" and self.target is None

    @property
    def read_back(self) -> OperatingPoint | None:
        """What of ours is really in force; None: nothing, or not known yet."""
        return self._setting.read

    @property
    def phases(self) -> Phases:
        """What was found out of the workload's earlier phases."""
        return self._searches.phases

    @property
    def found(self) -> PastPhase | None:
        """What the search that led to what is held has found; None: there was none."""
        return self._searches.found

    @property
    def trials(self) -> Sequence[Trial]:
        """All that was told to a policy, in order."""
        return self._searches.trials

    @property
    def outcomes(self) -> Counter[str]:
        """Windows of a search: ``kept``, ``violated``, or why they were dropped."""
        return self._searches.outcomes

    @property
    def _campaign(self) -> Campaign:
        """The present search."""
        return self._searches.campaign

    @property
    def best(self) -> Trial | None:
        """Of the present search, the trial of least cost that keeps the bounds."""
        return self._campaign.known.best()

    # What is seen ------------------------------------------------------------------------

    def applied(self, now_s: float, actual: OperatingPoint | None = None) -> None:
        """What was decided last is in force; also called once at the very beginning.

        ``actual``: what was read back of the device's knobs.
        """
        self._setting.read_back(actual)
        self.heat.changed()
        self.seen.begin(now_s, self._pace.warm_up if self.baseline is None else 0)

    def observe(
        self,
        now_s: float,
        spans: Sequence[Span] = (),
        sample: Sample | None = None,
        set_point: OperatingPoint | None = None,
        unfinished_s: Mapping[str, float] | None = None,
    ) -> Decision | None:
        """Look at what happened since the last call.

        Args:
            now_s: the present, on the device's clock.
            spans: inferences that ended since the last look, in order.
            sample: a reading of the sensors, None if they could not be read.
            set_point: what is really set, None if it was not read.
            unfinished_s: by stream, for how long its oldest unfinished inference has lasted.

        Returns:
            what to do, None to go on measuring.
        """
        spent_j, items = self.seen.meter.total_j, self.seen.items
        if sample is not None:
            self.seen.read(sample)
        unfinished_s = unfinished_s or {}
        self.seen.note_unfinished(now_s, unfinished_s)
        decision = (
            self._see_inferences(now_s, spans)
            or self._see_bounds(now_s)
            or self._see_newcomer(now_s)
            or self._see_silence(now_s, unfinished_s)
            or self._see_knobs(now_s, set_point)
            or self._see_heat(now_s)
            or (None if self.frozen else self._step(now_s))
        )
        self._balance(self.seen.items - items, self.seen.meter.total_j - spent_j)
        return decision

    def _balance(self, items: int, spent_j: float) -> None:
        """What was saved since the last look, where the baseline was of the same workload."""
        if self.baseline is not None and self._baseline_holds and not self.frozen:
            self.savings.add(items, spent_j, self.baseline.energy_j)

    def _see_inferences(self, now_s: float, spans: Sequence[Span]) -> Decision | None:
        if not spans:
            return None
        interrupted = self.seen.count(spans)
        if not self.frozen:
            self.disturbances["stalled"] += interrupted
        if not self.frozen:
            return None
        self.frozen = False
        return self._decide(now_s, "thaw", "inferences arrive again")

    def _see_newcomer(self, now_s: float) -> Decision | None:
        """A bound that no search has heard of may need another point, and another baseline."""
        if self.phase == "baseline" or not (newcomers := self.seen.streams.newcomers):
            return None
        self._baseline_holds = False
        return self._measure_baseline(now_s, f"the stream {', '.join(newcomers)} has joined")

    def _see_silence(self, now_s: float, unfinished_s: Mapping[str, float]) -> Decision | None:
        """Who falls silent holds nobody back; when all are, there is nothing to measure."""
        if self.frozen or not self.seen.streams.fall_silent(now_s, unfinished_s):
            return None
        if self.seen.streams.active:
            return None
        # the window is cut only by the next inference, if that did not last all the while
        self.disturbances["stalled"] += self.seen.measuring
        self.frozen = True
        patience = format_duration(self.seen.streams.patience_s)
        return self._decide(now_s, "freeze", f"no inference for {patience}: waiting for input")

    def _see_knobs(self, now_s: float, set_point: OperatingPoint | None) -> Decision | None:
        """Somebody else's hand; a board that caps its own clocks is none."""
        if set_point is None:
            return None
        finding = self._setting.find(set_point, self.seen.throttled)
        if finding == "uncapped":
            self.seen.again(now_s)
        if finding != "foreign":
            return None
        self.disturbances["knob"] += 1
        changed = self._setting.changed(set_point)
        what = f"someone else set {', '.join(format_knob_name(name) for name in changed)}"
        if self._on_disturbance == "yield":
            return self.stop_governing(now_s, f"{what}: yielding")
        return self._set(now_s, "reassert", f"{what}: setting ours again", self.target)

    # Baseline ----------------------------------------------------------------------------

    def _in_baseline(self, now_s: float) -> Decision | None:
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        trial = self.seen.baseline()
        if trial is None:
            return None
        self.baseline = trial
        self._baseline_holds = True
        self._envelope.default_w = trial.power_w
        self.seen.streams.meet()
        if not self.governing:
            self._step = self._measuring
            self.seen.again(now_s)
            return None
        return self._begin_search(now_s, f"baseline: {figures(trial)}", trial)

    def _measuring(self, now_s: float) -> Decision | None:
        """Nothing of ours is set: windows follow each other, for the record."""
        if self.seen.steady() is not None or self.seen.unusable():
            self.seen.again(now_s)
        if self.governing and self._due(now_s):
            return self._begin_search(now_s, "trying again")
        return None

    def stop_governing(self, now_s: float, reason: str) -> Decision:
        """Hands off for good; measuring goes on."""
        self.stopped = True
        self.governing = False
        return self._release(now_s, reason)

    def rest(self, now_s: float, reason: str) -> Decision:
        """What was decided could not be set: hands off, and try again later."""
        self._backoff.later(now_s)
        wait = format_duration(self._backoff.retry_s - now_s)
        return self._release(now_s, f"{reason}; trying again in {wait}")

    def _release(self, now_s: float, reason: str, trial: Trial | None = None) -> Decision:
        self._step = self._in_baseline if self.baseline is None else self._measuring
        self.phase = "baseline"
        return self._set(now_s, "release", reason, None, trial)

    # Other settings ----------------------------------------------------------------------

    def leave(self, now_s: float, why: str) -> Decision:
        """The device allows other settings than before: hands off, until :meth:`enter`."""
        self._baseline_holds = False
        return self._measure_baseline(now_s, why)

    def enter(self, space: Space, info: DeviceInfo) -> None:
        """What is allowed from now on: it begins as at the start, with the totals going on.

        What was found before in this power mode is known; of the others nothing is.
        """
        self.governing = True
        self.slo_feasible = self.held = None
        self._envelope.move(space)
        self._setting.move(space)
        self._searches.move(self._phases.setdefault(_mode(info), Phases()))

    def stay_out(self, now_s: float, reason: str) -> Decision:
        """Nothing that is allowed can be told: measure only, until :meth:`leave` comes again."""
        self.governing = False
        return self._release(now_s, reason)

    # Another bound or objective ----------------------------------------------------------

    def aim(self, objective: Objective) -> None:
        """From the next look on, points are judged by another objective."""
        self._bounds.aim(objective)

    def bind(self, slo: LatencySLO, stream: str = MAIN) -> None:
        """From the next look on, a stream has another bound.

        Raises:
            InputError: there is no such stream.
        """
        self._bounds.bind(slo, stream)

    def slo_of(self, stream: str) -> LatencySLO:
        """The bound that is wanted of a stream.

        Raises:
            InputError: there is no such stream.
        """
        return self._bounds.slo_of(stream)

    def _see_bounds(self, now_s: float) -> Decision | None:
        """What was measured stays true, but what is held may not be best any more, nor allowed."""
        if not self._bounds.waiting or self.frozen:
            return None
        self._searches.remember()
        trials = self._campaign.known.trials
        what, judgeable = self._bounds.enforce(trials[0] if trials else None)
        if not self._campaign.begun or self.phase == "baseline":
            return self._decide(now_s, "bound", what)
        if not judgeable:
            self.phases.forget()
            return replace(self._begin_search(now_s, what), kind="bound")
        if len(self.seen.streams.percentiles) > 1:
            self.phases.forget()  # kept in units of the bounds that were
        return replace(self._choose_anew(now_s, what, trials), kind="bound")

    def _choose_anew(self, now_s: float, because: str, trials: Sequence[Trial]) -> Decision:
        """The best under the new bound, from what was measured and a few trials more."""
        judged = self.seen.streams.judged
        anchor, *others = map(judged, trials)
        if self.baseline is not None:
            self.baseline = judged(self.baseline)
        self._backoff.drops = 0
        self._searches.begin(anchor, others)
        self.slo_feasible = self._searches.hopeful
        if not self.slo_feasible:
            fastest = Proposal(point=self._campaign.fastest, reason="nothing keeps it")
            return self._verify(now_s, fastest, because, None)
        past = self._searches.recognise(anchor)
        if past is not None and (choice := self._searches.recall(past)):
            return self._verify(now_s, choice, because, None)
        held = self.held if self.phase == "hold" else None
        self.phase = "search"
        return self._proceed(now_s, because, None if held is None else judged(held))

    # Profile and search ------------------------------------------------------------------

    def _begin_search(self, now_s: float, because: str, trial: Trial | None = None) -> Decision:
        """A new search starts with the fastest point there is."""
        self._envelope.renew(now_s, self.seen.temperature_c)
        self._forget(now_s)
        first = Proposal(
            point=self._campaign.fastest, purpose="profile", reason="the fastest first"
        )
        return self._try(now_s, first, because, trial)

    def _forget(self, now_s: float) -> None:
        self._searches.renew()
        self.seen.streams.restart_budgets()
        self._backoff.never()
        if self._envelope.capped:
            self._backoff.soon(now_s)  # it lifts for what is known, not by chance
        elif self._envelope.lowered:
            self._backoff.later(now_s)

    def _due(self, now_s: float) -> bool:
        """Whether to try again what could not be measured; under a ceiling, once it may lift."""
        if now_s < self._backoff.retry_s:
            return False
        envelope, held = self._envelope, self.held
        if not envelope.lowered:
            return True
        if self.slo_feasible and held is not None and not envelope.hampers(held.power_w):
            return False
        return envelope.may_lift(now_s, self.seen.temperature_c)

    def _try(self, now_s: float, proposal: Proposal, because: str, trial: Trial | None) -> Decision:
        self._step = self._in_trial
        self._backoff.drops = 0
        self.phase = proposal.purpose
        reason = f"{because}; trying {proposal.point}"
        if proposal.reason:
            reason += f": {proposal.reason}"
        return self._set_expecting(now_s, "try", reason, proposal, trial)

    def _in_trial(self, now_s: float) -> Decision | None:
        # the first point is the fastest: there is nowhere better to go
        violating = self.seen.violation(or_hung=True) if self._campaign.begun else None
        if violating is not None:
            self._campaign.known.reject(violating.point)
            slow = p_keeps(violating, self.slo_s) < 0.5
            what = "plainly violates the SLO" if slow else "plainly exceeds the power cap"
            return self._learn(now_s, violating, what)
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        trial = self.seen.verdict(self._campaign.known.best())
        return None if trial is None else self._learn(now_s, trial, "measured")

    def _learn(self, now_s: float, trial: Trial, how: str) -> Decision:
        """Tell the search of a trial, and ask it what is next."""
        because = f"{how}: {figures(trial)}"
        if cooler := self._leave_if_too_hot(now_s, because, trial):
            return cooler
        if self._campaign.begun:
            self._searches.record(trial)
            return self._proceed(now_s, because, trial)
        if self._envelope.misplaced:
            return self._search_above(now_s, because, trial)
        trial, past = self._searches.anew(trial)
        self.slo_feasible = self._searches.hopeful
        if self.baseline is not None:
            self.baseline = self.seen.streams.judged(self.baseline)
        self._searches.note(trial)
        if not self.slo_feasible:
            return self._settle_for(now_s, trial, because)
        if past is not None and (choice := self._searches.recall(past)):
            return self._verify(now_s, choice, because, trial)
        return self._proceed(now_s, because, trial)

    def _proceed(self, now_s: float, because: str, trial: Trial | None) -> Decision:
        """On to the next point, or to a safe one until the policy has answered."""
        try:
            return self._advance(now_s, because, trial)
        except NotReady:
            self._step = self._waiting
            self._because = because
            thinking = f"{because}; the policy is thinking"
            known = self._campaign.known
            if trial is not None and trial.point == self.target and known.keeps(trial):
                return self._decide(now_s, "wait", thinking, trial)
            return self._set(now_s, "wait", thinking, known.safest_point(), trial)

    def _waiting(self, now_s: float) -> Decision | None:
        if self.seen.streams.burning and self._searches.refuge_known:
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
        try:
            proposal = self._campaign.next()
        except PolicyError as error:
            because += f"; {error}"
        if proposal is not None and (cooler := self._too_hot_to_try(now_s, proposal, because)):
            return cooler
        overspent = self.seen.streams.overspent and self._searches.refuge_known
        if proposal is not None and _risky(proposal) and overspent:
            return self._recover(now_s, proposal, because, trial)
        if proposal is not None:
            return self._try(now_s, proposal, because, trial)
        return self._verify(now_s, self._campaign.choose(), because, trial)

    def _verify(
        self,
        now_s: float,
        choice: Proposal,
        because: str,
        trial: Trial | None,
        before: Trial | None = None,
    ) -> Decision:
        """``before``: the window at this choice that a longer look follows."""
        self._step = partial(self._in_verification, before)
        self.phase = "search"
        self._backoff.drops = 0
        reason = f"{because}; verifying {choice.point}: {choice.reason}"
        return self._set_expecting(now_s, "verify", reason, choice, trial)

    def _recover(
        self, now_s: float, proposal: Proposal, because: str, trial: Trial | None
    ) -> Decision:
        """Too many trials missed the SLO: earn its budget back before the next risk."""
        until_s = now_s + self._pace.recover_s
        self._step = partial(self._recovering, until_s, proposal, because)
        point = self._campaign.known.safest_point()
        reason = f"{because}; the SLO's budget is spent, recovering it at {point}"
        return self._set(now_s, "wait", reason, point, trial)

    def _recovering(
        self, until_s: float, proposal: Proposal, because: str, now_s: float
    ) -> Decision | None:
        if self.seen.streams.burning:
            return self._fall_back(now_s)
        if self.seen.streams.overspent:
            if now_s < until_s:
                return None
            self.seen.streams.restart_budgets()
        return self._try(now_s, proposal, because, None)

    def _in_verification(self, before: Trial | None, now_s: float) -> Decision | None:
        trial = self.seen.violation()
        if trial is None:
            if (dropped := self._drop_if_unusable(now_s)) is not None:
                return dropped
            best = self._campaign.known.best()
            trial = self.seen.longer_look() if before else self.seen.verdict(best)
            if trial and before and self._other_work(trial, before):
                return self._drifted(now_s, trial, "the workload has changed meanwhile")
        if trial is None:
            return None
        if cooler := self._leave_if_too_hot(now_s, f"not verified: {figures(trial)}", trial):
            return cooler
        if self._searches.contradicted(trial):
            self._searches.begin_after_mistake(trial)
            self.slo_feasible = self._searches.hopeful
            return self._proceed(now_s, f"not the earlier phase: {figures(trial)}", trial)
        known = self._campaign.known
        probability = known.p_keeps(trial)
        if probability >= WANTED or trial.point == known.last_resort():
            self.slo_feasible = probability >= HOPELESS
            return self._settle_for(now_s, trial, f"verified: {figures(trial)}")
        self._searches.note(trial)
        self._campaign.reject_choice(trial)
        because = (
            f"not verified: keeps {self._bounds_named} with {format_percent(probability)} only"
        )
        return self._proceed(now_s, because, trial)

    # Hold --------------------------------------------------------------------------------

    def _settle_for(self, now_s: float, trial: Trial, because: str) -> Decision:
        """Hold the best that was found; a governor must not make things worse than they were."""
        baseline = self._rival()
        better = baseline is None or self._campaign.known.weigh(trial, baseline)
        if better is None:
            return self._look_at_defaults(now_s, trial, because)
        self._searches.settled = trial
        if baseline is None or better:
            return self._hold(now_s, trial, because)
        return self._hold_defaults(now_s, trial, baseline)

    def _hold(self, now_s: float, trial: Trial, because: str) -> Decision:
        """Hold the point that ``trial`` was measured at, which is set now."""
        self._step = self._holding
        self.phase = "hold"
        self._backoff.drops = 0
        self.held = trial
        self._drift.compare_with(trial)
        self.seen.streams.restart_guards()
        self.seen.again(now_s)
        if self.slo_feasible:
            return self._decide(now_s, "hold", because, trial)
        fastest = trial.point == self._campaign.fastest and self._envelope.space.has_top
        what = "the fastest point" if fastest else named(trial.point)
        because += f"; nothing keeps {self._bounds_named}: holding {what}"
        return self._decide(now_s, "infeasible", because, trial)

    def _rival(self) -> Trial | None:
        """The baseline, where it is of this workload and the system's own governors allowed."""
        baseline = self.baseline
        if baseline is None or not self._baseline_holds:
            return None
        return baseline if self._envelope.allows(baseline.power_w) else None

    def _look_at_defaults(self, now_s: float, trial: Trial, because: str) -> Decision:
        """Too near the baseline to tell: measure the system's own governors anew, for longer."""
        self._step = partial(self._looking_at_defaults, trial)
        self.phase = "search"
        self._backoff.drops = 0
        reason = f"{because}; too near the system's own governors: looking at them for longer"
        return self._set(now_s, "verify", reason, None, trial)

    def _looking_at_defaults(self, rival: Trial, now_s: float) -> Decision | None:
        """... and then at ``rival``, the choice, for as long."""
        trial = self.seen.violation()
        if trial is not None:
            self._campaign.known.reject(None)
        else:
            if (dropped := self._drop_if_unusable(now_s)) is not None:
                return dropped
            trial = self.seen.longer_look()
            if trial is None:
                return None
            if self.baseline and self._other_work(trial, self.baseline):
                return self._drifted(now_s, trial, "the workload has changed meanwhile")
            self.baseline = trial
        because = f"the system's own governors: {figures(trial)}"
        choice = Proposal(
            point=rival.point or self._campaign.fastest,
            expected_energy_j=rival.energy_j,
            reason="for longer, against theirs",
        )
        return self._verify(now_s, choice, because, trial, rival)

    def _other_work(self, trial: Trial, before: Trial) -> bool:
        """Whether between two windows at one setting the workload has changed."""
        return self._on_drift != "ignore" and contradicts(trial, before)

    def _hold_defaults(self, now_s: float, trial: Trial, baseline: Trial) -> Decision:
        """Hands off, but go on watching."""
        self._step = self._holding
        self.phase = "hold"
        self.slo_feasible = True
        self._backoff.drops = 0
        self.held = baseline
        self._drift.compare_with(baseline)
        no_better = "saves nothing" if self.objective.energy else "is no faster"
        reason = (
            f"the system's own governors keep {self._bounds_named} with {figures(baseline)}, "
            f"and the best setting found {no_better}: {figures(trial)}; holding theirs"
        )
        return self._set(now_s, "hold", reason, None, trial)

    def _holding(self, now_s: float) -> Decision | None:
        if self.slo_feasible and self.seen.streams.burning:
            return self._fall_back(now_s)
        if self.slo_feasible and self.seen.over_cap() is not None:
            return self._fall_back(now_s, "the power cap is exceeded")
        if self._due(now_s):
            return self._begin_search(now_s, "trying again")
        if cause := self.seen.unusable():
            return self._note_unusable(now_s, cause)
        trial = self.seen.steady()
        if trial is None:
            return None
        self._backoff.drops = 0
        if not self._envelope.lowered:
            self._backoff.relieved()
        self.held = trial
        self.seen.again(now_s)
        if not self.slo_feasible and self._campaign.known.p_keeps(trial) >= WANTED:
            return self._drifted(now_s, trial, f"{self._bounds_named} can be kept again")
        what = self._drift.look(trial)
        return self._drifted(now_s, trial, what) if what else None

    def _note_unusable(self, now_s: float, cause: str) -> Decision | None:
        """What is held stays: say it once, and look again."""
        self._searches.outcomes[cause] += 1
        self._backoff.drop()
        self.seen.again(now_s)
        if self._backoff.drops > 1:
            return None
        return self._decide(now_s, "drop", f"{cause} while holding")

    def _drifted(self, now_s: float, trial: Trial, what: str) -> Decision:
        self.drifts += 1
        self._baseline_holds = False
        if self._on_drift == "ignore":
            self._drift.compare_with(trial)
            return self._decide(now_s, "drift", what, trial)
        if self._on_drift == "baseline" or self.target is None:
            return self._measure_baseline(now_s, what, trial)
        return replace(self._begin_search(now_s, what, trial), kind="drift")

    def _measure_baseline(self, now_s: float, because: str, trial: Trial | None = None) -> Decision:
        decision = self._release(now_s, f"{because}; measuring the baseline again", trial)
        self._step = self._in_baseline
        return replace(decision, kind="drift")

    # Fallback ----------------------------------------------------------------------------

    def _fall_back(self, now_s: float, why: str = "the SLO's budget burns") -> Decision:
        """To the point known to be safest, and look again there."""
        self.fallbacks += 1
        evidence = self.seen.so_far()
        if evidence is not None and evidence.point is not None:
            self._searches.record(evidence)
        known = self._campaign.known
        known.reject(self.target)
        self._step = self._in_fallback
        self.phase = "fallback"
        self._backoff.drops = 0
        point = known.safest_point()
        reason = f"{why} at {named(self.target)}; falling back to {point}"
        return self._set(now_s, "fallback", reason, point, evidence)

    def _in_fallback(self, now_s: float) -> Decision | None:
        violating = self.seen.violation()
        if violating is not None:
            return self._still_violating(now_s, violating)
        if (dropped := self._drop_if_unusable(now_s)) is not None:
            return dropped
        known = self._campaign.known
        trial = self.seen.verdict(known.best())
        if trial is None:
            return None
        if self._on_drift == "ignore" or not known.changed(trial):
            return self._resume(now_s, trial)
        self.drifts += 1
        self._baseline_holds = False
        if trial.point != self._campaign.fastest:
            return self._begin_search(now_s, "the workload has changed", trial)
        self._forget(now_s)
        return self._learn(now_s, trial, "the workload has changed")

    def _still_violating(self, now_s: float, trial: Trial) -> Decision:
        known = self._campaign.known
        if not known.refuge_sure:
            known.add(trial)  # another may be better, or it is the cap that is not kept here
        point = known.last_resort()
        if trial.point == point:
            self.slo_feasible = False
            which = "fastest" if known.refuge_sure else "safest"
            return self._hold(now_s, trial, f"even the {which} point: {figures(trial)}")
        known.reject(trial.point)
        reason = f"{trial.point} is not safe either; falling back to {point}"
        return self._set(now_s, "fallback", reason, point, trial)

    def _resume(self, now_s: float, trial: Trial) -> Decision:
        """The workload is as before: the search goes on with what was learnt."""
        if not self._campaign.begun:
            return self._begin_search(now_s, "safe again", trial)
        self._searches.note(trial)
        self._campaign.extend(trial)
        return self._proceed(now_s, f"safe again: {figures(trial)}", trial)

    # Heat --------------------------------------------------------------------------------

    def _see_heat(self, now_s: float) -> Decision | None:
        """What is too hot is left before the board has to throttle."""
        if problem := self.heat.problem():
            return self._decide(now_s, "heat", problem)
        if self.frozen or self.phase == "baseline" or now_s < self._hot_until_s:
            return None
        because = self.heat.overheating()
        if not because and self.phase == "hold" and self.held is not None:
            because = self.heat.too_hot(self.held.power_w)
        if not because:
            return None
        because = f"{named(self.target)} {because}"
        decision = self._search_below(now_s, because, self.heat.power_w)
        if decision is None:
            self._hot_until_s = now_s + self._pace.rest_s
            return self._decide(now_s, "heat", f"{because}; nothing draws less")
        return decision

    def _leave_if_too_hot(self, now_s: float, because: str, trial: Trial) -> Decision | None:
        """A point that could not be kept for its heat is none to choose, if any draws less."""
        too_hot = self.heat.too_hot(trial.power_w)
        if not too_hot:
            return None
        decision = self._search_below(now_s, f"{because}; {too_hot}", trial.power_w, trial)
        if decision is not None:
            self._searches.outcomes["too_hot"] += 1
            self._searches.trials.append(trial)
        return decision

    def _too_hot_to_try(self, now_s: float, proposal: Proposal, because: str) -> Decision | None:
        """So warm is the board that a trial would pass a limit: search below it for now."""
        power_w = self._envelope.too_hot_to_try(proposal.point)
        if not power_w:
            return None
        reason = f"{because}; {proposal.point} is too hot to try now"
        return self._search_below(now_s, reason, power_w)

    def _search_below(
        self, now_s: float, because: str, power_w: float, trial: Trial | None = None
    ) -> Decision | None:
        """Search among what draws plainly less than ``power_w``, with what is known already.

        None: nothing draws less.
        """
        if not self._envelope.allow_below(power_w):
            return None
        carried = self._campaign.known.trials or self._searches.carried
        decision = self._begin_search(now_s, f"{because}: searching below it", trial)
        self._searches.carried = carried
        return replace(decision, kind="heat")

    def _search_above(self, now_s: float, because: str, trial: Trial) -> Decision:
        """The first point of a search draws less than was thought: so do others left out."""
        self._searches.outcomes["less_power"] += 1
        self._searches.trials.append(trial)
        self._searches.carried = (*self._searches.carried, trial)
        return self._begin_search(now_s, f"{because}, less than thought", trial)

    # What cannot be measured -------------------------------------------------------------

    def _drop_if_unusable(self, now_s: float) -> Decision | None:
        cause = self.seen.unusable()
        if not cause:
            return None
        self._searches.outcomes[cause] += 1
        if self._backoff.drop() and self.baseline is not None:
            return self._lower_ceiling(now_s) or self._rest(now_s, cause)
        self.seen.again(now_s)
        return self._decide(now_s, "drop", f"{cause}: measuring again")

    def _lower_ceiling(self, now_s: float) -> Decision | None:
        """Where the board throttles at the fastest point of all, search below that."""
        target, read = self._setting.target, self._setting.read
        first = self.phase == "profile" and not self._campaign.begun
        burnt = self.phase == "fallback" and target == self._campaign.fastest
        if target is None or not (first or burnt):
            return None
        if not self._envelope.lower(now_s, target, read or target, self.seen.temperature_c):
            return None
        self._baseline_holds &= not burnt
        return self._begin_search(now_s, f"the board throttles at {target}: searching below it")

    def _rest(self, now_s: float, cause: str) -> Decision:
        """Nothing can be measured now: to what is known to be good, and try again later.

        From a fallback, where the SLO's budget burnt, that is the point already set.
        """
        self._backoff.later(now_s)
        self._backoff.drops = 0
        reason = f"{cause} {MOST_DROPS} times in a row; resting"
        known = self._campaign.known
        best = known.best() or self.held
        self._step = self._holding
        if self.phase == "fallback":
            self.phase = "hold"
            self.slo_feasible = False
            self._baseline_holds = False  # nor would the system's own governors fare as then
            self._drift.compare_with(None)
            self.seen.again(now_s)
            return self._decide(now_s, "infeasible", reason)
        if best is None or not known.keeps(best):
            return self._release(now_s, reason)
        self.phase = "hold"
        self.held = best
        self._drift.compare_with(best)
        return self._set(now_s, "hold", f"{reason} at {named(best.point)}", best.point)

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
        if point != self.target:
            self.predicted_j = math.nan
        self._setting.ask_for(point)
        self.seen.end()
        return replace(self._decide(now_s, kind, reason, trial), change=True)

    def _set_expecting(
        self, now_s: float, kind: Kind, reason: str, proposal: Proposal, trial: Trial | None
    ) -> Decision:
        decision = self._set(now_s, kind, reason, proposal.point, trial)
        expected_j = proposal.expected_energy_j
        self.predicted_j = math.nan if expected_j is None else expected_j
        return decision


def _mode(info: DeviceInfo) -> str:
    return info.facts.get("power mode", "")


def _risky(proposal: Proposal) -> bool:
    return proposal.p_safe is None or proposal.p_safe < SURE
