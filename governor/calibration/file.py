"""A calibration as a board file: what was measured, and the rest as the given board has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, cast

import numpy as np

from governor.calibration.fit import REFERENCE_C, Curve, Curves, Fitted, Power, Rates
from governor.roofline.board import Board, Constant, Status
from governor.roofline.board_file import parse_board, with_constants

TOLD = 0.05
"""A constant whose interval ends within this share of its value is stated as a number."""

_MEGA, _GIGA, _PICO, _PER_GIGA = 1e6, 1e9, 1e-12, 1e-9


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a measured constant's line says of where it is from.

    Attributes:
        status: ``measured``, or ``emulated``.
        source: one line.
    """

    status: Status
    source: str


def plain_board(name: str, title: str, levels_hz: Mapping[str, Sequence[float]]) -> Board:
    """A board of which nothing is known but the levels of its clocks.

    Args:
        levels_hz: by ``cpu``, ``gpu``, ``memory``; one that is absent has one level, 1 GHz.
    """
    text = files(__package__ or "").joinpath("plain.toml").read_text(encoding="utf-8")
    plain = replace(parse_board(text, name, "plain.toml"), title=title)
    values: dict[str, Any] = {}
    for part, mode in (("cpu", "cpu"), ("gpu", "gpu"), ("memory", "emc")):
        if part not in levels_hz:
            continue
        mhz = [hz / _MEGA for hz in levels_hz[part]]
        values[f"{part}.levels_mhz"] = mhz
        values[f"modes.ALL.{mode}_mhz"] = mhz[-1]
        if part == "memory":
            for key in ("memory.gb_per_s", "memory.w"):
                values[key] = plain.constants[key].value * len(mhz)
        else:
            values[f"{part}.voltage"] = [[mhz[-1], 1]]
    return with_constants(plain, values)


def known_terms(board: Board) -> dict[str, float]:
    """The coefficients of :func:`governor.calibration.fit.fit_power` as the board has them."""
    energy, memory = board.energy, board.memory
    return {
        **{f"flop {each}": joules for each, joules in energy.j_per_flop.items()},
        **{
            f"memory {hz:.0f}": watts - memory.w[0]
            for hz, watts in zip(memory.levels_hz, memory.w, strict=True)
        },
        "memory byte": energy.memory_j_per_byte,
        "gpu byte": energy.gpu_j_per_byte,
        "base": energy.base_w + memory.w[0],
        "gpu clock": board.gpu.w_per_hz,
        "cpu core": board.cpu.core_w_per_hz,
        "cpu busy": board.cpu.busy_w_per_hz,
        "cpu leakage": board.leakage.cpu_w,
        "gpu leakage": board.leakage.gpu_w,
    }


def curves_of(board: Board) -> Curves:
    """The voltages of its GPU and CPU."""
    return board.gpu.voltage, board.cpu.voltage


def calibrated(
    board: Board, rates: Rates, power: Power | None, provenance: Provenance
) -> dict[str, Constant]:
    """The board's constants with the measured ones in their place, by dotted name.

    Of a term that came out as 0, hidden by noise, the board's own value stays where it may be
    true; the interval says up to where it may be.
    """
    found = _Found(board, provenance)
    for (unit, precision), fitted in rates.flop_per_clock.items():
        found.put(f"gpu.{unit}_flop_per_clock.{precision}", fitted)
    found.put("gpu.bytes_per_clock", rates.bytes_per_clock)
    _put_bandwidth(found, rates)
    if power is not None:
        for term, key, unit in (
            ("memory byte", "energy.memory_pj_per_byte", _PICO),
            ("gpu byte", "energy.gpu_pj_per_byte", _PICO),
            ("gpu clock", "gpu.w_per_ghz", _PER_GIGA),
            ("cpu core", "cpu.core_w_per_ghz", _PER_GIGA),
            ("cpu busy", "cpu.busy_w_per_ghz", _PER_GIGA),
        ):
            found.put(key, power.terms.get(term), unit)
        for term, fitted in power.terms.items():
            if term.startswith("flop "):
                found.put(f"energy.pj_per_flop.{term.removeprefix('flop ')}", fitted, _PICO)
        _put_standing(found, power)
        _put_leakage(found, power)
        for key, curve in (("gpu.voltage", power.gpu), ("cpu.voltage", power.cpu)):
            if curve is not None:
                _put_curve(found, key, curve)
    return _in_tables(found.constants)


def is_told(constant: Constant) -> bool:
    """Whether its interval is so narrow that it is a number; otherwise the interval is the result.

    Of what has no interval, such as a single reading, nothing is known.
    """
    return all(
        low is None or abs(end - value) <= TOLD * value
        for value, low, high in numbers(constant)
        for end in (low, high)
    )


def numbers(constant: Constant) -> list[tuple[float, Any, Any]]:
    """Each number of a constant with its low and high end, or None: of a curve's pairs, both."""

    def flat(value: Any) -> list[Any]:
        parts = cast("list[Any]", value) if isinstance(value, list) else None
        return [value] if parts is None else [one for part in parts for one in flat(part)]

    values = flat(constant.value)
    low, high = (
        [None] * len(values) if ends is None else flat(ends)
        for ends in (constant.low, constant.high)
    )
    return list(zip(values, low, high, strict=True))


class _Found:
    """The constants, as measured ones take their place."""

    def __init__(self, board: Board, provenance: Provenance) -> None:
        self.board = board
        self.constants = dict(board.constants)
        self._provenance = provenance

    def put(self, key: str, fitted: Fitted | None, unit: float = 1.0) -> None:
        """A measured constant, given in SI units, in the file's."""
        if fitted is None:
            return
        value, low, high = (
            None if each is None else _rounded(each / unit)
            for each in (fitted.value, fitted.low, fitted.high)
        )
        if value:
            self.set(key, value, low, high)
        elif high:
            own = self.board.constants.get(key)
            value = own.value if own is not None and 0 < own.value <= high else high / 2
            self.set(key, value, low, high, note="hidden by noise")

    def set(self, key: str, value: Any, low: Any, high: Any, *, note: str = "") -> None:
        """A measured constant in the file's unit."""
        status, source = self._provenance.status, self._provenance.source
        constant = Constant(value=value, low=low, high=high, status=status, source=source)
        if not is_told(constant):
            note = f"{note}; " * bool(note) + "known no closer than from low to high"
        self.constants[key] = replace(constant, source=f"{source}; {note}" if note else source)


def _put_bandwidth(found: _Found, rates: Rates) -> None:
    """Bandwidth by memory clock; between measured levels, as far off as those beside it.

    So is that of a level which the other clock hides: all that is known is that it is not less
    than what was seen.
    """
    memory = found.board.memory
    levels, own = np.array(memory.levels_hz), np.array(memory.bytes_per_s)
    seen = {hz or memory.levels_hz[-1]: each for hz, each in sorted(rates.bytes_per_s.items())}
    told = {hz: each.value for hz, each in seen.items() if each.high != math.inf} or {
        hz: each.value for hz, each in seen.items()
    }
    if not told:
        return
    off = np.array(list(told.values())) / np.interp(list(told), levels, own)
    values = np.interp(levels, list(told), off) * own
    value = [
        _rounded(max(one, seen[level].low or 0.0 if level in seen else 0.0) / _GIGA)
        for level, one in zip(memory.levels_hz, values.tolist(), strict=True)
    ]
    if all(each.low is None for each in seen.values()):
        found.set("memory.gb_per_s", value, None, None)
        return
    ends = [seen.get(level, Fitted(0.0)) for level in memory.levels_hz]
    low = [_rounded((each.low or 0.0) / _GIGA) for each in ends]
    high = [_rounded((each.high or math.inf) / _GIGA) for each in ends]
    found.set("memory.gb_per_s", value, low, high)


def _put_standing(found: _Found, power: Power) -> None:
    """What is drawn whatever runs; the memory's at its lowest clock is not told from the rest."""
    memory, terms = found.board.memory, power.terms
    base = terms.get("base")
    lowest_w = memory.w[0]
    if base is not None and base.value > 0:
        lowest_w = min(lowest_w, base.value)
        low, high = (
            None if end is None else _rounded(max(end - lowest_w, 0.0))
            for end in (base.low, base.high)
        )
        note = f"less the memory's {lowest_w:.4g} W at its lowest clock, from which it is not told"
        found.set("energy.base_w", _rounded(base.value - lowest_w), low, high, note=note)
    above = {
        float(term.removeprefix("memory ")): fitted
        for term, fitted in terms.items()
        if term.startswith("memory ") and term != "memory byte"
    }
    if not above:
        return
    lowest = min(memory.levels_hz[0], *above)

    def watts(ends: Sequence[float | None]) -> list[float]:
        known = [0.0 if end is None else end for end in ends]
        between = np.interp(memory.levels_hz, [lowest, *above], [0.0, *known])
        return [_rounded(lowest_w + one) for one in between.tolist()]

    found.set(
        "memory.w",
        watts([each.value for each in above.values()]),
        watts([each.low for each in above.values()]),
        watts([each.high for each in above.values()]),
        note="at the lowest clock as it was, above it measured",
    )


def _put_leakage(found: _Found, power: Power) -> None:
    """All of it or nothing: watts without their growth say little."""
    parts = [power.terms.get(f"{part} leakage") for part in ("cpu", "gpu")]
    growth = power.terms.get("growth")
    if growth is None or not any(parts):
        return
    for key, fitted in zip(("leakage.cpu_w", "leakage.gpu_w"), parts, strict=True):
        if fitted is None:
            found.set(key, 0.0, None, None, note="part of the other")
        else:
            found.put(key, fitted)
    found.set("leakage.reference_c", REFERENCE_C, None, None, note="by convention")
    found.put("leakage.per_degree", growth)


def _put_curve(found: _Found, key: str, curve: Curve) -> None:
    def pairs(floor_hz: float | None, top: float | None) -> list[list[float]] | None:
        if floor_hz is None or top is None:
            return None
        return [[round(floor_hz / _MEGA, 1), 1], [round(curve.top_hz / _MEGA, 1), _rounded(top)]]

    floor, top = curve.floor_hz, curve.top
    value, low, high = (
        pairs(*ends)
        for ends in ((floor.value, top.value), (floor.low, top.low), (floor.high, top.high))
    )
    found.set(key, value, low, high)


def _in_tables(constants: Mapping[str, Constant]) -> dict[str, Constant]:
    """Those of one table after one another, tables in the order in which they occur."""
    tables = list(dict.fromkeys(key.rpartition(".")[0] for key in constants))
    return dict(
        sorted(constants.items(), key=lambda item: tables.index(item[0].rpartition(".")[0]))
    )


def _rounded(value: float) -> float:
    """To four digits: more than any interval needs."""
    return float(f"{value:.4g}")
