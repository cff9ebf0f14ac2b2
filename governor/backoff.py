"""When to try again what cannot be measured now: later each time."""

from __future__ import annotations

import math

MOST_DROPS = 3
"""So many windows thrown away in a row, and the search rests."""
MOST_DOUBLINGS = 6


class Backoff:
    """Counts windows thrown away, and says when it is time for another try.

    Attributes:
        drops: windows thrown away in a row.
        retry_s: when to try again; infinite: there is nothing to try again.
    """

    def __init__(self, rest_s: float) -> None:
        """``rest_s``: seconds until the first further try."""
        self.drops = 0
        self.retry_s = math.inf
        self._rest_s = rest_s
        self._rests = 0

    def drop(self) -> bool:
        """A window was thrown away; returns whether that makes too many in a row."""
        self.drops += 1
        return self.drops >= MOST_DROPS

    def later(self, now_s: float) -> None:
        """Try again after a rest, which is twice as long the next time."""
        self.retry_s = now_s + self._rest_s * 2.0 ** min(self._rests, MOST_DOUBLINGS)
        self._rests += 1

    def soon(self, now_s: float) -> None:
        """Try again after a rest as short as the first."""
        self.retry_s = now_s + self._rest_s

    def never(self) -> None:
        """There is nothing to try again."""
        self.retry_s = math.inf

    def relieved(self) -> None:
        """All is well: the next rest is as short as the first."""
        self._rests = 0
