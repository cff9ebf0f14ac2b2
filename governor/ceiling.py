"""The part of the space at which a hot board does not throttle, nor pass a thermal limit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from governor.space import BoolArray, FloatArray, OperatingPoint, Space

STEP = 0.8
"""A board that throttles without saying which knob it lowers is tried at so much of each."""
COOLED_C = 10.0
"""Degrees Celsius by which a board must have cooled before all is allowed again. Boards throttle
at 95 to 100 and let go some degrees below; this is clear of that band."""
PATIENCE_S = 600.0
"""After so long it is worth another try: not every cap (over-current, power) is one of heat."""
MORE = 1.1
"""Under a cap of power, all is worth another try when so many times that power is allowed."""
TOUCHING = 0.85
"""Of the most that may be drawn: what is held below that would be held under a higher cap, too."""


class Ceiling:
    """Comes down when the board throttles at its fastest point, or would be too hot to keep it;
    lifts when it has cooled.

    Attributes:
        space: what is allowed now.
        uncapped: what would be, but for a cap on power.
    """

    def __init__(self, space: Space) -> None:
        self._whole = space
        self._start_from(space)
        self._hot_c = math.nan
        self._since_s = -math.inf
        self._cap_w = self._allowed_w = math.inf

    @property
    def lowered(self) -> bool:
        """Whether something is not allowed now."""
        return self.space is not self._whole

    @property
    def capped(self) -> bool:
        """Whether that is for the power it would draw."""
        return math.isfinite(self._cap_w)

    def lower(
        self,
        now_s: float,
        point: OperatingPoint,
        read: OperatingPoint,
        temperature_c: Mapping[str, float],
    ) -> bool:
        """The board throttles at ``point``: allow only what is below.

        Args:
            read: what is really set there; where the board caps a knob, that is the ceiling.
            temperature_c: by zone, now.

        Returns:
            False where nothing is below; all is as it was then.
        """
        capped = {name: read[name] for name in read if read[name] < point.get(name, 0.0)}
        lowest = dict(zip(self.space.names, self.space.settings.min(axis=0), strict=True))
        highest = capped or {
            name: STEP * value for name, value in point.items() if name != "batch_size"
        }
        below = np.ones(len(self.space), dtype=np.bool_)
        for name, value in highest.items():
            column = self.space.settings[:, self.space.names.index(name)]
            below &= column <= max(value, lowest[name])
        if below.all() or not below.any():
            return False
        self._start_from(_part(self.space, below))
        self._hot_c = _hottest(temperature_c)
        self._since_s = now_s
        return True

    def cap(self, power_w: FloatArray, cap_w: float, allowed_w: float) -> bool:
        """Allow only what draws no more than ``cap_w``, or the least of all where nothing does.

        Args:
            power_w: of every setting of :attr:`uncapped`, shape ``(n,)``.
            allowed_w: what the heat allows: when that is plainly more, the ceiling may lift.

        Returns:
            False where nothing is to be left out, or could be.
        """
        cap_w = min(cap_w, self._cap_w)
        below = self._kept & (power_w <= max(cap_w, float(power_w[self._kept].min())))
        if (below == self._kept).all():
            return False
        self._keep(below)
        self._cap_w, self._allowed_w = cap_w, max(cap_w, allowed_w)
        return True

    def misplaced(self, power_w: FloatArray, cap_w: float) -> bool:
        """Whether the cap leaves out what draws no more than it, and plainly more than the rest.

        Args:
            power_w: of every setting of :attr:`uncapped`, as far as known now, shape ``(n,)``.
            cap_w: what it may draw now.
        """
        missed_w = power_w[~self._kept & (power_w <= min(cap_w, self._cap_w))]
        return self.capped and bool((missed_w > MORE * power_w[self._kept].max()).any())

    def refit(self, power_w: FloatArray, cap_w: float) -> None:
        """The cap stays, but what draws how much is better known; see :meth:`misplaced`."""
        self._keep(power_w <= min(cap_w, self._cap_w))

    def may_lift(
        self, now_s: float, temperature_c: Mapping[str, float], cap_w: float = math.inf
    ) -> bool:
        """Whether the board has cooled, or does not tell, or it was long ago.

        ``cap_w``: what it may draw now, where that is why the ceiling came down.
        """
        if self.capped:
            return cap_w > MORE * self._allowed_w
        hot = _hottest(temperature_c) > self._hot_c - COOLED_C  # NaN: it does not tell
        return not hot or now_s - self._since_s > PATIENCE_S

    def hampers(self, watts: float, power_w: FloatArray) -> bool:
        """Whether what draws so much might be another if more power were allowed.

        ``power_w``: of every setting of :attr:`uncapped`, as far as known now, shape ``(n,)``.
        """
        if not self.capped:
            return True
        return watts > TOUCHING * min(self._cap_w, float(power_w[self._kept].max()))

    def allows(self, power_w: float) -> bool:
        """Whether heat lets so much be drawn."""
        return power_w <= self._cap_w

    def lift(self) -> None:
        """Allow everything again."""
        self._start_from(self._whole)
        self._cap_w = self._allowed_w = math.inf

    def _start_from(self, space: Space) -> None:
        self.space = self.uncapped = space
        self._kept = np.ones(len(space), dtype=np.bool_)

    def _keep(self, rows: BoolArray) -> None:
        self.space, self._kept = _part(self.uncapped, rows), rows


def _part(space: Space, rows: BoolArray) -> Space:
    return Space.of_settings(space.names, space.settings[rows])


def _hottest(temperature_c: Mapping[str, float]) -> float:
    return max(temperature_c.values(), default=math.nan)
