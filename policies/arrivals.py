"""Input that comes at a rate, and waits for its batch to be filled.

What a trial calls its latency may begin when a batch's oldest item arrived: then it is the
wait for the others, which no clock shortens, and the inference. Two things follow. The bound
leaves a larger batch less time for its inference; and an inference that takes longer than its
items take to arrive falls behind without end, however loose the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from governor.roofline.fit import log_readings, relative_noise
from governor.space import FloatArray, IntArray, Space
from governor.trial import Trial

BATCH_SIZE = "batch_size"

_NO_TIME_S = 1e-9


def items(space: Space) -> FloatArray:
    """Items in one inference at each setting, shape ``(n,)``: 1 where batch size is no knob."""
    if BATCH_SIZE not in space.names:
        return np.ones(len(space))
    return space.settings[:, space.names.index(BATCH_SIZE)]


def period_s(trials: Sequence[Trial], items: FloatArray) -> float:
    """Seconds between two arrivals; 0 where input is always there.

    Args:
        trials: ``t`` of them.
        items: in one inference of each, shape ``(t,)``.
    """
    intervals_s = [
        trial.interval_s / size
        for trial, size in zip(trials, items.tolist(), strict=True)
        if trial.waited
    ]
    return min(intervals_s, default=0.0)


@dataclass(frozen=True, eq=False)
class Readings:
    """``t`` trials as the model of an inference sees them.

    Attributes:
        logs: shape ``(2, t)``: log seconds of an inference, log joules an item.
        noise: their variances, shape ``(2, t)``.
        log_density: what turns their log likelihood into that of what was measured.
    """

    logs: FloatArray
    noise: FloatArray
    log_density: float


@dataclass(frozen=True, eq=False)
class Filling:
    """How long the oldest item of a batch waits for the others, in each of ``n`` settings.

    Attributes:
        wait_s: shape ``(n,)``; 0 where latencies do not include it.
        due_s: shape ``(n,)``: until the next batch is there; infinite where it waits for us.
    """

    wait_s: FloatArray
    due_s: FloatArray

    @classmethod
    def none(cls, count: int) -> Filling:
        """Latency is that of the inference alone."""
        return cls(np.zeros(count), np.full(count, np.inf))

    @classmethod
    def of(cls, items: FloatArray, period_s: float) -> Filling:
        """Of batches of so many arrivals, shape ``(n,)``, one every ``period_s``."""
        return cls((items - 1) * period_s, items * period_s)

    def log_bound(self, log_slo: float) -> FloatArray:
        """Log of the seconds that the bound on latency leaves for an inference: ``(n,)``."""
        if not np.any(self.wait_s):
            return np.full(len(self.wait_s), log_slo)
        left = np.minimum(np.exp(log_slo) - self.wait_s, self.due_s)
        return np.log(np.maximum(left, _NO_TIME_S))

    def readings(self, trials: Sequence[Trial], rows: IntArray) -> Readings | None:
        """The inferences of these trials, each at its row of the settings.

        One that fell behind ran its inferences back to back, and waited in a queue besides.
        None: a latency is too short to include the wait for its batch.
        """
        logs = np.array([log_readings(trial) for trial in trials]).T
        noise = np.array([relative_noise(trial) for trial in trials]).T
        if not np.any(self.wait_s):
            return Readings(logs, noise**2, 0.0)
        latency_s = np.array([trial.latency_s for trial in trials])
        alone_s = latency_s - self.wait_s[rows]
        if np.any(alone_s <= 0):
            return None
        interval_s = np.array([trial.interval_s for trial in trials])
        stretch = np.where(alone_s < interval_s, latency_s / alone_s, 1.0)
        logs[0] = np.log(np.minimum(alone_s, interval_s))
        noise[0] *= stretch
        return Readings(logs, noise**2, float(np.log(stretch).sum()))
