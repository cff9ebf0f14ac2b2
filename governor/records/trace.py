"""The trials of a run record as a measured sweep, for whatever reads traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from governor.devices.trace import EMULATED, Sweep
from governor.errors import InputError
from governor.meter import STALE
from governor.records.lines import TrialLine
from governor.records.reader import Run, read_run
from governor.space import OperatingPoint, Space


def read_sweep(path: Path) -> Sweep:
    """What the latest run in a record measured: its trials, a sparse sweep.

    Of a setting that was tried twice, the later trial counts; one that was left before its energy
    could be measured does not.

    Raises:
        InputError: it is no run record, or too few settings were measured to search among.
    """
    run = read_run(path)
    measured = _measured(run)
    if len(measured) < 2:
        raise InputError(
            f"{path}: holds {len(measured)} measured settings of one batch size, and a search "
            "needs at least 2; give the record of a longer run, or a trace"
        )
    names = [name for name in next(iter(measured)) if name != "batch_size"]
    settings = np.array([[point[name] for name in names] for point in measured])
    size = _batch_size(next(iter(measured)))
    trials = list(measured.values())
    return Sweep(
        run.header.device + (EMULATED if run.header.emulated else ""),
        run.header.workload or run.header.program or path.stem,
        size,
        Space.of_settings(names, settings),
        latency_s=np.array([trial.latency_s for trial in trials]),
        energy_j=np.array([(trial.energy_j or 0.0) * size for trial in trials]),
        power_w=np.array([trial.power_w or 0.0 for trial in trials]),
    )


def _measured(run: Run) -> dict[OperatingPoint, TrialLine]:
    """By setting; where batch sizes differ, those of the one that was tried most."""
    measured: dict[OperatingPoint, TrialLine] = {}
    for trial in run.searched:
        energy_j, error_j = trial.energy_j, trial.energy_se_j
        if trial.point and energy_j and error_j is not None and error_j < STALE * energy_j:
            measured[OperatingPoint(trial.point)] = trial
    sizes = [_batch_size(point) for point in measured]
    usual = max(sizes, key=sizes.count, default=1)
    return {point: trial for point, trial in measured.items() if _batch_size(point) == usual}


def _batch_size(point: OperatingPoint) -> int:
    return int(point.get("batch_size", 1.0))
