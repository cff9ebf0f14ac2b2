"""Joules saved against the baseline, as a counter."""

from __future__ import annotations


class Savings:
    """Adds up what the same items would have taken as in the baseline, less what they took.

    What the search costs is part of it. A counter must never fall, so where the balance does
    (a dear trial, a fallback), the total stands still until that is earned back.

    Attributes:
        total_j: the highest balance so far.
    """

    def __init__(self) -> None:
        self.total_j = 0.0
        self._balance_j = 0.0

    def add(self, items: int, spent_j: float, baseline_j: float) -> None:
        """So many items were done, and so much spent; ``baseline_j`` is what one took then."""
        self._balance_j += items * baseline_j - spent_j
        if spent_j:  # the sensors refresh less often than inferences end
            self.total_j = max(self.total_j, self._balance_j)
