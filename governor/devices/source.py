"""What draws power and can say how much: RAPL, a power sensor, a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source says at one moment.

    Attributes:
        power_w: watts by rail; a rail that failed, or that needs two readings, is absent.
        total_w: watts of the source as a whole, None if not known at this moment.
        energy_j: joules of the source as a whole since any start, None without a counter.
    """

    power_w: Mapping[str, float]
    total_w: float | None
    energy_j: float | None = None


class Source(Protocol):
    """Something whose draw belongs to the total that is charged."""

    @property
    def description(self) -> str:
        """For people: what is counted, and by what."""
        ...

    @property
    def refresh_s(self) -> float:
        """Seconds between two fresh readings."""
        ...

    def read(self, now_s: float) -> Reading:
        """Read it.

        Raises:
            OSError: it cannot be read.
            ValueError: what was read is no number.
        """
        ...
