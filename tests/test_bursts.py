"""Joules of work that is shorter than the sensor's refresh: within the stated error, or not said.

The truth is what the emulated board spent while the burst lasted. Its sensor, as an INA3221's,
shows every 0.43 s the mean power since it showed the last; it is polled every 0.1 s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from governor.devices.device import DeviceInfo, Sample
from governor.devices.emulated import EmulatedBoard
from governor.meter import STALE, Meter
from governor.slo import Estimate

BURSTS_S = (0.02, 0.05, 0.2, 1.0)
POLL_S = 0.1
BOARDS = ("nano", "orin-nano", "agx-orin")
SEEDS = range(8)


@dataclass(frozen=True)
class Burst:
    """What the meter says of a burst, and what it took."""

    said: Estimate
    truth_j: float

    @property
    def resolved(self) -> bool:
        return self.said.relative_se < STALE

    @property
    def within(self) -> bool:
        return abs(self.said.value - self.truth_j) <= 2 * self.said.se


class Bench:
    """A board that rests and works in turn, and the meter that looks on."""

    def __init__(self, board: str, seed: int, pinned: bool) -> None:
        self.board = EmulatedBoard(board, "squeezenet", seed=seed)
        if pinned:
            self.board.apply(self.board.space.point(self.board.space.fastest))
        self.meter = Meter(self.board.info)
        self._poll_at_s = self.now

    @property
    def now(self) -> float:
        return self.board.clock.now()

    def look(self) -> None:
        if self.now >= self._poll_at_s:
            self.meter.add(self.board.sample())
            self._poll_at_s += POLL_S

    def rest(self, seconds: float) -> None:
        end_s = self.now + seconds
        while self.now < end_s - 1e-9:
            self.board.idle(min(0.01, end_s - self.now))
            self.look()

    def work(self, seconds: float) -> tuple[float, float, float]:
        """Start, end and joules of as many inferences as come nearest to so many seconds."""
        start_s, start_j, last_s = self.now, self.board.spent_j, 0.0
        while self.now + last_s / 2 < start_s + seconds:
            last_s = self.board.infer().latency_s
            self.look()
        return start_s, self.now, self.board.spent_j - start_j


@cache
def bursts(board: str, seconds: float, pinned: bool) -> tuple[Burst, ...]:
    return tuple(one_burst(board, seconds, pinned, seed) for seed in SEEDS)


def one_burst(board: str, seconds: float, pinned: bool, seed: int) -> Burst:
    bench = Bench(board, seed, pinned)
    bench.rest(2.5 + 0.061 * seed)  # another phase of the sensor with every seed
    start_s, end_s, joules = bench.work(seconds)
    bench.rest(2.0)
    return Burst(bench.meter.burst(start_s, end_s), joules)


def everywhere(seconds: float) -> Iterator[Burst]:
    for board in BOARDS:
        for pinned in (True, False):
            yield from bursts(board, seconds, pinned)


@pytest.mark.parametrize("seconds", BURSTS_S)
def test_what_is_said_of_a_burst_is_within_two_standard_errors(seconds):
    said = [burst for burst in everywhere(seconds) if burst.resolved]
    assert sum(burst.within for burst in said) >= 0.95 * len(said)


@pytest.mark.parametrize(("seconds", "error"), [(0.05, 0.25), (0.2, 0.1), (1.0, 0.03)])
def test_the_longer_the_burst_the_better_it_is_resolved(seconds, error):
    for burst in everywhere(seconds):
        assert burst.resolved
        assert burst.said.value == pytest.approx(burst.truth_j, rel=error)


def test_a_burst_that_drowns_in_the_noise_is_not_resolvable():
    info = DeviceInfo("toy", "toy", True, "total", 0.4, 0.0)
    meter = Meter(info)
    for step in range(60):
        noise = 0.8 * (-1) ** step
        meter.add(Sample(0.4 * step, {"total": 20.0 + noise}))
    assert not meter.burst(8.0, 8.005).relative_se < STALE


def test_work_that_goes_on_is_no_burst():
    bench = Bench("orin-nano", 0, pinned=True)
    bench.rest(2.0)
    start_s, end_s, _ = bench.work(0.05)
    assert math.isnan(bench.meter.burst(start_s, end_s).value)


def test_a_burst_beside_another_is_not_taken_for_both():
    """The second one shows in the readings after the first, which then tell no rest."""
    bench = Bench("agx-orin", 0, pinned=True)
    bench.rest(2.5)
    start_s, end_s, joules = bench.work(0.2)
    bench.rest(0.5)
    bench.work(0.2)
    bench.rest(2.0)
    said = bench.meter.burst(start_s, end_s)
    assert abs(said.value - joules) <= 2 * said.se


def test_an_energy_counter_gives_a_bursts_joules_too():
    meter = Meter(DeviceInfo("toy", "toy", True, "total", 0.02, 0.0))
    joules = 0.0
    for step in range(41):
        now_s = 0.1 * step
        meter.add(Sample(now_s, {}, energy_j=joules))
        joules += 10.0 * 0.1 + (2.0 if step == 20 else 0.0)  # 40 W more for 50 ms
    said = meter.burst(2.02, 2.07)
    assert said.value == pytest.approx(2.5, abs=2 * said.se)
    assert said.relative_se < 0.25
