"""Search measured sweeps instead of live boards, and judge each search by the trace's truth."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np

from governor.devices.replay import ReplayDevice
from governor.devices.trace import BATCH_SIZE, Sweep
from governor.errors import PolicyError
from governor.objective import ENERGY, Objective
from governor.roofline.fit import WEAK, Prior
from governor.search import Search
from governor.space import BoolArray, OperatingPoint
from governor.units import Bound
from policies.background import Background
from policies.policy import Problem, load_policy


@dataclass(frozen=True, slots=True)
class Task:
    """One search to run.

    Attributes:
        slo: the bound; a relative one is relative to the sweep's all-max corner.
        policy: its name.
        trials: the budget, the all-max corner included.
        noise: relative standard deviation of each trial's latency and of its energy.
        curve: whether to ask the policy for its choice after every trial.
        prior: what is known of the roofline's coefficients before.
        objective: what is searched for.
        background: what was measured of other workloads, or on other boards.
    """

    sweep: Sweep
    slo: Bound
    policy: str
    seed: int
    trials: int
    noise: float
    curve: bool = False
    prior: Prior = WEAK
    objective: Objective = ENERGY
    background: Background | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What the trace says of a setting: seconds and joules of one inference (one batch).

    Attributes:
        cost: in the objective's unit.
        strain: of the bound that is worst kept; over 1: it is not kept.
    """

    point: OperatingPoint
    latency_s: float
    energy_j: float
    cost: float
    strain: float


class Judge:
    """Knows of every setting of a sweep what it is worth to a task.

    Attributes:
        feasible: whether any setting keeps the bounds.
        best: the row of least cost that keeps them; where none does, that which comes nearest.
    """

    def __init__(self, task: Task) -> None:
        self._sweep = sweep = task.sweep
        slo_s = task.slo.seconds(sweep.all_max_latency_s)
        self._costs = task.objective.costs(sweep.energy_j, sweep.latency_s)
        self._strains = task.objective.strains(sweep.latency_s, sweep.mean_power_w, slo_s)
        keeps = self._strains <= 1.0
        self.feasible = bool(np.any(keeps))
        worth = np.where(keeps, self._costs, np.inf) if self.feasible else self._strains
        self.best = int(np.argmin(worth))

    def truth(self, row: int) -> Truth:
        """Of the setting in that row."""
        sweep = self._sweep
        return Truth(
            sweep.space.point(row),
            float(sweep.latency_s[row]),
            float(sweep.energy_j[row]),
            float(self._costs[row]),
            float(self._strains[row]),
        )


@dataclass(frozen=True, slots=True)
class ReplayedTrial:
    """A trial: the trace's truth, and what the policy was told, per inference (one batch)."""

    truth: Truth
    measured_latency_s: float
    measured_energy_j: float


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One search of one sweep, and how it came out on the truth.

    Attributes:
        sweep: its name for people.
        objective: what was searched for.
        feasible: whether any setting of the sweep keeps the bounds.
        oracle: the setting of least cost that keeps the bounds; where none does, the nearest to it.
        chosen: the setting that the policy would hold.
        choices: what it would have held after each trial, where the task asked for it.
        search_seconds: CPU time of its asks, tells and final choice.
    """

    sweep: str
    device: str
    workload: str
    batch_size: int
    slo: Bound
    policy: str
    seed: int
    objective: Objective
    slo_s: float
    feasible: bool
    oracle: Truth
    chosen: Truth
    trials: tuple[ReplayedTrial, ...]
    choices: tuple[Truth, ...]
    search_seconds: float

    def excess(self, chosen: Truth) -> float:
        """Cost of ``chosen`` above the oracle's, as a share of the oracle's."""
        return chosen.cost / self.oracle.cost - 1.0

    def keeps_slo(self, chosen: Truth) -> bool:
        """Whether ``chosen`` truly keeps the SLO, and the power cap where there is one."""
        return chosen.strain <= 1.0

    @property
    def cost_excess(self) -> float:
        """Cost of what was chosen above the oracle's, as a share."""
        return self.excess(self.chosen)

    @property
    def energy_excess(self) -> float:
        """Energy of what was chosen above the oracle's, as a share; the cost, if that is energy."""
        return self.chosen.energy_j / self.oracle.energy_j - 1.0

    @property
    def slo_met(self) -> bool:
        """Whether what was chosen truly keeps the bounds."""
        return self.keeps_slo(self.chosen)

    @property
    def violations(self) -> int:
        """Trials that truly missed a bound."""
        return sum(not self.keeps_slo(trial.truth) for trial in self.trials)


@dataclass(frozen=True, slots=True)
class MarginalOptima:
    """The best of a joint sweep, and what is lost by tuning one part alone.

    Attributes:
        joint: the row of least energy an item that keeps the SLO.
        clocks_only, batch_only: energy an item above it, as a share, at the best clocks for the
            smallest batch, and at the best batch for all-max clocks; None: neither keeps the SLO.
    """

    joint: int
    clocks_only: float | None
    batch_only: float | None


def marginal_optima(sweep: Sweep, slo_s: float) -> MarginalOptima:
    """What tuning clocks alone, or batch size alone, leaves on the table. ``sweep`` is joint."""
    settings, names = sweep.space.settings, sweep.space.names
    sizes = settings[:, names.index(BATCH_SIZE)]
    clocks = [column for column, name in enumerate(names) if name != BATCH_SIZE]
    at_max = (settings[:, clocks] == settings[sweep.space.fastest, clocks]).all(axis=1)
    best = sweep.optimum(slo_s)

    def excess(allowed: BoolArray) -> float | None:
        keeps = allowed & (sweep.latency_s <= slo_s)
        if not np.any(keeps):
            return None
        return float(sweep.energy_j[keeps].min() / sweep.energy_j[best]) - 1.0

    return MarginalOptima(best, excess(sizes == sizes.min()), excess(at_max))


class _Stopwatch:
    """CPU seconds spent inside its ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._start


def run(task: Task) -> ReplayRun:
    """Run one search. Deterministic by the task, but for ``search_seconds``.

    Raises:
        InputError: no policy has this name.
        PolicyError: the policy failed.
    """
    sweep, slo_s = task.sweep, task.slo.seconds(task.sweep.all_max_latency_s)
    problem = Problem(sweep.space, slo_s, task.seed, task.prior, task.objective, task.background)
    factory = load_policy(task.policy)
    watch = _Stopwatch()
    with watch:
        policy = factory(problem)
    search = Search(problem, policy, task.trials)
    device, judge = ReplayDevice(sweep, task.noise, task.seed), Judge(task)
    trials: list[ReplayedTrial] = []
    choices: list[Truth] = []
    while True:
        with watch:
            proposal = search.next()
        if proposal is None:
            break
        row = sweep.space.index(proposal.point)
        trial = device.measure(row)
        with watch:
            search.record(trial)
        trials.append(
            ReplayedTrial(judge.truth(row), trial.latency_s, trial.energy_j * sweep.batch_size)
        )
        if task.curve:
            choices.append(judge.truth(_chosen(search, sweep)))
    with watch:
        chosen = _chosen(search, sweep)
    return ReplayRun(
        sweep=str(sweep),
        device=sweep.device,
        workload=sweep.workload,
        batch_size=sweep.batch_size,
        slo=task.slo,
        policy=task.policy,
        seed=task.seed,
        slo_s=slo_s,
        objective=task.objective,
        feasible=judge.feasible,
        oracle=judge.truth(judge.best),
        chosen=judge.truth(chosen),
        trials=tuple(trials),
        choices=tuple(choices),
        search_seconds=watch.seconds,
    )


def settings_of(tasks: Sequence[Task]) -> dict[str, str]:
    """All that the runs of these tasks depend on, by its name for people."""

    def told(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(map(str, values)))

    seeds = {task.seed for task in tasks}
    sweeps = {str(task.sweep): task.sweep for task in tasks}
    figures = sha256()
    for name, sweep in sweeps.items():
        figures.update(name.encode())
        for part in (sweep.space.settings, sweep.latency_s, sweep.energy_j):
            figures.update(np.ascontiguousarray(part).tobytes())
    return {
        "policy": told(task.policy for task in tasks),
        "objective": told(task.objective for task in tasks),
        "SLO": told(task.slo for task in tasks),
        "trials": told(task.trials for task in tasks),
        "seeds": f"{len(seeds)} from {min(seeds)}",
        "noise": told(task.noise for task in tasks),
        "choices after each trial": told(task.curve for task in tasks),
        "sweeps": f"{len(sweeps)} with checksum {figures.hexdigest()[:12]}",
    }


def _chosen(search: Search, sweep: Sweep) -> int:
    point = search.choose().point
    if point not in sweep.space:
        raise PolicyError(f"the policy chose {point}, which is not a setting of {sweep}")
    return sweep.space.index(point)


@dataclass(frozen=True, slots=True)
class Summary:
    """What many runs come to. Rates and energies are None where no run has them.

    Attributes:
        runs: how many, of which ``infeasible_runs`` had an SLO that no setting keeps. All
            that follows is of the others.
        energy_excess_mean, energy_excess_p95: energy above the oracle's, as a share of it.
        cost_excess_mean, cost_excess_p95: the same of what was to be small.
        trial_violation_rate: the share of all trials that truly missed a bound.
        slo_met_rate: the share of runs whose final choice truly keeps the bounds.
        search_seconds_mean: CPU seconds a run in the policy.
        trials_mean: trials a run.
    """

    runs: int
    infeasible_runs: int
    energy_excess_mean: float | None
    energy_excess_p95: float | None
    cost_excess_mean: float | None
    cost_excess_p95: float | None
    trial_violation_rate: float | None
    slo_met_rate: float | None
    search_seconds_mean: float | None
    trials_mean: float | None


def summarise(runs: Iterable[ReplayRun]) -> Summary:
    """Sum up runs of any number of sweeps, bounds and seeds."""
    every = list(runs)
    judged = [run for run in every if run.feasible]
    infeasible = len(every) - len(judged)
    if not judged:
        return Summary(len(every), infeasible, *[None] * 8)
    energy = np.array([run.energy_excess for run in judged])
    cost = np.array([run.cost_excess for run in judged])
    trials = sum(len(run.trials) for run in judged)
    return Summary(
        runs=len(every),
        infeasible_runs=infeasible,
        energy_excess_mean=float(energy.mean()),
        energy_excess_p95=float(np.percentile(energy, 95)),
        cost_excess_mean=float(cost.mean()),
        cost_excess_p95=float(np.percentile(cost, 95)),
        trial_violation_rate=sum(run.violations for run in judged) / trials,
        slo_met_rate=sum(run.slo_met for run in judged) / len(judged),
        search_seconds_mean=sum(run.search_seconds for run in judged) / len(judged),
        trials_mean=trials / len(judged),
    )


def by_sweep(runs: Iterable[ReplayRun]) -> dict[tuple[str, Bound], list[ReplayRun]]:
    """The runs of each sweep (by its name) and SLO, in order of appearance."""
    groups: dict[tuple[str, Bound], list[ReplayRun]] = {}
    for run in runs:
        groups.setdefault((run.sweep, run.slo), []).append(run)
    return groups


def by_slo(runs: Iterable[ReplayRun]) -> dict[Bound, list[ReplayRun]]:
    """The runs of each SLO, in order of appearance."""
    groups: dict[Bound, list[ReplayRun]] = {}
    for run in runs:
        groups.setdefault(run.slo, []).append(run)
    return groups


def to_json(runs: Sequence[ReplayRun]) -> dict[str, object]:
    """The runs and their summary as plain data, by the names that users' files have."""
    return {
        "runs": [run_json(run) for run in runs],
        "summary": {
            **asdict(summarise(runs)),
            "sweeps": [
                {**_name_json(group[0]), "slo": str(slo), **asdict(summarise(group))}
                for (_, slo), group in by_sweep(runs).items()
            ],
        },
    }


def _name_json(run: ReplayRun) -> dict[str, object]:
    return {"device": run.device, "workload": run.workload, "batch_size": run.batch_size}


def run_json(run: ReplayRun) -> dict[str, object]:
    """One run as plain data."""
    return {
        **_name_json(run),
        "policy": run.policy,
        "seed": run.seed,
        "objective": str(run.objective),
        "slo_s": run.slo_s if math.isfinite(run.slo_s) else None,
        "slo_feasible": run.feasible,
        "oracle": truth_json(run.oracle),
        "chosen": truth_json(run.chosen),
        "trials": [
            {
                **truth_json(trial.truth),
                "measured_latency_s": trial.measured_latency_s,
                "measured_energy_j": trial.measured_energy_j,
            }
            for trial in run.trials
        ],
        "energy_excess": run.energy_excess,
        "cost_excess": run.cost_excess,
        "slo_met": run.slo_met,
        "trial_violation_rate": run.violations / len(run.trials),
        "search_seconds": run.search_seconds,
    }


def truth_json(truth: Truth) -> dict[str, object]:
    """A setting and what the trace says of it, as plain data."""
    return {
        "point": dict(truth.point),
        "latency_s": truth.latency_s,
        "energy_j": truth.energy_j,
    }
