"""A Jetson's power sensors: INA3221 chips under two drivers, and Thor's INA238.

- L4T 32 (kernel 4.9): driver ``ina3221x``, IIO files, channels from 0, milliwatts.
- L4T 35 and later: driver ``ina3221``, hwmon files, channels from 1, millivolts and
  milliamperes but no watts.
- INA238: hwmon, one channel, microwatts, no label.

Which rails there are, and which add up to the total, is data of the board
(``lease/jetson_boards.json``). Nothing is guessed from a rail's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from governor.devices.polled_file import PolledFile
from governor.errors import DeviceError
from governor.lease.jetson_board import Board
from governor.lease.kernel_files import exists, read_number, text_if_there

I2C = "sys/bus/i2c/drivers"
HWMON = "sys/class/hwmon"
UNUSED = frozenset(("", "NC"))
REFRESH_S = 0.43
"""3 channels x 280 us x 512 averages: seen on Orin Nano under L4T 36, for others assumed. A
driver that states its interval is believed instead."""
TOTAL = "total"
"""The rail that is a sum, on boards without a sensor for the whole."""


@dataclass(frozen=True)
class Rail:
    """One measured supply.

    Attributes:
        label: as the board calls it, such as ``VDD_IN``.
        chip: I2C bus and address, such as ``1-0040``.
        factors: files whose product is the power in watts.
    """

    label: str
    chip: str
    factors: tuple[PolledFile, ...]

    def read(self) -> float:
        """Watts now.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no number.
        """
        return math.prod(factor.read() for factor in self.factors)

    def read_if_there(self) -> float | None:
        """Watts now, None if it cannot be read: a disabled channel answers ENODATA."""
        try:
            return self.read()
        except (OSError, ValueError):
            return None


class Rails:
    """All rails of a board, and its total."""

    def __init__(self, rails: Sequence[Rail], total: Sequence[str], refresh_s: float) -> None:
        """
        Args:
            total: labels of the rails that add up to the total; all of them are in ``rails``.
            refresh_s: seconds between two fresh readings.
        """
        self.rails = tuple(rails)
        self.total = tuple(total)
        self.total_rail = total[0] if len(total) == 1 else TOTAL
        self.refresh_s = refresh_s

    def read(self) -> dict[str, float]:
        """Watts by rail; one that failed is absent, and so is a total that needs it."""
        watts = {rail.label: rail.read_if_there() for rail in self.rails}
        return with_total({rail: w for rail, w in watts.items() if w is not None}, self.total)

    def close(self) -> None:
        """Let go of all files."""
        for rail in self.rails:
            for factor in rail.factors:
                factor.close()


def with_total(power_w: dict[str, float], total: Sequence[str]) -> dict[str, float]:
    """The same with the sum of ``total`` added, where that is a sum and all of it is known."""
    if len(total) > 1 and all(label in power_w for label in total):
        return {**power_w, TOTAL: sum(power_w[label] for label in total)}
    return power_w


def find_rails(root: Path, board: Board) -> Rails:
    """The rails of ``board``.

    Raises:
        DeviceError: none can be read, or not all that add up to the total.
    """
    chips = dict(_chips(root))
    rails = list(_channels(chips, board.rails))
    labels = [rail.label for rail in rails]
    if not rails:
        raise DeviceError(f"no power sensor can be read in {root / I2C} or {root / HWMON}")
    if not board.total:
        raise DeviceError(
            f"which of the rails {', '.join(labels)} are this board's total is not known"
        )
    absent = [label for label in board.total if label not in labels]
    if absent:
        raise DeviceError(f"no rail {', '.join(absent)}, only {', '.join(labels)}")
    intervals = [each for each in map(_interval_s, chips.values()) if each is not None]
    return Rails(rails, board.total, max(intervals, default=REFRESH_S))


def _chips(root: Path) -> Iterator[tuple[str, Path]]:
    """Bus and address of each chip, and the folder with its values."""
    seen: set[str] = set()
    for driver in ("ina3221x", "ina3221", "ina238"):
        for chip in sorted((root / I2C / driver).glob("*-*")):
            values = [*sorted(chip.glob("iio:device*")), *sorted(chip.glob("hwmon/hwmon*"))]
            if values:
                seen.add(chip.name)
                yield chip.name, values[0]
    for folder in sorted((root / HWMON).glob("hwmon*")):
        chip = (folder / "device").resolve().name
        if chip not in seen and text_if_there(folder / "name") in ("ina3221", "ina238"):
            yield chip, folder


def _channels(chips: Mapping[str, Path], labels: Mapping[str, Sequence[str]]) -> Iterator[Rail]:
    for chip, folder in chips.items():
        if exists(folder / "power1_input"):  # INA238
            label = next(iter(labels.get(chip, ())), chip)
            yield Rail(label, chip, (PolledFile(folder / "power1_input", 1e-6),))
            continue
        for rail in (*_iio(chip, folder), *_hwmon(chip, folder)):
            if rail.label not in UNUSED and rail.read_if_there() is not None:
                yield rail


def _iio(chip: str, folder: Path) -> Iterator[Rail]:
    for channel in range(3):
        label = text_if_there(folder / f"rail_name_{channel}")
        yield Rail(label, chip, (PolledFile(folder / f"in_power{channel}_input", 1e-3),))


def _hwmon(chip: str, folder: Path) -> Iterator[Rail]:
    """Channels from 4 are shunt voltages and their sum."""
    for channel in range(1, 4):
        label = text_if_there(folder / f"in{channel}_label")
        volts = PolledFile(folder / f"in{channel}_input", 1e-3)
        amperes = PolledFile(folder / f"curr{channel}_input", 1e-3)
        yield Rail(label, chip, (volts, amperes))


def _interval_s(folder: Path) -> float | None:
    try:
        milliseconds = read_number(folder / "update_interval")
    except (OSError, ValueError):
        return None
    return 1e-3 * milliseconds if milliseconds > 0 else None
