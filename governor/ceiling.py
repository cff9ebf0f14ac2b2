"""The part of the space at which a hot board does not throttle."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from governor.space import OperatingPoint, Space

STEP = 0.8
"""A board that throttles without saying which knob it lowers is tried at so much of each."""
COOLED_C = 10.0
"""Degrees Celsius by which a board must have cooled before all is allowed again. Boards throttle
at 95 to 100 and let go some degrees below; this is clear of that band."""
PATIENCE_S = 600.0
"""After so long it is worth another try: not every cap (over-current, power) is one of heat."""


class Ceiling:
    """Comes down when the board throttles at its fastest point; lifts when it has cooled.

    Attributes:
        space: what is allowed now.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._whole = space
        self._hot_c = math.nan
        self._since_s = -math.inf

    @property
    def lowered(self) -> bool:
        """Whether something is not allowed now."""
        return self.space is not self._whole

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
        self.space = Space.of_settings(self.space.names, self.space.settings[below])
        self._hot_c = _hottest(temperature_c)
        self._since_s = now_s
        return True

    def may_lift(self, now_s: float, temperature_c: Mapping[str, float]) -> bool:
        """Whether the board has cooled, or does not tell, or it was long ago."""
        hot = _hottest(temperature_c) > self._hot_c - COOLED_C  # NaN: it does not tell
        return not hot or now_s - self._since_s > PATIENCE_S

    def lift(self) -> None:
        """Allow everything again."""
        self.space = self._whole


def _hottest(temperature_c: Mapping[str, float]) -> float:
    return max(temperature_c.values(), default=math.nan)
