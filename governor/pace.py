"""How long things are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things are looked at.

    Attributes:
        baseline_precision: relative standard error of the baseline's energy per item.
        precision: the same for a trial.
        look_precision: the same for a longer look, where a trial's does not decide.
        baseline_max_s, window_max_s: seconds after which less has to do.
        window_min_s: seconds of the shortest window that ends without a plain violation.
        readings_min: sensor refreshes that it spans; the first of them is discarded.
        inferences_min: inferences in it.
        warm_up: inferences left out at the very beginning (lazy initialisation), with the power
            until they have ended.
        stall_s: seconds without an inference that may still be an ordinary wait.
        recover_s: seconds that a search rests at most to earn back the SLO's budget.
        rest_s: seconds until a search that could not measure is tried again; it doubles.
    """

    baseline_precision: float = 0.02
    precision: float = 0.015
    look_precision: float = 0.003
    baseline_max_s: float = 20.0
    window_max_s: float = 6.0
    window_min_s: float = 1.2
    readings_min: float = 4.0
    inferences_min: int = 8
    warm_up: int = 3
    stall_s: float = 2.0
    recover_s: float = 20.0
    rest_s: float = 30.0
