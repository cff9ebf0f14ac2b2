"""A measured sweep in the place of a board: asked for a setting, it answers with a trial."""

from __future__ import annotations

import math
import zlib

import numpy as np

from governor.devices.trace import Sweep
from governor.space import FloatArray, Space
from governor.trial import Trial


class ReplayDevice:
    """Answers each trial with the sweep's own figures under seeded noise.

    Attributes:
        sweep: the truth.
        noise: relative standard deviation of a trial's latency and, apart, of its energy.
    """

    def __init__(self, sweep: Sweep, noise: float, seed: int) -> None:
        """The same sweep and seed give the ``i``-th trial the same noise at any setting."""
        self.sweep = sweep
        self.noise = noise
        self._random = np.random.default_rng((seed, zlib.crc32(str(sweep).encode())))
        # Log-normal with mean 1 and a standard deviation of exactly `noise`: never negative.
        self._sigma = math.sqrt(math.log1p(noise**2))

    @property
    def space(self) -> Space:
        """All settings that were measured."""
        return self.sweep.space

    def noisy(self, truth: FloatArray) -> FloatArray:
        """``truth``, any shape, each element times its own draw of the noise."""
        normal = self._random.standard_normal(truth.shape)
        return truth * np.exp(self._sigma * normal - self._sigma**2 / 2)

    def measure(self, row: int) -> Trial:
        """One trial at that row of the space; its standard errors state the noise."""
        sweep = self.sweep
        truth = np.array([sweep.latency_s[row], sweep.energy_j[row] / sweep.batch_size])
        latency_s, energy_j = self.noisy(truth).tolist()
        return Trial(
            point=self.space.point(row),
            latency_s=latency_s,
            latency_se_s=self.noise * latency_s,
            mean_latency_s=latency_s,
            mean_latency_se_s=self.noise * latency_s,
            energy_j=energy_j,
            energy_se_j=self.noise * energy_j,
            power_w=energy_j * sweep.items(row) / latency_s,
            inferences=1,
            items=sweep.items(row),
            duration_s=latency_s,
        )
