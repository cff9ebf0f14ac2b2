"""Policies side by side: how near to the optimum each is after each trial, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from governor.devices.replay import ReplayDevice
from governor.devices.trace import Sweep
from governor.replay import ReplayRun, Summary, Task, run_json, summarise, truth_json
from governor.space import FloatArray


@dataclass(frozen=True, slots=True)
class WholeRun:
    """Windows of equal work in a row, the search among them: the mean over a policy's runs.

    Each trial is a window at its true energy; in all others what the search chose is held.

    Attributes:
        budget: trials that the search may take.
        windows: how many there are.
        energy_excess: energy of them all above the oracle's, which holds the optimum from the
            first window on, as a share of it.
        windows_missed: how many of them truly missed the SLO.
    """

    budget: int
    windows: int
    energy_excess: float
    windows_missed: float


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
        whole_runs: one for each budget asked for.
        summary: what the runs come to at their end.
    """

    policy: str
    excess_mean: FloatArray
    excess_p95: FloatArray
    excess_se: FloatArray
    violation_rate: FloatArray
    slo_met_rate: FloatArray
    whole_runs: tuple[WholeRun, ...]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Reference:
    """What something else than a policy comes to on the same sweeps and bounds."""

    excess_mean: float
    excess_p95: float
    slo_met_rate: float


def curve(
    policy: str,
    runs: Sequence[ReplayRun],
    trials: int,
    budgets: Sequence[int] = (),
    windows: int = 100,
) -> Curve | None:
    """The curve of one policy's runs, made with ``curve=True``; None: no SLO could be kept.

    Args:
        trials: the budget that the runs had.
        budgets, windows: of the whole runs to sum up; no budget above ``trials`` or ``windows``.
    """
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
        whole_runs=tuple(_whole_run(judged, budget, windows) for budget in budgets),
        summary=summarise(runs),
    )


def _whole_run(judged: Sequence[ReplayRun], budget: int, windows: int) -> WholeRun:
    energy, missed = 0.0, 0
    for run in judged:
        searched = [trial.truth for trial in run.trials[:budget]]
        chosen = run.choices[len(searched) - 1]
        spent = searched + [chosen] * (windows - len(searched))
        energy += sum(run.excess(truth) for truth in spent) / windows
        missed += sum(not run.keeps_slo(truth) for truth in spent)
    return WholeRun(budget, windows, energy / len(judged), missed / len(judged))


def measure_everything(tasks: Iterable[Task]) -> Reference | None:
    """Every setting tried once under the same noise, and the best of them as measured chosen.

    Once for each sweep, SLO and seed of the tasks. None: no SLO could be kept.
    """
    cases = {(str(task.sweep), task.slo, task.seed): task for task in tasks}
    return _reference((task.sweep, _slo_s(task), *_best_of_all(task)) for task in cases.values())


def leave_alone(
    tasks: Iterable[Task], defaults: Mapping[str, tuple[float, float]]
) -> Reference | None:
    """What nobody's setting anything comes to, once for each sweep and SLO of the tasks.

    Args:
        defaults: by the sweep's name, seconds and joules of an inference under the system's
            own governors.
    """
    cases = {(str(task.sweep), task.slo): task for task in tasks}
    return _reference(
        (task.sweep, _slo_s(task), *defaults[str(task.sweep)]) for task in cases.values()
    )


def _reference(cases: Iterable[tuple[Sweep, float, float, float]]) -> Reference | None:
    """Sums up cases of a sweep, its bound in seconds, and the seconds and joules it came to."""
    judged = [case for case in cases if np.any(case[0].latency_s <= case[1])]
    if not judged:
        return None
    excess = [
        joules / sweep.energy_j[sweep.optimum(slo_s)] - 1 for sweep, slo_s, _, joules in judged
    ]
    kept = [seconds <= slo_s for _, slo_s, seconds, _ in judged]
    return Reference(float(np.mean(excess)), float(np.percentile(excess, 95)), float(np.mean(kept)))


def _slo_s(task: Task) -> float:
    return task.slo.seconds(task.sweep.all_max_latency_s)


def _best_of_all(task: Task) -> tuple[float, float]:
    """True seconds and joules of the best setting as measured."""
    sweep, slo_s = task.sweep, _slo_s(task)
    device = ReplayDevice(sweep, task.noise, task.seed)
    latency_s, energy_j = device.noisy(sweep.latency_s), device.noisy(sweep.energy_j)
    seems_kept = latency_s <= slo_s
    if np.any(seems_kept):
        best = int(np.argmin(np.where(seems_kept, energy_j, np.inf)))
    else:
        best = int(np.argmin(latency_s))
    return float(sweep.latency_s[best]), float(sweep.energy_j[best])


def to_json(
    runs: Sequence[ReplayRun], curves: Sequence[Curve], references: Mapping[str, Reference]
) -> dict[str, object]:
    """The comparison as plain data: each run with its choices, and each policy's curve."""
    return {
        "runs": [
            {**run_json(run), "choices": [truth_json(choice) for choice in run.choices]}
            for run in runs
        ],
        "summary": {
            "policies": {curve.policy: _curve_json(curve) for curve in curves},
            **{name.replace(" ", "_"): asdict(one) for name, one in references.items()},
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
        "whole_runs": [asdict(whole) for whole in curve.whole_runs],
    }
