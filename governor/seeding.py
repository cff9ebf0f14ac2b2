"""What a prior is worth: how many trials a search needs with it, and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from governor.replay import ReplayRun

NEAR = (0.01, 0.02)
"""Energy above the optimum that counts as having found it."""
AFTER = (3, 6, 12)
"""Trials after which the energy above the optimum is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What the runs of one prior come to; NaN where no SLO could be kept.

    Attributes:
        prior: what was known: a name.
        trials_to: for each of ``NEAR``, the mean number of trials after which the choice first
            keeps the SLO and is that near to the optimum; a run that never is counts as one
            trial more than its budget.
        excess: for each of ``AFTER``, the mean energy above the optimum after so many trials,
            as a share.
        violations: trials a run that truly missed the SLO.
        slo_met_rate: share of runs whose last choice truly keeps the SLO.
        runs: how many.
    """

    prior: str
    trials_to: tuple[float, ...]
    excess: tuple[float, ...]
    violations: float
    slo_met_rate: float
    runs: int


def worth(prior: str, runs: Sequence[ReplayRun], trials: int) -> Worth:
    """Sum up runs of at most ``trials`` trials, made with ``curve=True``."""
    judged = [run for run in runs if run.feasible]
    return Worth(
        prior=prior,
        trials_to=tuple(_mean([_trials_to(run, near, trials) for run in judged]) for near in NEAR),
        excess=tuple(
            _mean([run.excess(run.choices[min(k, len(run.choices)) - 1]) for run in judged])
            for k in AFTER
            if k <= trials
        ),
        violations=_mean([run.violations for run in judged]),
        slo_met_rate=_mean([run.slo_met for run in judged]),
        runs=len(judged),
    )


def _trials_to(run: ReplayRun, near: float, trials: int) -> int:
    for k, choice in enumerate(run.choices, start=1):
        if run.keeps_slo(choice) and run.excess(choice) <= near:
            return k
    return trials + 1


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def to_json(worths: Sequence[Worth]) -> dict[str, object]:
    """By prior, with the names of ``NEAR`` and ``AFTER`` spelt out; no NaN."""
    return {
        one.prior: {
            "runs": one.runs,
            "trials_to": {
                f"{near:g}": each for near, each in zip(NEAR, one.trials_to, strict=True)
            },
            "energy_excess_after": {
                str(k): each for k, each in zip(AFTER, one.excess, strict=False)
            },
            "violations_a_run": one.violations,
            "slo_met_rate": one.slo_met_rate,
        }
        for one in worths
        if one.runs
    }
