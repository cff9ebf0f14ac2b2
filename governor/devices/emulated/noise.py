"""How single inference times scatter around their mean.

Shape of the measured cycles of jetson-latency-lab on an Orin Nano Super (arXiv 2606.16106,
github dankang21/jetson-latency-lab): a narrow body, some slow inferences that like to follow
one another, and rarely one much slower. Its width differs from setting to setting.
"""

from __future__ import annotations

import numpy as np

BODY = 0.0016
"""Standard deviation of the body, relative, at a typical setting."""
SPREAD = 0.6
"""Standard deviation of the logarithm of the width between settings."""
ENTER, STAY = 0.08, 0.35
"""Probability that a slow spell starts at an inference, and that it goes on to the next."""
SLOW = 3.2
"""Mean excess of an inference in a slow spell, in widths of the body."""
RARE, RARE_SCALE = 0.0004, 8.0
"""Probability and scale (in widths, heavy-tailed) of a lone hiccup: page fault, interrupt storm."""

_BLOCK = 2048


class LatencyNoise:
    """Draws factors of mean 1 for successive inferences."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._left: list[float] = []
        self._slow = False
        self._mean = ENTER / (1 - STAY + ENTER) * SLOW + RARE * 2 * RARE_SCALE

    def factor(self, width: float) -> float:
        """The next inference's time over its mean; ``width`` is the setting's own, about 1."""
        if not self._left:
            self._left = self._draw().tolist()
        return 1 + BODY * width * self._left.pop()

    def _draw(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """A block of excesses in widths of the body, mean 0."""
        rng, chance = self._rng, self._rng.random(_BLOCK)
        slow = np.empty(_BLOCK, dtype=np.bool_)
        state = self._slow
        for i, u in enumerate(chance.tolist()):
            state = u < (STAY if state else ENTER)
            slow[i] = state
        self._slow = state
        excess = rng.standard_normal(_BLOCK) + slow * rng.gamma(2.0, SLOW / 2, _BLOCK)
        hiccup = rng.random(_BLOCK) < RARE
        excess += hiccup * RARE_SCALE * (1 + rng.pareto(2.0, _BLOCK).clip(max=10))
        return excess - self._mean


def widths(shape: tuple[int, ...], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """How much each setting of a lattice of this ``shape`` scatters, about 1."""
    rng = np.random.default_rng([seed, 2])
    return np.exp(SPREAD * rng.standard_normal(shape))
