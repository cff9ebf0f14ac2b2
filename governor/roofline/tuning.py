"""The clocks at which a network is predicted to use the least energy, and what else they do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from governor.roofline.board import Board, Mode, Stack
from governor.roofline.prediction import Clocks, Prediction, predict
from governor.roofline.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting and what is predicted there, per batch.

    Attributes:
        name: of the power mode, or what was asked for.
        capped: the module's power limit slows it down.
    """

    name: str
    cpu_hz: float
    gpu_hz: float
    emc_hz: float
    time_s: float
    energy_j: float
    capped: bool

    @property
    def power_w(self) -> float:
        """Mean power while it works."""
        return self.energy_j / self.time_s


def at_caps(board: Board, stack: Stack, work: Work, mode: Mode) -> Setting:
    """With all clocks at the mode's caps."""
    clocks = Clocks.at(mode)
    return _setting(mode.name, clocks, predict(board, stack, work, clocks), 0)


def least_energy(
    board: Board, stack: Stack, work: Work, mode: Mode, slo_s: float | None = None
) -> Setting | None:
    """The setting of least energy that the mode allows; None where none keeps the SLO.

    Args:
        slo_s: a batch may take no longer.
    """
    clocks = Clocks.within(mode, board)
    found = predict(board, stack, work, clocks)
    energy_j = (
        found.energy_j if slo_s is None else np.where(found.time_s <= slo_s, found.energy_j, np.inf)
    )
    row = int(np.argmin(energy_j))
    if not np.isfinite(energy_j[row]):
        return None
    return _setting("least energy" if slo_s is None else "within the SLO", clocks, found, row)


def _setting(name: str, clocks: Clocks, found: Prediction, row: int) -> Setting:
    return Setting(
        name=name,
        cpu_hz=float(clocks.cpu_hz[row]),
        gpu_hz=float(clocks.gpu_hz[row]),
        emc_hz=float(clocks.emc_hz[row]),
        time_s=float(found.time_s[row]),
        energy_j=float(found.energy_j[row]),
        capped=bool(found.capped[row]),
    )
