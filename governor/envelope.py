"""The thermal envelope: which settings heat leaves to be tried or held now."""

from __future__ import annotations

import math
from collections.abc import Mapping

from governor.ceiling import Ceiling
from governor.heat import LOWER, Heat
from governor.space import FloatArray, OperatingPoint, Space
from governor.tried import Tried


class Envelope:
    """Brings the ceiling down to what the temperatures allow, and lets it up again.

    Attributes:
        heat: the temperatures, and what they allow.
        default_w: mean power under the system's own governors; NaN: not measured yet.
    """

    def __init__(self, space: Space, heat: Heat) -> None:
        self.heat = heat
        self.default_w = math.nan
        self._ceiling = Ceiling(space)
        self._expected: tuple[tuple[Space, int, float], FloatArray] | None = None

    def move(self, space: Space) -> None:
        """Other settings from now on; what was drawn before tells nothing of them."""
        self.default_w = math.nan
        self.heat.tried = Tried()
        self._expected = None
        self._ceiling = Ceiling(space)

    @property
    def space(self) -> Space:
        """What is allowed now."""
        return self._ceiling.space

    @property
    def lowered(self) -> bool:
        """Whether something is not allowed now."""
        return self._ceiling.lowered

    @property
    def capped(self) -> bool:
        """Whether that is for the power it would draw."""
        return self._ceiling.capped

    @property
    def quickest(self) -> OperatingPoint | None:
        """The fastest point under a cap of power; None: there is none, so the highest setting."""
        return self.heat.tried.quickest(self.space) if self.capped else None

    def allows(self, power_w: float) -> bool:
        """Whether so much may be drawn for long."""
        return self._ceiling.allows(power_w) and not self.heat.too_hot(power_w)

    def too_hot_to_try(self, point: OperatingPoint) -> float:
        """What the point is expected to draw, in W, where even a trial would pass a limit; else 0.

        The board may be so warm that what could be kept from cold cannot be tried now.
        """
        cap_w = self.heat.trial_cap_w
        if not math.isfinite(cap_w):
            return 0.0
        power_w = float(self._expected_w[self._ceiling.uncapped.index(point)])
        return 0.0 if power_w <= cap_w else power_w

    # Down and up -------------------------------------------------------------------------

    def renew(self, now_s: float, temperature_c: Mapping[str, float]) -> None:
        """Before a search: allow what may be tried now, all of it and no more."""
        if self._allows_more(now_s, temperature_c):
            self._ceiling.lift()
        self._allow_up_to(self.heat.trial_cap_w)
        if self.misplaced:
            self._ceiling.refit(self._expected_w, self.heat.trial_cap_w)

    def allow_below(self, power_w: float) -> bool:
        """Allow only what draws plainly less; False: nothing does, and all is as it was."""
        return self._allow_up_to(min(self.heat.trial_cap_w, LOWER * power_w))

    def lower(
        self,
        now_s: float,
        point: OperatingPoint,
        read: OperatingPoint,
        temperature_c: Mapping[str, float],
    ) -> bool:
        """The board throttles at ``point``; see :meth:`Ceiling.lower`."""
        return self._ceiling.lower(now_s, point, read, temperature_c)

    def may_lift(self, now_s: float, temperature_c: Mapping[str, float]) -> bool:
        """Whether more might be allowed."""
        if self._allows_more(now_s, temperature_c):
            return True
        return self.capped and self._ceiling.misplaced(self._expected_w, self.heat.spare_w)

    @property
    def misplaced(self) -> bool:
        """Whether more may be tried now than is allowed, as it draws less than was thought.

        What a setting draws is little more than a guess before any was tried.
        """
        return self.capped and self._ceiling.misplaced(self._expected_w, self.heat.trial_cap_w)

    def hampers(self, power_w: float) -> bool:
        """Whether what draws so much might be another if more power were allowed."""
        return self._ceiling.hampers(power_w, self._expected_w)

    def _allows_more(self, now_s: float, temperature_c: Mapping[str, float]) -> bool:
        return self._ceiling.may_lift(now_s, temperature_c, self.heat.spare_w)

    def _allow_up_to(self, cap_w: float) -> bool:
        """Bring the ceiling down to a power; whether that left something out."""
        if not math.isfinite(cap_w):
            return False
        return self._ceiling.cap(self._expected_w, cap_w, self.heat.trial_cap_w)

    @property
    def _expected_w(self) -> FloatArray:
        """Of every setting, but for a cap on power, shape ``(n,)``; often asked, seldom another."""
        top_w = self.heat.power_w if math.isnan(self.default_w) else self.default_w
        key = self._ceiling.uncapped, self.heat.tried.count, top_w
        if self._expected is None or self._expected[0] != key:
            self._expected = key, self.heat.tried.power_w(key[0], top_w)
        return self._expected[1]
