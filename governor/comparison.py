"""Policies side by side: how near to the optimum each is after each trial, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from governor.devices.replay import ReplayDevice
from governor.replay import ReplayRun, Summary, Task, run_json, summarise, truth_json
from governor.space import FloatArray


@dataclass(frozen=True, eq=False)
class Curve:
    """A policy's runs, trial by trial; every array has the shape ``(trials,)``.

    A search that ended before its budget keeps its last choice. Only runs whose SLO some
    setting keeps are in it.

    Attributes:
        excess_mean, excess_p95: energy of its choice above the optimum's, as a share.
        excess_se: standard error of the mean over the runs.
        violation_rate: of the trials so far, the share that truly missed the SLO.
        slo_met_rate: share of runs whose choice truly keeps the SLO.
        summary: what the runs come to at their end.
    """

    policy: str
    excess_mean: FloatArray
    excess_p95: FloatArray
    excess_se: FloatArray
    violation_rate: FloatArray
    slo_met_rate: FloatArray
    summary: Summary


@dataclass(frozen=True, slots=True)
class Reference:
    """Every setting tried once under the same noise, and the best of them as measured chosen."""

    excess_mean: float
    excess_p95: float
    slo_met_rate: float


def curve(policy: str, runs: Sequence[ReplayRun], trials: int) -> Curve | None:
    """The curve of one policy's runs, made with ``curve=True``; None: no SLO could be kept."""
    judged = [run for run in runs if run.feasible]
    if not judged:
        return None
    held = [[run.choices[min(k, len(run.choices) - 1)] for k in range(trials)] for run in judged]
    excess = np.array(
        [[run.excess(at) for at in row] for run, row in zip(judged, held, strict=True)]
    )
    kept = np.array(
        [[run.keeps_slo(at) for at in row] for run, row in zip(judged, held, strict=True)]
    )
    missed = np.zeros(trials)
    done = np.zeros(trials)
    for run in judged:
        for k, trial in enumerate(run.trials):
            done[k] += 1
            missed[k] += not run.keeps_slo(trial.truth)
    return Curve(
        policy=policy,
        excess_mean=excess.mean(axis=0),
        excess_p95=np.percentile(excess, 95, axis=0),
        excess_se=excess.std(axis=0) / np.sqrt(len(judged)),
        violation_rate=np.cumsum(missed) / np.cumsum(done),
        slo_met_rate=kept.mean(axis=0),
        summary=summarise(runs),
    )


def measure_everything(tasks: Iterable[Task]) -> Reference | None:
    """What trusting each reading comes to, once for each sweep, SLO and seed of the tasks.

    None: no SLO could be kept.
    """
    cases = {(str(task.sweep), task.slo, task.seed): task for task in tasks}
    judged = [case for task in cases.values() if (case := _best_of_all(task)) is not None]
    if not judged:
        return None
    excess = np.array([case[0] for case in judged])
    kept = sum(case[1] for case in judged) / len(judged)
    return Reference(float(excess.mean()), float(np.percentile(excess, 95)), kept)


def _best_of_all(task: Task) -> tuple[float, bool] | None:
    """Energy above the optimum, and whether the SLO is kept, of the best as measured."""
    sweep, slo_s = task.sweep, task.slo.seconds(task.sweep.all_max_latency_s)
    if not np.any(sweep.latency_s <= slo_s):
        return None
    device = ReplayDevice(sweep, task.noise, task.seed)
    latency_s, energy_j = device.noisy(sweep.latency_s), device.noisy(sweep.energy_j)
    seems_kept = latency_s <= slo_s
    if np.any(seems_kept):
        best = int(np.argmin(np.where(seems_kept, energy_j, np.inf)))
    else:
        best = int(np.argmin(latency_s))
    excess = sweep.energy_j[best] / sweep.energy_j[sweep.optimum(slo_s)] - 1
    return float(excess), bool(sweep.latency_s[best] <= slo_s)


def to_json(
    runs: Sequence[ReplayRun], curves: Sequence[Curve], reference: Reference | None
) -> dict[str, object]:
    """The comparison as plain data: each run with its choices, and each policy's curve."""
    return {
        "runs": [
            {**run_json(run), "choices": [truth_json(choice) for choice in run.choices]}
            for run in runs
        ],
        "summary": {
            "policies": {curve.policy: _curve_json(curve) for curve in curves},
            "every_setting_once": None if reference is None else asdict(reference),
        },
    }


def _curve_json(curve: Curve) -> dict[str, object]:
    return {
        **asdict(curve.summary),
        "after_each_trial": {
            "energy_excess_mean": curve.excess_mean.tolist(),
            "energy_excess_p95": curve.excess_p95.tolist(),
            "trial_violation_rate": curve.violation_rate.tolist(),
            "slo_met_rate": curve.slo_met_rate.tolist(),
        },
    }
