"""The scatter of emulated inference times, against measured ones."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from governor.devices.emulated.noise import LatencyNoise, ResampledNoise, widths
from governor.errors import InputError
from governor.space import FloatArray

CYCLES, SETTINGS = 300, 96
NAMES = ("variation", "p95", "p99", "memory", "clustering")


def describe(times: FloatArray) -> tuple[float, ...]:
    """Coefficient of variation, tails over the median, lag-1 autocorrelation, and how often a
    time above the 95th percentile follows another."""
    median = np.median(times)
    log = np.log(times) - np.log(times).mean()
    slow = times > np.percentile(times, 95)
    return (
        float(times.std() / times.mean()),
        float(np.percentile(times, 95) / median - 1),
        float(np.percentile(times, 99) / median - 1),
        float((log[1:] * log[:-1]).sum() / (log**2).sum()),
        float((slow[1:] & slow[:-1]).sum() / slow[:-1].sum()),
    )


def emulated(seed: int) -> list[FloatArray]:
    noise, width = LatencyNoise(seed), widths((SETTINGS,), seed)
    return [np.array([noise.factor(each) for _ in range(CYCLES)]) for each in width.tolist()]


@pytest.fixture(scope="module")
def measured(traces: Path) -> list[FloatArray]:
    path = traces.parent / "latency-cycles-orin-nano.csv"
    if not path.exists():
        pytest.skip(f"no measured inference times: {path} is missing")
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with path.open() as lines:
        for row in csv.DictReader(lines):
            key = (row["workload"], row["gpu_mhz"], row["emc_mhz"])
            times[key].append(float(row["latency_ms"]))
    return [np.array(each) for each in times.values()]


def test_scatter_tails_and_bursts_agree_with_measured_ones(measured: list[FloatArray]) -> None:
    real = np.array([describe(times) for times in measured])
    ours = np.array([describe(times) for seed in range(3) for times in emulated(seed)])
    ratio = dict(zip(NAMES, ours.mean(axis=0) / real.mean(axis=0), strict=True))
    assert all(0.75 < each < 1.33 for each in ratio.values()), ratio
    spread = np.percentile(ours[:, 0], [10, 90]) / np.percentile(real[:, 0], [10, 90])
    assert np.all((spread > 0.75) & (spread < 1.33)), spread


def test_the_mean_is_one() -> None:
    noise = LatencyNoise(1)
    factors = [noise.factor(1.0) for _ in range(100_000)]
    assert np.mean(factors) == pytest.approx(1.0, abs=5e-5)


def test_slow_inferences_follow_one_another_more_often_than_chance() -> None:
    clustering = np.mean([describe(times)[-1] for times in emulated(7)])
    assert clustering > 2 * 0.05


def test_tails_are_heavier_than_a_normal_distribution() -> None:
    noise = LatencyNoise(2)
    factors = np.array([noise.factor(1.0) for _ in range(50_000)]) - 1
    assert np.percentile(factors, 99.9) > 4 * factors.std()
    assert np.percentile(factors, 0.1) > -4 * factors.std()


def test_measured_times_are_drawn_in_blocks_that_keep_their_order():
    times = [1.0 + 0.001 * number for number in range(240)]
    noise = ResampledNoise(times, seed=3, block=60)
    drawn = np.array([noise.factor(1.0) for _ in range(60 * 50)]).reshape(50, 60)
    step = 0.001 / np.mean(times)
    # each block runs on as measured, but where it wraps around at the end
    assert (np.isclose(np.diff(drawn, axis=1), step).sum(axis=1) >= 58).all()
    assert drawn.mean() == pytest.approx(1.0, abs=0.03)
    assert len(np.unique(drawn[:, 0])) > 20


@pytest.mark.parametrize("times", [[1.0] * 119, [1.0] * 119 + [0.0], [1.0] * 119 + [math.nan]])
def test_noise_needs_enough_positive_times(times):
    with pytest.raises(InputError, match="positive times"):
        ResampledNoise(times, seed=0)
