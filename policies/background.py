"""What is known of other workloads and other boards when a search begins."""

from __future__ import annotations

from dataclasses import dataclass

from governor.trial import Trial


@dataclass(frozen=True, slots=True)
class Donor:
    """What was once measured.

    Attributes:
        board, workload: names, to be compared.
        trials: the first one at the fastest setting there was.
    """

    board: str
    workload: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Background:
    """Donors, and the names of what is searched now."""

    board: str
    workload: str
    donors: tuple[Donor, ...]
