"""For policies without a model: the best setting is the best one that was measured."""

from __future__ import annotations

from collections.abc import Sequence

from governor.errors import PolicyError
from governor.space import OperatingPoint
from governor.trial import Trial
from policies.policy import Choice


def set_point(trial: Trial) -> OperatingPoint:
    """The point of a trial that a policy was told; the baseline, which has none, never is.

    Raises:
        PolicyError: it has none.
    """
    if trial.point is None:
        raise PolicyError("a policy was told a trial without an operating point")
    return trial.point


def best_measured(trials: Sequence[Trial], slo_s: float) -> Trial:
    """The trial of least energy that kept the SLO as measured; where none did, the fastest."""
    kept = [trial for trial in trials if trial.latency_s <= slo_s]
    if kept:
        return min(kept, key=lambda trial: trial.energy_j)
    return min(trials, key=lambda trial: trial.latency_s)


def choose_measured(trials: Sequence[Trial], slo_s: float) -> Choice:
    """Hold :func:`best_measured` of ``trials``, of which there is at least one."""
    best = best_measured(trials, slo_s)
    return Choice(
        point=set_point(best),
        feasible=best.latency_s <= slo_s,
        energy_j=best.energy_j,
        latency_s=best.latency_s,
        reason="best measured",
    )
