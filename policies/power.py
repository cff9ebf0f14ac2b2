"""Power, where what is modelled is time and energy: energy an item, times items a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from governor.space import FloatArray, IntArray, Space
from governor.trial import Trial
from policies.arrivals import items


@dataclass(frozen=True, slots=True, eq=False)
class Power:
    """Log watts of the ``n`` settings of a space, as linear in their log time and log energy.

    Where inferences follow each other, power is energy over time. Where they wait for their
    input, it is energy times the rate at which that comes, however fast the setting.

    Attributes:
        slopes: shape ``(2, n)``: over log time and over log energy.
        offset: shape ``(n,)``.
    """

    slopes: FloatArray
    offset: FloatArray

    @classmethod
    def of(
        cls, space: Space, trials: Sequence[Trial], rows: IntArray, log_time: FloatArray
    ) -> Power:
        """As trials had it.

        Args:
            trials: ``t`` of them, at least one.
            rows: shape ``(t,)``, where in the space.
            log_time: shape ``(n,)``, log seconds expected of an inference.
        """
        log_items = np.log(items(space))
        log_rates = np.log([trial.power_w / trial.energy_j for trial in trials])
        idle = np.array([trial.waited for trial in trials])
        if idle.all():
            each = np.log([trial.items / trial.inferences for trial in trials]) - log_items[rows]
        else:  # before each inference there may be work that takes a while, too
            each = (log_rates + log_time[rows] - log_items[rows])[~idle]
        back_to_back = np.median(each) + log_items
        arriving = log_rates[idle].max() if idle.any() else np.inf
        waits = back_to_back - log_time > arriving
        slopes = np.stack((np.where(waits, 0.0, -1.0), np.ones(len(space))))
        return cls(slopes, np.where(waits, arriving, back_to_back))
