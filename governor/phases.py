"""What was found out about earlier phases of the workload, so that one that comes back is known."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from governor.known import LATENCY_TOLERANCE, contradicts, distance
from governor.objective import ENERGY, Objective
from governor.schedule import differs
from governor.trial import Trial

MOST = 16
"""Phases that are remembered: the latest."""


@dataclass(frozen=True, slots=True)
class PastPhase:
    """A search that came to an end.

    Attributes:
        slo_s: its bound in seconds.
        trials: what was measured, the fastest point's first.
        chosen: the window that the point it chose was held for.
        objective: what it was chosen by.
    """

    slo_s: float
    trials: tuple[Trial, ...]
    chosen: Trial
    objective: Objective = ENERGY

    @property
    def anchor(self) -> Trial:
        """The trial at the fastest point, which every search starts with."""
        return self.trials[0]

    def bound_by(self, slo_s: float, objective: Objective = ENERGY) -> bool:
        """Whether its search was for this, or for so close a bound or cap that it makes no odds."""
        if differs(objective, self.objective):
            return False
        return slo_s == self.slo_s or abs(slo_s / self.slo_s - 1.0) < LATENCY_TOLERANCE


class Phases:
    """The latest phases. They may be of this run, or have been kept from another one.

    Attributes:
        disowned: such as were found to be of another workload, or never true.
    """

    def __init__(self) -> None:
        self.disowned: list[PastPhase] = []
        self._phases: deque[PastPhase] = deque(maxlen=MOST)

    def __len__(self) -> int:
        return len(self._phases)

    def forget(self) -> None:
        """What was known is of no use any more."""
        self._phases.clear()

    def remember(self, phase: PastPhase) -> None:
        """Keep it; what was known of the same phase under the same bound is replaced."""
        same = self.recognise(phase.anchor, phase.slo_s, phase.objective)
        if same is not None and same.bound_by(phase.slo_s, phase.objective):
            self._phases.remove(same)
        self._phases.append(phase)

    def disown(self, phase: PastPhase) -> None:
        """It was contradicted: nothing is learnt from it any more."""
        self.disowned.append(phase)
        self._phases = deque((one for one in self._phases if one != phase), maxlen=MOST)

    @property
    def latest(self) -> PastPhase | None:
        """The one that ended last."""
        return self._phases[-1] if self._phases else None

    def recognise(
        self, anchor: Trial, slo_s: float, objective: Objective = ENERGY
    ) -> PastPhase | None:
        """The phase that gave these figures at the fastest point; None: no such is known.

        Of several the one that was searched for this bound and objective, then the likest.
        """
        alike = [
            phase
            for phase in self._phases
            if phase.anchor.point == anchor.point and not contradicts(anchor, phase.anchor)
        ]
        return min(
            alike,
            key=lambda phase: (
                not phase.bound_by(slo_s, objective),
                distance(anchor, phase.anchor),
            ),
            default=None,
        )
