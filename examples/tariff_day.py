"""A day of work under a tariff: what its hours cost, beside objectives that do not see the price.

Every hour the same number of images is worked off, and the board waits for the next hour. The
tariff spends energy on speed while it is cheap, and saves it while it is dear. For an application
the prices are a file, ``Tariff.read("prices.csv")``. On an emulated board in virtual time, on
which an hour passes in ``HOUR_S``; no figure was measured on hardware, and the prices are
invented, in the shape of a sunny day on a day-ahead market. The search before midnight is not
counted, nor is the energy of the waiting; trials during the day are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from governor import EnergyGovernor, Tariff
from governor.devices.emulated import EmulatedBoard

BOARD, WORKLOAD = "tx2", "vgg16"
CENTS_A_KWH = (
    *(28, 27, 26, 26, 27, 30, 36, 43, 41, 32, 22, 14),
    *(9, 8, 11, 18, 27, 39, 50, 54, 46, 38, 33, 30),
)
"""From each hour of the day on. Invented."""
BANDS = {"night": (22, 6), "morning": (6, 10), "midday": (10, 16), "evening": (16, 22)}
"""From one hour to before another."""
IMAGES = 60
"""Worked off in each hour."""
HOUR_S = 75.0
"""Longer than the minute after which a tariff is asked again."""
KWH_J = 3.6e6


@dataclass(frozen=True, slots=True)
class Work:
    """What some images took: J and s an image, and cents for a million of them."""

    energy_j: float
    latency_s: float
    cents: float


def relative_price(now: datetime) -> float:
    """Of the hour that stands for ``now``, over the day's mean."""
    seconds = 3600 * now.hour + 60 * now.minute + now.second
    return CENTS_A_KWH[int(seconds // HOUR_S) % 24] * 24 / sum(CENTS_A_KWH)


def day(objective: str | Tariff) -> list[Work]:
    """Govern 24 hours of work, from midnight on."""
    board = EmulatedBoard(BOARD, WORKLOAD)
    hours: list[Work] = []
    with EnergyGovernor("none", objective=objective, device=board) as gov:
        while gov.phase != "hold":
            with gov.inference():
                board.infer()
        for hour, cents in enumerate(CENTS_A_KWH):
            board.clock.sleep_until((24 + hour) * HOUR_S)
            began_s, before_j = board.clock.now(), board.spent_j
            for _image in range(IMAGES):
                with gov.inference():
                    board.infer()
            energy_j = (board.spent_j - before_j) / IMAGES
            latency_s = (board.clock.now() - began_s) / IMAGES
            hours.append(Work(energy_j, latency_s, 1e6 * energy_j / KWH_J * cents))
    return hours


def mean(hours: list[Work]) -> Work:
    """Of hours with as many images each."""
    count = len(hours)
    return Work(
        sum(hour.energy_j for hour in hours) / count,
        sum(hour.latency_s for hour in hours) / count,
        sum(hour.cents for hour in hours) / count,
    )


def lines(name: str, hours: list[Work]) -> Iterator[str]:
    """The day, and its bands."""
    turned = {
        band: hours[first:last] if first < last else hours[first:] + hours[:last]
        for band, (first, last) in BANDS.items()
    }
    cells = [mean(hours), *map(mean, turned.values())]
    yield f"{name:6s} cents {'  '.join(f'{each.cents:8.2f}' for each in cells)}"
    yield f"{'':6s} mJ   {'  '.join(f'{1e3 * each.energy_j:8.1f}' for each in cells)}"
    yield f"{'':6s} ms   {'  '.join(f'{1e3 * each.latency_s:8.1f}' for each in cells)}"


def main() -> None:
    print(f"EMULATED, {WORKLOAD} on {BOARD}; cents for a million images; mJ and ms an image")
    print(f"{'':13s}{'  '.join(f'{band:>8s}' for band in ('day', *BANDS))}")
    for name, objective in (
        ("energy", "energy"),
        ("edp", "edp"),
        ("tariff", Tariff(relative_price)),
    ):
        print("\n".join(lines(name, day(objective))))


if __name__ == "__main__":
    main()
