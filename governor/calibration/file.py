"""A calibration as a board file: what was measured, and the rest as the given board has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from governor.calibration.fit import Curves, Fitted, Power, Rates
from governor.roofline.board import Board, Constant, Status
from governor.roofline.board_file import parse_board, with_constants

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
    }


def curves_of(board: Board) -> Curves:
    """The voltages of its GPU and CPU."""
    return board.gpu.voltage, board.cpu.voltage


def calibrated(
    board: Board, rates: Rates, power: Power | None, provenance: Provenance
) -> dict[str, Constant]:
    """The board's constants with the measured ones in their place, by dotted name.

    A term that came out as 0 was hidden by noise: the board's own stays.
    """
    found = dict(board.constants)

    def put(key: str, fitted: Fitted | None, unit: float) -> None:
        if fitted is not None and fitted.value > 0:
            found[key] = Constant(
                value=_rounded(fitted.value / unit),
                low=None if fitted.low is None else _rounded(fitted.low / unit),
                high=None if fitted.high is None else _rounded(fitted.high / unit),
                status=provenance.status,
                source=provenance.source,
            )

    for (unit, precision), fitted in rates.flop_per_clock.items():
        put(f"gpu.{unit}_flop_per_clock.{precision}", fitted, 1.0)
    put("gpu.bytes_per_clock", rates.bytes_per_clock, 1.0)
    _put_memory(found, board, rates, provenance)
    if power is not None:
        for term, key, unit in (
            ("memory byte", "energy.memory_pj_per_byte", _PICO),
            ("gpu byte", "energy.gpu_pj_per_byte", _PICO),
            ("gpu clock", "gpu.w_per_ghz", _PER_GIGA),
            ("cpu core", "cpu.core_w_per_ghz", _PER_GIGA),
            ("cpu busy", "cpu.busy_w_per_ghz", _PER_GIGA),
        ):
            put(key, power.terms.get(term), unit)
        for term, fitted in power.terms.items():
            if term.startswith("flop "):
                put(f"energy.pj_per_flop.{term.removeprefix('flop ')}", fitted, _PICO)
        _put_standing(found, board, power, provenance)
        _put_curves(found, power, provenance)
    return _in_tables(found)


def _put_memory(
    found: dict[str, Constant], board: Board, rates: Rates, provenance: Provenance
) -> None:
    """Bandwidth by memory clock; between measured levels, as far off as those beside it."""
    levels = np.array(board.memory.levels_hz)
    measured = {hz or levels[-1]: each.value for hz, each in sorted(rates.bytes_per_s.items())}
    if not measured:
        return
    own = np.interp(list(measured), levels, board.memory.bytes_per_s)
    off = np.interp(levels, list(measured), np.array(list(measured.values())) / own)
    values = off * np.array(board.memory.bytes_per_s) / _GIGA
    found["memory.gb_per_s"] = _list(values, provenance, f"{len(measured)} levels looked at")


def _put_standing(
    found: dict[str, Constant], board: Board, power: Power, provenance: Provenance
) -> None:
    """What is drawn whatever runs; the memory's at its lowest clock is not told from the rest."""
    memory, terms = board.memory, power.terms
    above = {
        float(term.removeprefix("memory ")): fitted.value
        for term, fitted in terms.items()
        if term.startswith("memory ") and term != "memory byte"
    }
    if above:
        lowest = min(memory.levels_hz[0], *above)
        watts = np.interp(memory.levels_hz, [lowest, *above], [0.0, *above.values()])
        found["memory.w"] = _list(
            memory.w[0] + watts, provenance, "at the lowest level as it was; above it, measured"
        )
    base = terms.get("base")
    if base is not None and base.value > memory.w[0]:
        low, high = (
            None if end is None else _rounded(max(end - memory.w[0], 0.0))
            for end in (base.low, base.high)
        )
        found["energy.base_w"] = Constant(
            value=_rounded(base.value - memory.w[0]),
            low=low,
            high=high,
            status=provenance.status,
            source=f"{provenance.source}; less the memory's at its lowest clock",
        )


def _put_curves(found: dict[str, Constant], power: Power, provenance: Provenance) -> None:
    for key, curve in (("gpu.voltage", power.gpu), ("cpu.voltage", power.cpu)):
        if curve is not None:
            pairs = [
                [round(hz / _MEGA, 1), _rounded(relative)]
                for hz, relative in zip(curve.hz, curve.relative, strict=True)
            ]
            found[key] = Constant(value=pairs, status=provenance.status, source=provenance.source)


def _list(values: Any, provenance: Provenance, note: str) -> Constant:
    source = f"{provenance.source}; {note}"
    return Constant(
        value=[_rounded(each) for each in values], status=provenance.status, source=source
    )


def _in_tables(constants: Mapping[str, Constant]) -> dict[str, Constant]:
    """Those of one table after one another, tables in the order in which they occur."""
    tables = list(dict.fromkeys(key.rpartition(".")[0] for key in constants))
    return dict(
        sorted(constants.items(), key=lambda item: tables.index(item[0].rpartition(".")[0]))
    )


def _rounded(value: float) -> float:
    """To four digits: more than any interval needs."""
    return float(f"{value:.4g}")
