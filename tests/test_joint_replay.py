"""Batch size as a knob of measured sweeps, beside the clocks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from analytic_sweep import analytic_sweep

from governor.cli.main import main
from governor.devices.replay import ReplayDevice
from governor.devices.trace import Sweep, join, read_traces, write_trace
from governor.errors import InputError
from governor.replay import Task, marginal_optima, run
from governor.units import Bound

SIZES = (1, 2, 4, 8)


def sweeps() -> list[Sweep]:
    """Launching a batch costs what launching one item does: larger batches are cheaper an item."""
    made: list[Sweep] = []
    for size in SIZES:
        one = analytic_sweep(batch_size=1)
        latency_s = one.latency_s * (0.5 + 0.5 * size)
        made.append(
            Sweep(
                "made-up", "net", size, one.space, latency_s, one.power_w * latency_s, one.power_w
            )
        )
    return made


def test_sweeps_of_one_workload_become_one_with_the_batch_size_as_a_knob() -> None:
    parts = sweeps()
    (joint,) = join(parts)
    assert joint.space.names == ("cpu_hz", "gpu_hz", "emc_hz", "batch_size")
    assert len(joint.space) == len(SIZES) * len(parts[0].space)
    row = len(parts[0].space) * 2 + 5
    assert joint.items(row) == 4
    assert joint.energy_j[row] == pytest.approx(parts[2].energy_j[5] / 4)
    assert str(joint) == "made-up net batch any"


def test_its_all_max_corner_has_the_smallest_batch() -> None:
    (joint,) = join(sweeps())
    assert joint.items(joint.space.fastest) == 1


def test_a_trial_of_it_is_told_an_item() -> None:
    (joint,) = join(sweeps())
    row = len(joint.space) - 1
    trial = ReplayDevice(joint, noise=0.0, seed=0).measure(row)
    assert trial.items == 8
    assert trial.energy_j == pytest.approx(joint.energy_j[row])
    assert trial.power_w == pytest.approx(joint.power_w[row])


def test_a_single_batch_size_cannot_be_joined() -> None:
    with pytest.raises(InputError, match="is the only batch size of made-up net"):
        join(sweeps()[:1])


def test_neither_part_alone_beats_the_joint_optimum() -> None:
    (joint,) = join(sweeps())
    for factor in (1.05, 1.5, 3.0, 10.0):
        optima = marginal_optima(joint, factor * joint.all_max_latency_s)
        assert optima.clocks_only is not None
        assert optima.batch_only is not None
        assert min(optima.clocks_only, optima.batch_only) >= 0.0
    assert optima.clocks_only > 0.2


def test_a_part_that_cannot_keep_the_bound_is_not_judged() -> None:
    (joint,) = join(sweeps())
    optima = marginal_optima(joint, 0.5 * joint.all_max_latency_s)
    assert optima.clocks_only is None
    assert np.isfinite(joint.latency_s[optima.joint])


def test_the_command_searches_both_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "trace.csv", tmp_path / "out.json"
    write_trace(path, sweeps())
    words = ["replay", str(path), "--joint", "--latency-slo", "4x", "--seeds", "2"]
    assert main([*words, "--trials", "15", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["summary"]["energy_excess_mean"] < 0.03
    assert all("batch_size" in run["chosen"]["point"] for run in document["runs"])
    assert "clocks only" in capsys.readouterr().out


def test_on_measured_sweeps_the_joint_optimum_is_nearly_found(traces: Path, tmp_path: Path) -> None:
    path, out = traces / "loudva.csv", tmp_path / "out.json"
    if not path.exists():
        pytest.skip(f"{path} is missing; it is part of the measured sweeps")
    words = ["replay", str(path), "--joint", "--latency-slo", "4x", "--seeds", "1"]
    assert main([*words, "--trials", "15", "--json", str(out)]) == 0
    summary = json.loads(out.read_text())["summary"]
    assert summary["energy_excess_mean"] < 0.03
    assert math.isclose(summary["slo_met_rate"], 1.0)
    assert len(read_traces([path])) > len(join(read_traces([path])))


def free_batches() -> Sweep:
    """Launches dominate: a batch takes as long as one item, whatever its size."""
    one = analytic_sweep(batch_size=1)
    (joint,) = join(
        [
            Sweep("made-up", "net", n, one.space, one.latency_s, one.energy_j, one.power_w)
            for n in SIZES
        ]
    )
    return joint


@pytest.mark.parametrize("slo", [1.1, 1.5, 4.0])
def test_a_batch_that_takes_no_longer_is_found_within_however_narrow_a_bound(slo: float) -> None:
    result = run(Task(free_batches(), Bound(slo, relative=True), "bayesian", 0, 15, 0.02))
    assert result.chosen.point["batch_size"] == SIZES[-1]
    assert result.slo_met


@pytest.mark.parametrize("slo", [1.1, 1.3])
def test_to_see_that_a_larger_batch_is_too_slow_costs_one_trial(slo: float) -> None:
    (joint,) = join(sweeps())
    result = run(Task(joint, Bound(slo, relative=True), "bayesian", 0, 15, 0.0))
    missed = [t for t in result.trials if t.truth.latency_s > result.slo_s]
    assert sum(t.truth.point["batch_size"] > 1 for t in missed) <= 1
    assert result.slo_met
