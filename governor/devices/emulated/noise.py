"""How single inference times scatter around their mean.

Shape of the measured cycles of jetson-latency-lab on an Orin Nano Super (arXiv 2606.16106,
github dankang21/jetson-latency-lab): a narrow body, some slow inferences that like to follow
one another, and rarely one much slower. Its width differs from setting to setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from governor.errors import InputError

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


class Noise(Protocol):
    """How long an inference takes, over its mean."""

    def factor(self, width: float) -> float:
        """The next inference's time over its mean; ``width`` is the setting's own, about 1."""
        ...


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


class ResampledNoise:
    """Measured inference times, drawn in blocks that keep their bursts together.

    A moving-block bootstrap (Künsch, Annals of Statistics 17, 1989) that wraps around at the end.
    """

    def __init__(self, times: Sequence[float], seed: int, block: int = 60) -> None:
        """``times``: of successive inferences at one setting, in any unit.

        Raises:
            InputError: there are fewer than two blocks of them, or one is not positive.
        """
        series = np.asarray(times, dtype=np.float64)
        if len(series) < 2 * block or not (np.isfinite(series) & (series > 0)).all():
            raise InputError(
                f"to draw noise in blocks of {block} takes {2 * block} positive times or more, "
                f"got {len(series)}"
            )
        self._factors = (series / series.mean()).tolist()
        self._factors += self._factors[:block]
        self._rng = np.random.default_rng([seed, 4])
        self._block = block
        self._starts: list[int] = []
        self._left: list[float] = []

    def factor(self, width: float) -> float:
        """The next inference's time over its mean; the width is the measured one."""
        if not self._left:
            if not self._starts:
                last = len(self._factors) - self._block
                self._starts = self._rng.integers(0, last, _BLOCK).tolist()
            start = self._starts.pop()
            self._left = self._factors[start : start + self._block][::-1]
        return self._left.pop()


def widths(shape: tuple[int, ...], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """How much each setting of a lattice of this ``shape`` scatters, about 1."""
    rng = np.random.default_rng([seed, 2])
    return np.exp(SPREAD * rng.standard_normal(shape))
