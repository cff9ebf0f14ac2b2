"""What the examples print at their end, and the arguments that they share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from governor import Status
from governor.units import format_duration, format_energy, format_percent


def arguments(description: str, latency_slo: str) -> argparse.Namespace:
    """``--device``, ``--latency-slo`` and ``--seconds``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="emulated:agx-orin", help="auto: this machine's own")
    parser.add_argument("--latency-slo", default=latency_slo)
    parser.add_argument("--seconds", type=float, default=60.0)
    return parser.parse_args()


def turns(seconds: float) -> Iterator[int]:
    """Count until so many seconds have passed."""
    end_s = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end_s:
        yield turn
        turn += 1


def say(status: Status, what: str = "inference") -> None:
    """A few lines; no figure of an emulated board is called measured."""
    origin = "EMULATED" if status.emulated else "measured"
    print(f"{status.inferences} {what}s on {status.device}; clocks and energy are {origin}")
    print(f"{status.phase} after {status.trials} trials: {status.point or 'default governors'}")
    print(
        f"{status.violations} took longer than {format_duration(status.slo_s)}; "
        f"{format_energy(status.energy_j)} an item now"
    )
    if status.phase != "hold":
        print("no setting is held yet; give it more --seconds")
    if status.saving is not None:
        print(f"saved against the default governors, {origin}: {format_percent(status.saving)}")
