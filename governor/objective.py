"""What an operating point is judged by: the cost to make small, and the power allowed for it.

Every objective here is a product of powers of energy and latency, so that it is linear in
their logs, which is what policies model. The latency bound is not part of it: that is the
SLO's, and holds under any objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from governor.errors import InputError, unknown_name
from governor.slo import p_keeps
from governor.space import FloatArray
from governor.trial import Trial
from governor.units import format_power, parse_power

_NO_ENERGY_J = 1e-12


@dataclass(frozen=True, slots=True)
class Objective:
    """The least ``energy_j ** energy * latency_s ** latency`` at no more than so much power.

    Attributes:
        energy, latency: the exponents. (1, 0) is energy, (0, 1) latency, (1, 1) their product,
            the energy-delay product (Gonzalez, Horowitz, IEEE J. Solid-State Circuits 31, 1996).
        power_cap_w: watts, mean over a window; infinite: there is no cap.
    """

    energy: float = 1.0
    latency: float = 0.0
    power_cap_w: float = math.inf

    def __post_init__(self) -> None:
        exponents = (self.energy, self.latency)
        if min(exponents) < 0 or not 0 < max(exponents) < math.inf:
            raise InputError(
                "an objective's exponents of energy and latency must be finite, not negative, "
                f"and not both 0, got {self.energy!r} and {self.latency!r}"
            )
        if not self.power_cap_w > 0:
            raise InputError(f"a power cap must be positive, got {self.power_cap_w!r} W")

    @classmethod
    def parse(cls, name: str = "energy", power_cap: str | float | None = None) -> Objective:
        """From ``"energy"``, ``"latency"`` or ``"edp"``, and ``"10W"`` or 10.0 W.

        Raises:
            InputError: no such objective, no power, or latency without a cap.

        >>> Objective.parse("latency", power_cap="10W")
        Objective(energy=0.0, latency=1.0, power_cap_w=10.0)
        """
        if name not in _NAMED:
            raise unknown_name("objective", name, _NAMED)
        if name == "latency" and power_cap is None:
            raise InputError(
                'the objective "latency" needs a power cap such as "10W"; without one the '
                "fastest clocks are best, and nothing is left to find"
            )
        cap_w = math.inf if power_cap is None else parse_power(power_cap, "power cap")
        return cls(*_NAMED[name], cap_w)

    @property
    def capped(self) -> bool:
        """Whether power is bounded."""
        return math.isfinite(self.power_cap_w)

    def cost(self, trial: Trial) -> float:
        """What is to be small, in J, s or J s by the exponents; only ratios mean anything."""
        return trial.energy_j**self.energy * trial.latency_s**self.latency

    def cost_error(self, trial: Trial) -> float:
        """One standard error of :meth:`cost`, in its unit."""
        energy_j, latency_s = max(trial.energy_j, _NO_ENERGY_J), trial.latency_s
        by_energy = self.energy * energy_j ** (self.energy - 1.0) * latency_s**self.latency
        by_latency = self.latency * latency_s ** (self.latency - 1.0) * energy_j**self.energy
        return math.hypot(by_energy * trial.energy_se_j, by_latency * trial.latency_se_s)

    def costs(self, energy_j: FloatArray, latency_s: FloatArray) -> FloatArray:
        """The cost of ``n`` settings from J an item and s, both of shape ``(n,)``."""
        return energy_j**self.energy * latency_s**self.latency

    def strain(self, trial: Trial, slo_s: float) -> float:
        """Latency over the SLO, or power over the cap, whichever is more; over 1: not kept."""
        return max(trial.latency_s / slo_s, trial.power_w / self.power_cap_w)

    def strains(self, latency_s: FloatArray, power_w: FloatArray, slo_s: float) -> FloatArray:
        """The strain of ``n`` settings from s and W, both of shape ``(n,)``."""
        return np.maximum(latency_s / slo_s, power_w / self.power_cap_w)

    def p_keeps_cap(self, trial: Trial) -> float:
        """The probability that the trial's power is within the cap, in [0, 1].

        Normal in the power, whose relative error is at most that of the energy an item. 0 where
        the power was not measured.
        """
        if not self.capped:
            return 1.0
        error_w = trial.power_w * trial.energy_se_j / max(trial.energy_j, _NO_ENERGY_J)
        if not error_w > 0:  # NaN too
            return float(trial.power_w <= self.power_cap_w)
        return 0.5 * math.erfc((trial.power_w - self.power_cap_w) / error_w / math.sqrt(2.0))

    def p_keeps(self, trial: Trial, slo_s: float) -> float:
        """The probability that the trial is at a point that keeps the SLO and the cap."""
        return p_keeps(trial, slo_s) * self.p_keeps_cap(trial)

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`: its name, whatever the cap; ``weighted`` where it has none."""
        return _NAME_OF.get((self.energy, self.latency), _WEIGHTED)

    def __str__(self) -> str:
        """For people.

        >>> str(Objective(0.0, 1.0, 10.0)), str(Objective(1.4, 1.0))
        ('latency under 10 W', 'energy^1.4 x latency')
        """
        name = self.kind
        if name == _WEIGHTED:
            terms = (("energy", self.energy), ("latency", self.latency))
            powers = (f"{term}^{exponent:.3g}" for term, exponent in terms if exponent)
            name = " x ".join(power.removesuffix("^1") for power in powers)
        return f"{name} under {format_power(self.power_cap_w)}" if self.capped else name


_NAMED = {"energy": (1.0, 0.0), "latency": (0.0, 1.0), "edp": (1.0, 1.0)}
_NAME_OF = {exponents: name for name, exponents in _NAMED.items()}
_WEIGHTED = "weighted"
OBJECTIVES = tuple(_NAMED)
"""The names that :meth:`Objective.parse` takes."""
KINDS = (*OBJECTIVES, _WEIGHTED)
"""What an objective may be; a tariff's is ``weighted`` at most hours."""

ENERGY = Objective()
"""The least energy an item."""
