"""Other bounds, or another objective, that are wanted from the next look on."""

from __future__ import annotations

from governor.errors import InputError
from governor.objective import Objective
from governor.observer import Observer
from governor.slo import LatencySLO
from governor.trial import MAIN, Trial
from governor.units import format_power


class Bounds:
    """What is asked for waits here until it can be put in force all at once."""

    def __init__(self, seen: Observer) -> None:
        self._seen = seen
        self._slos: dict[str, LatencySLO] = {}
        self._objective: Objective | None = None

    @property
    def waiting(self) -> bool:
        """Whether anything is wanted that is not in force yet."""
        return bool(self._slos) or self._objective is not None

    def aim(self, objective: Objective) -> None:
        """Points are to be judged by another objective."""
        self._objective = objective

    def bind(self, slo: LatencySLO, stream: str) -> None:
        """A stream is to have another bound.

        Raises:
            InputError: there is no such stream.
        """
        if self.slo_of(stream) != slo:
            self._slos[stream] = slo

    def slo_of(self, stream: str) -> LatencySLO:
        """The bound that is wanted of a stream.

        Raises:
            InputError: there is no such stream.
        """
        streams = self._seen.streams
        if stream not in streams.percentiles:
            known = ", ".join(streams.percentiles)
            raise InputError(f"there is no stream {stream!r}; choose one of {known}")
        return self._slos.get(stream) or streams[stream].slo

    def enforce(self, anchor: Trial | None) -> tuple[str, bool]:
        """Put in force what waits.

        Args:
            anchor: the trial at the fastest point, which relative bounds follow from.

        Returns:
            what has changed, for people; whether what was measured can be judged by it.
        """
        told: list[str] = []
        if self._objective is not None:
            told.append(f"the objective is now {self._objective}")
            self._seen.objective, self._objective = self._objective, None
        slos, self._slos = self._slos, {}
        judgeable = self._seen.bind(slos, anchor)
        told += [
            f"the bound is now {slo}" + ("" if stream == MAIN else f" for {stream}")
            for stream, slo in slos.items()
        ]
        return ", ".join(told), judgeable


def name_bounds(slo: LatencySLO, objective: Objective) -> str:
    """The bounds, for people."""
    cap = f"{format_power(objective.power_cap_w)}" if objective.capped else ""
    latency = "" if slo.unbounded and cap else f"{slo}"
    return " and ".join(filter(None, (latency, cap)))
