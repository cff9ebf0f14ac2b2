"""What a fleet's boards come to, by cohort and by wave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from governor.cli.fleet.governing import BoardRun


@dataclass(frozen=True, slots=True)
class Group:
    """Boards taken together.

    Attributes:
        default_w, least_w, alone_w, shared_w: watts of all of them, at the rate of work that
            they do under the default governors: searches included.
        alone_trials, shared_trials: a board, until a setting is held.
        alone_missed, shared_missed: of them, those that missed the SLO.
        default_kept, alone_kept, shared_kept: share of boards whose held setting keeps the SLO.
    """

    boards: int
    default_w: float
    least_w: float
    alone_w: float
    shared_w: float
    alone_trials: float
    shared_trials: float
    alone_missed: float
    shared_missed: float
    default_kept: float
    alone_kept: float
    shared_kept: float


def group(runs: Sequence[BoardRun]) -> Group:
    """At least one run."""
    return Group(
        boards=len(runs),
        default_w=sum(run.default.energy_j * run.rate_hz for run in runs),
        least_w=sum(run.least.energy_j * run.rate_hz for run in runs),
        alone_w=sum(run.alone.energy_j * run.rate_hz for run in runs),
        shared_w=sum(run.shared.energy_j * run.rate_hz for run in runs),
        alone_trials=mean(run.alone.trials for run in runs),
        shared_trials=mean(run.shared.trials for run in runs),
        alone_missed=mean(run.alone.missed for run in runs),
        shared_missed=mean(run.shared.missed for run in runs),
        default_kept=mean(run.default.slo_kept for run in runs),
        alone_kept=mean(run.alone.slo_kept for run in runs),
        shared_kept=mean(run.shared.slo_kept for run in runs),
    )


def by_cohort(runs: Sequence[BoardRun]) -> dict[str, Group]:
    """In the order of their names."""
    names = sorted({run.cohort for run in runs})
    return {name: group([run for run in runs if run.cohort == name]) for name in names}


def by_wave(runs: Sequence[BoardRun]) -> list[Group]:
    """In the order of the waves."""
    waves = sorted({run.wave for run in runs})
    return [group([run for run in runs if run.wave == wave]) for wave in waves]


def to_json(runs: Sequence[BoardRun], settings: Mapping[str, str]) -> dict[str, object]:
    """Everything but the profiles, which are in the store."""
    boards = [asdict(run) for run in runs]
    for board in boards:
        del board["profile"]
    return {
        "emulated": True,
        "settings": dict(settings),
        "fleet": asdict(group(runs)),
        "cohorts": {name: asdict(one) for name, one in by_cohort(runs).items()},
        "waves": [asdict(one) for one in by_wave(runs)],
        "boards": boards,
    }
