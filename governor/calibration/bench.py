"""Kernels of known work, and what runs them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Purpose = Literal["compute", "read", "write", "mix", "cores"]

INTENSITIES = (1.0, 4.0, 16.0, 64.0)
"""FLOP a byte of the sweep between streams and chains of multiply-adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel whose work is known from its source.

    Attributes:
        purpose: ``compute``: multiply-adds in registers, nothing moved; ``read``, ``write``:
            streams far larger than any cache; ``mix``: both; ``cores``: CPU cores are busy, and
            the unit whose roofline is wanted is idle.
        precision: of its arithmetic.
        unit: ``cuda`` cores (or a CPU's), or ``tensor`` cores.
        intensity: FLOP a byte; infinite, or nearly 0 in a stream.
        cores: how many, of ``cores``.
    """

    purpose: Purpose
    precision: str = "fp32"
    unit: Literal["cuda", "tensor"] = "cuda"
    intensity: float = math.inf
    cores: int = 0

    def __str__(self) -> str:
        if self.purpose == "compute":
            return f"{self.precision} on {self.unit} cores"
        if self.purpose == "cores":
            return f"{self.cores} CPU cores"
        if self.purpose == "mix":
            return f"{self.intensity:g} FLOP a byte"
        return self.purpose


MIXES = tuple(Kernel(purpose="mix", intensity=each) for each in INTENSITIES)
STREAMS = (Kernel(purpose="read", intensity=0.0), Kernel(purpose="write", intensity=0.0))


@dataclass(frozen=True, slots=True)
class Ran:
    """What was done in a stretch of time."""

    flop: float
    bytes: float
    seconds: float


class Bench(Protocol):
    """Runs kernels on the unit whose roofline is wanted."""

    @property
    def description(self) -> str:
        """What runs them, for people and for the board file."""
        ...

    @property
    def clock(self) -> str:
        """The knob that clocks it: ``gpu_hz``, or ``cpu_hz`` where the CPU computes."""
        ...

    @property
    def kernels(self) -> Sequence[Kernel]:
        """Those that it can run."""
        ...

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Run a kernel again and again for about so long, and wait for its end."""
        ...

    def present_hz(self) -> float | None:
        """Its clock now, where it can tell without a device."""
        ...

    def close(self) -> None:
        """Let go of memory."""
        ...
