"""What the profiles of other workloads and boards are worth to a search, told from sweeps.

Every sweep is searched once from a cold start, and what that search measured is its profile. Each
sweep is then searched again, with another seed, with some of the other sweeps' profiles at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from governor.devices.trace import Sweep
from governor.replay import ReplayRun, Task
from governor.space import OperatingPoint
from governor.trial import Trial
from policies.background import Background, Donor

KINDS = ("none", "same board", "other boards", "misleading")
PROFILE_SEED = 1000
"""Added to a search's seed for the search that makes the profiles: their noise is not its own."""
MOST_DONORS = 12
"""As many as a governor asks its store for."""
_INFERENCES = 100
"""That a profile's trial is taken to have lasted for; nothing depends on it."""


def profile_task(task: Task) -> Task:
    """The search whose trials are the profile of a task's sweep."""
    return replace(task, seed=task.seed + PROFILE_SEED, curve=False)


def donor(sweep: Sweep, run: ReplayRun, noise: float) -> Donor:
    """What a search of ``sweep`` measured; ``noise``: relative standard error of each figure."""
    return Donor(
        sweep.device,
        _name(sweep),
        tuple(
            _trial(
                each.truth.point,
                each.measured_latency_s,
                each.measured_energy_j / sweep.items(sweep.space.index(each.truth.point)),
                noise,
            )
            for each in run.trials
        ),
    )


def backgrounds(
    sweep: Sweep, sweeps: Sequence[Sweep], donors: Mapping[str, Donor]
) -> dict[str, Background]:
    """What a search of ``sweep`` may be told, by kind; one that has no donors is absent.

    Args:
        sweeps: all that have been searched.
        donors: by the sweeps' names for people.
    """
    others = [each for each in sweeps if str(each) != str(sweep)]
    here = [each for each in others if each.device == sweep.device]
    elsewhere = [each for each in others if each.device != sweep.device]
    elsewhere.sort(key=lambda each: each.workload != sweep.workload)  # the nearest first
    found: dict[str, Background] = {}
    for kind, group in (("same board", here), ("other boards", elsewhere)):
        if group:
            known = tuple(donors[str(each)] for each in group[:MOST_DONORS])
            found[kind] = Background(sweep.device, _name(sweep), known)
    if others:
        unlike = donors[str(max(others, key=lambda other: _unlikeness(sweep, other)))]
        lie = replace(unlike, board=sweep.device, workload=_name(sweep))
        found["misleading"] = Background(sweep.device, _name(sweep), (lie,))
    return found


def _name(sweep: Sweep) -> str:
    """Another batch size is another workload."""
    return f"{sweep.workload} batch {sweep.batch_size}"


def _unlikeness(one: Sweep, other: Sweep) -> tuple[bool, float]:
    """Whether they have settings in common, and how differently energy depends on them."""
    if one.space.names != other.space.names:
        return False, 0.0
    points = [other.space.point(row) for row in range(len(other.space))]
    pairs = [(one.space.index(p), row) for row, p in enumerate(points) if p in one.space]
    if not pairs:
        return False, 0.0
    mine, theirs = np.array(pairs).T
    ratio = np.log(one.energy_j[mine] / other.energy_j[theirs])
    return True, float(ratio.std())


def _trial(point: Mapping[str, float], latency_s: float, energy_j: float, noise: float) -> Trial:
    return Trial(
        point=OperatingPoint(point),
        latency_s=latency_s,
        latency_se_s=noise * latency_s,
        mean_latency_s=latency_s,
        mean_latency_se_s=noise * latency_s,
        energy_j=energy_j,
        energy_se_j=noise * energy_j,
        power_w=energy_j / latency_s,
        inferences=_INFERENCES,
        items=_INFERENCES,
        duration_s=_INFERENCES * latency_s,
    )
