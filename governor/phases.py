"""What was found out about earlier phases of the workload, so that one that comes back is known."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from governor.known import LATENCY_TOLERANCE, contradicts, distance
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
    """

    slo_s: float
    trials: tuple[Trial, ...]
    chosen: Trial

    @property
    def anchor(self) -> Trial:
        """The trial at the fastest point, which every search starts with."""
        return self.trials[0]

    def bound_by(self, slo_s: float) -> bool:
        """Whether its search was for this bound, or so close a one that it makes no odds."""
        return abs(slo_s / self.slo_s - 1.0) < LATENCY_TOLERANCE


class Phases:
    """The latest phases. They may be of this run, or have been kept from another one."""

    def __init__(self) -> None:
        self._phases: deque[PastPhase] = deque(maxlen=MOST)

    def __len__(self) -> int:
        return len(self._phases)

    def forget(self) -> None:
        """What was known is of no use any more."""
        self._phases.clear()

    def remember(self, phase: PastPhase) -> None:
        """Keep it; what was known of the same phase under the same bound is replaced."""
        same = self.recognise(phase.anchor, phase.slo_s)
        if same is not None and same.bound_by(phase.slo_s):
            self._phases.remove(same)
        self._phases.append(phase)

    @property
    def latest(self) -> PastPhase | None:
        """The one that ended last."""
        return self._phases[-1] if self._phases else None

    def recognise(self, anchor: Trial, slo_s: float) -> PastPhase | None:
        """The phase that gave these figures at the fastest point; None: no such is known.

        Of several the one that was searched for this bound, then the likest.
        """
        alike = [
            phase
            for phase in self._phases
            if phase.anchor.point == anchor.point and not contradicts(anchor, phase.anchor)
        ]
        return min(
            alike,
            key=lambda phase: (not phase.bound_by(slo_s), distance(anchor, phase.anchor)),
            default=None,
        )
