"""The searches of one run: the present one, and what those before it have taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from governor.campaign import TRIALS_FOR_ANOTHER_BOUND, Campaign
from governor.envelope import Envelope
from governor.known import contradicts
from governor.objective import Objective
from governor.observer import Observer
from governor.phases import PastPhase, Phases
from governor.slo import p_keeps
from governor.trial import Trial
from policies.policy import PolicyFactory, Proposal

HOPELESS = 0.05
"""Under this probability of keeping the SLO at the fastest point, nothing keeps it; where which
that is is a guess, the policy looks for another first."""


class Searches:
    """Begins searches with what is known already, and remembers what they found.

    Attributes:
        campaign: the present search.
        phases: what was found out of the workload's earlier phases.
        trials: all that was told to a policy, in order.
        outcomes: windows of a search: ``kept``, ``violated``, or why they were dropped.
        carried: trials of this workload that the next search begins with.
        hopeful: whether the first trial left a chance that any point keeps the bounds.
        settled: the window that what is held was chosen by; None: nothing was, of this search.
    """

    def __init__(
        self, envelope: Envelope, seen: Observer, policy_for: PolicyFactory, budget: int, seed: int
    ) -> None:
        """
        Args:
            seen: knows the bounds and the objective.
            budget: trials of a search.
        """
        self.phases = Phases()
        self.trials: list[Trial] = []
        self.outcomes: Counter[str] = Counter()
        self.carried: tuple[Trial, ...] = ()
        self.settled: Trial | None = None
        self.hopeful = True
        self._recalled: PastPhase | None = None
        self._envelope = envelope
        self._seen = seen
        self._policy_for = policy_for
        self._budget = budget
        self._seed = seed
        self.campaign = self._new_campaign()

    @property
    def objective(self) -> Objective:
        """What points are judged by."""
        return self._seen.objective

    @property
    def refuge_known(self) -> bool:
        """Whether there is a point to go back to: one that keeps the bounds, or the fastest."""
        return self.campaign.known.refuge_sure or self.campaign.known.best() is not None

    # Beginning ---------------------------------------------------------------------------

    def renew(self) -> None:
        """Another search, which knows nothing yet, not even the fastest point."""
        self.remember()
        self.campaign = self._new_campaign()

    def anew(self, anchor: Trial) -> tuple[Trial, PastPhase | None]:
        """The fastest point was measured: it resolves a relative SLO, and may be recognised.

        Returns:
            the anchor judged by the bounds, and the phase that its figures are of.
        """
        anchor = self._seen.resolve(anchor)
        carried = [self._seen.streams.judged(trial) for trial in self.carried]
        past = None if carried else self.recognise(anchor)
        self.begin(anchor, past.trials[1:] if past else carried)
        self.carried = ()
        return anchor, past

    def move(self, phases: Phases) -> None:
        """Other settings from now on, and what was found in them before: nothing else is known."""
        self.remember()
        self.phases = phases
        self.carried = ()
        self.campaign = self._new_campaign()

    def begin(self, anchor: Trial, known: Sequence[Trial] = ()) -> None:
        """Begin a search that knows the fastest point.

        Args:
            known: further trials of this workload; where there are none, those of the phase
                before teach of the board.
        """
        self.campaign = self._new_campaign()
        latest = self.phases.latest
        self.campaign.begin(self._seen.slo_s, latest.trials if latest and not known else ())
        self.campaign.record(anchor)
        if known:
            self.campaign.recall(known, TRIALS_FOR_ANOTHER_BOUND)
        sure = self._envelope.space.has_top
        self.hopeful = not sure or p_keeps(anchor, self._seen.slo_s) >= HOPELESS

    def _new_campaign(self) -> Campaign:
        return Campaign(
            self._envelope.space,
            self._policy_for,
            self._budget,
            self._seed,
            self.objective,
            self._envelope.quickest,
        )

    # Learning ----------------------------------------------------------------------------

    def note(self, trial: Trial) -> None:
        """Count a trial."""
        self.outcomes["kept" if self.campaign.known.keeps(trial) else "violated"] += 1
        self.trials.append(trial)

    def record(self, trial: Trial) -> None:
        """Count a trial, and learn from it."""
        self.note(trial)
        self.campaign.record(trial)

    def begin_after_mistake(self, trial: Trial) -> None:
        """It was another phase, alike at the fastest point alone: what was recalled is no use."""
        self.begin(self.campaign.known.trials[0])
        self.note(trial)
        if self.campaign.known.keeps(trial):  # far past the bounds one trial misleads a search
            self.campaign.record(trial)

    # Earlier phases ----------------------------------------------------------------------

    @property
    def found(self) -> PastPhase | None:
        """What the search that led to what is held has found; None: there was none."""
        settled, trials = self.settled, self.campaign.known.trials
        if settled is None or settled.point is None or not trials:
            return None
        return PastPhase(self._seen.slo_s, trials, settled, self.objective)

    def remember(self) -> None:
        """The search that led to what was held is over: should its phase come back, it is known."""
        if (found := self.found) is not None:
            self.phases.remember(found)
        self.settled = self._recalled = None

    def recognise(self, anchor: Trial) -> PastPhase | None:
        """The phase that gave these figures, where what was held in it is allowed now."""
        past = self.phases.recognise(anchor, self._seen.slo_s, self.objective)
        return past if past and past.chosen.point in self._envelope.space else None

    def recall(self, past: PastPhase) -> Proposal | None:
        """What was held in a phase that has come back; None: under bounds unlike the present, or
        for want of better where more may be allowed now."""
        if not past.bound_by(self._seen.slo_s, self.objective):
            return None
        if not (self._envelope.space.has_top or self.campaign.known.keeps(past.chosen)):
            return None
        self._recalled = past
        reason = "held in an earlier phase with these figures"
        point = past.chosen.point or self.campaign.fastest
        return Proposal(point=point, expected_energy_j=past.chosen.energy_j, reason=reason)

    def contradicted(self, trial: Trial) -> bool:
        """Whether the window at what was recalled shows another phase, which is then disowned."""
        past, self._recalled = self._recalled, None
        if past is None or not contradicts(trial, past.chosen):
            return False
        self.phases.disown(past)
        return True
