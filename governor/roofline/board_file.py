"""Reads a board file, and says clearly what in it cannot be used.

Every constant stands in the file with its source and what it rests on::

    bytes_per_clock = { value = 93, status = "derived", source = "arXiv 2606.16106" }

A measured one may carry the interval it lies in, ``low`` and ``high`` (``inf``: no end there); of a
list each is a list, too.
Files hold the units of data sheets (MHz, GB/s, pJ); a :class:`Board` has hertz, bytes and joules.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any, cast, get_args

from governor.errors import InputError
from governor.roofline.board import (
    KINDS,
    WIDER,
    Board,
    Constant,
    Cpu,
    Energy,
    Gpu,
    Leakage,
    Memory,
    Mode,
    Stack,
    Status,
    Voltage,
)

_toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_MEGA, _GIGA, _PICO, _PER_GIGA = 1e6, 1e9, 1e-12, 1e-9


def parse_board(text: str, name: str, where: str) -> Board:
    """A board file's text as a board; ``where`` names the file in errors.

    Raises:
        InputError: it is no TOML, or a constant is missing, unknown or out of range.
    """
    try:
        data = _toml.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is no TOML: {error}") from error
    return _Reader(where, data).board(name)


def with_constants(board: Board, values: Mapping[str, Any]) -> Board:
    """The board with other values, in the file's units, of constants by their dotted names.

    Raises:
        InputError: a name that it does not have, or a value out of range.
    """
    data: dict[str, Any] = {"title": board.title}
    for key, constant in board.constants.items():
        *tables, last = key.split(".")
        table = data
        for part in tables:
            table = table.setdefault(part, {})
        value = values.get(key, constant.value)
        table[last] = {"value": value, "status": constant.status, "source": constant.source}
    if unknown := sorted(set(values) - set(board.constants)):
        raise InputError(f"{board.name} has no constant {unknown[0]}")
    return _Reader(board.name, data).board(board.name)


def format_board(title: str, constants: Mapping[str, Constant]) -> str:
    """The text of a board file: what :func:`parse_board` reads.

    Args:
        title: of the board.
        constants: by dotted name, those of one table after one another.
    """
    tables: dict[str, list[str]] = {"": [f"title = {json.dumps(title)}"]}
    for key, constant in constants.items():
        table, _, name = key.rpartition(".")
        fields = {"value": constant.value, "low": constant.low, "high": constant.high}
        fields |= {"status": constant.status, "source": constant.source}
        # JSON's numbers, texts, lists and booleans are TOML's too, but for what has no end.
        parts = [
            f"{field} = {json.dumps(v) if field == 'source' else _toml_value(v)}"
            for field, v in fields.items()
            if v is not None
        ]
        name = name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
        tables.setdefault(table, []).append(f"{name} = {{ {', '.join(parts)} }}")
    blocks = [
        "\n".join(([f"[{table}]"] if table else []) + lines) for table, lines in tables.items()
    ]
    return "\n\n".join(blocks) + "\n"


def _toml_value(value: object) -> str:
    return json.dumps(value).replace("Infinity", "inf")


@dataclass(slots=True)
class _Reader:
    """Reads a board's tables, and remembers each constant and what nobody asked for."""

    where: str
    data: dict[str, Any]
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    known: set[str] = field(default_factory=set[str])

    def board(self, name: str) -> Board:
        cpu, gpu = self._cpu(), self._gpu()
        board = Board(
            name=name,
            title=self._text("title"),
            limit_w=self.number("limit_w"),
            cpu=cpu,
            gpu=gpu,
            memory=(memory := self._memory()),
            energy=self._energy(),
            leakage=self._leakage(),
            stacks={key: self._stack(f"stacks.{key}") for key in self._keys("stacks")},
            modes=self._modes(cpu, gpu, memory),
            constants=self.constants,
        )
        for key in _leaves(self.data):
            if key not in self.known:
                raise self.wrong(key, "is no constant of a board; take it out or correct it")
        return board

    def _cpu(self) -> Cpu:
        return Cpu(
            levels_hz=self.levels("cpu.levels_mhz"),
            cores=self.whole("cpu.cores"),
            voltage=self.voltage("cpu.voltage"),
            busy_w_per_hz=self.number("cpu.busy_w_per_ghz", _PER_GIGA),
            core_w_per_hz=self.number("cpu.core_w_per_ghz", _PER_GIGA, low=0),
        )

    def _gpu(self) -> Gpu:
        cuda = self.by_precision("gpu.cuda_flop_per_clock")
        if "fp32" not in cuda:
            raise self.wrong("gpu.cuda_flop_per_clock.fp32", "is missing")
        return Gpu(
            levels_hz=self.levels("gpu.levels_mhz"),
            voltage=self.voltage("gpu.voltage"),
            cuda_flop_per_clock=cuda,
            tensor_flop_per_clock=self.by_precision("gpu.tensor_flop_per_clock"),
            bytes_per_clock=self.number("gpu.bytes_per_clock"),
            w_per_hz=self.number("gpu.w_per_ghz", _PER_GIGA, low=0),
        )

    def _memory(self) -> Memory:
        levels_hz = self.levels("memory.levels_mhz")
        return Memory(
            levels_hz=levels_hz,
            bytes_per_s=self.numbers("memory.gb_per_s", _GIGA, len(levels_hz)),
            w=self.numbers("memory.w", 1.0, len(levels_hz)),
        )

    def _energy(self) -> Energy:
        flop = self.by_precision("energy.pj_per_flop", _PICO)
        if "fp32" not in flop:
            raise self.wrong("energy.pj_per_flop.fp32", "is missing")
        return Energy(
            j_per_flop=flop,
            gpu_j_per_byte=self.number("energy.gpu_pj_per_byte", _PICO, low=0),
            memory_j_per_byte=self.number("energy.memory_pj_per_byte", _PICO, low=0),
            base_w=self.number("energy.base_w", low=0),
        )

    def _leakage(self) -> Leakage:
        if self._find("leakage") is None:
            return Leakage()
        return Leakage(
            cpu_w=self.number("leakage.cpu_w", low=0),
            gpu_w=self.number("leakage.gpu_w", low=0),
            reference_c=self.number("leakage.reference_c"),
            per_degree=self.number("leakage.per_degree", low=0),
        )

    def _stack(self, key: str) -> Stack:
        return Stack(
            efficiency={kind: self.number(f"{key}.{kind}", high=1, closed=True) for kind in KINDS},
            reread_per_flop=self.number(f"{key}.reread_per_kflop", 1e-3, low=0),
            bandwidth={kind: self.number(f"{key}.{kind}_bandwidth") for kind in KINDS},
            launch_cycles=self.number(f"{key}.launch_cycles", low=0),
            serial_cycles=self.number(f"{key}.serial_cycles", low=0),
            kernel_cycles=self.number(f"{key}.kernel_cycles", low=0),
            tf32_convolutions=self.flag(f"{key}.tf32_convolutions"),
        )

    def _modes(self, cpu: Cpu, gpu: Gpu, memory: Memory) -> tuple[Mode, ...]:
        names = self._keys("modes")
        return tuple(
            Mode(
                name=name,
                id=self.whole(f"modes.{name}.id", low=-1),
                cores=self.whole(f"modes.{name}.cores"),
                cpu_hz=self.one_of(f"modes.{name}.cpu_mhz", cpu.levels_hz),
                gpu_hz=self.one_of(f"modes.{name}.gpu_mhz", gpu.levels_hz),
                emc_hz=self.one_of(f"modes.{name}.emc_mhz", memory.levels_hz),
                gpu_share=self.number(f"modes.{name}.gpu_share", high=1, closed=True),
            )
            for name in names
        )

    def number(
        self,
        key: str,
        scale: float = 1.0,
        *,
        low: float | None = None,
        high: float = math.inf,
        closed: bool = False,
    ) -> float:
        """A number above 0 (or from ``low``), below ``high`` (or up to it), times ``scale``."""
        value = self.constant(key).value
        if not _is_number(value):
            raise self.wrong(key, f"is {value!r}, not a number")
        above = value > 0 if low is None else value >= low
        below = value <= high if closed else value < high
        if not (above and below):
            start = "more than 0" if low is None else f"at least {low:g}"
            end = "" if math.isinf(high) else f" and {'at most' if closed else 'below'} {high:g}"
            raise self.wrong(key, f"is {value!r}; it must be {start}{end}")
        return float(value) * scale

    def whole(self, key: str, low: int = 0) -> int:
        """A whole number above ``low``."""
        value = self.number(key, low=low + 1)
        if value != int(value):
            raise self.wrong(key, f"is {value!r}, not a whole number")
        return int(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.constant(key).value
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {value!r}, not true or false")
        return value

    def numbers(self, key: str, scale: float, count: int | None = None) -> tuple[float, ...]:
        """A list of positive numbers, ``count`` of them if given, times ``scale``."""
        value = self.constant(key).value
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"is {value!r}, not a list of numbers")
        found = cast("list[Any]", value)
        if not all(_is_number(one) and one > 0 for one in found):
            raise self.wrong(key, "holds something that is no positive number")
        if count is not None and len(found) != count:
            raise self.wrong(key, f"has {len(found)} values for {count} levels")
        return tuple(float(one) * scale for one in found)

    def levels(self, key: str) -> tuple[float, ...]:
        """Clock levels in megahertz as ascending hertz."""
        found = tuple(float(round(hz)) for hz in self.numbers(key, _MEGA))
        if any(after <= before for before, after in pairwise(found)):
            raise self.wrong(key, "must ascend")
        return found

    def one_of(self, key: str, levels_hz: Sequence[float]) -> float:
        """A clock in megahertz that is one of the levels."""
        found = float(round(self.number(key, _MEGA)))
        if found not in levels_hz:
            raise self.wrong(key, f"is {found / _MEGA:g}, which is none of the clock's levels")
        return found

    def voltage(self, key: str) -> Voltage:
        """Pairs of megahertz and volts over the floor's."""
        value = self.constant(key).value
        pairs = cast("list[Any]", value) if isinstance(value, list) else []
        if not pairs or not all(_is_pair(pair) for pair in pairs):
            raise self.wrong(key, "is no list of pairs [MHz, volts over the floor's]")
        hz = tuple(float(pair[0]) * _MEGA for pair in pairs)
        relative = tuple(float(pair[1]) for pair in pairs)
        if relative[0] != 1 or any(b <= a for a, b in pairwise(hz)):
            raise self.wrong(key, "must ascend, and begin where the floor ends, with 1")
        if any(b < a for a, b in pairwise(relative)):
            raise self.wrong(key, "must not fall")
        return Voltage(hz, relative)

    def by_precision(self, key: str, scale: float = 1.0) -> dict[str, float]:
        """A table with one constant a precision; it may be absent."""
        precisions = self._keys(key, absent=True)
        for precision in precisions:
            if precision not in WIDER:
                raise self.wrong(
                    f"{key}.{precision}", f"is no precision; use one of {', '.join(WIDER)}"
                )
        return {precision: self.number(f"{key}.{precision}", scale) for precision in precisions}

    def constant(self, key: str) -> Constant:
        """The constant of that dotted name, in the file's unit."""
        self.known.add(key)
        found = self._find(key)
        if found is None:
            raise self.wrong(key, "is missing")
        if not isinstance(found, dict) or "value" not in found:
            raise self.wrong(key, _FORM)
        table = cast("dict[str, Any]", found)
        extra = set(table) - {"value", "status", "source", "low", "high"}
        status, source = table.get("status"), table.get("source")
        if extra or status not in get_args(Status) or not isinstance(source, str) or not source:
            raise self.wrong(key, _FORM)
        bounds = {end: table[end] for end in ("low", "high") if end in table}
        if not all(_is_bound(bound, table["value"]) for bound in bounds.values()):
            raise self.wrong(key, "has a low or high that is not of the form of its value")
        constant = Constant(
            value=table["value"], status=cast("Status", status), source=source, **bounds
        )
        self.constants[key] = constant
        return constant

    def _text(self, key: str) -> str:
        self.known.add(key)
        value = self._find(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "is missing or is no text")
        return value

    def _keys(self, key: str, *, absent: bool = False) -> list[str]:
        table = self._find(key)
        if table is None and absent:
            return []
        if not isinstance(table, dict) or not table:
            raise self.wrong(key, "is missing or is no table")
        return list(cast("dict[str, Any]", table))

    def _find(self, key: str) -> object:
        *tables, last = key.split(".")
        table = self.data
        for part in tables:
            inner = table.get(part)
            table = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
        return table.get(last)

    def wrong(self, key: str, what: str) -> InputError:
        """The error that names the file and the constant."""
        return InputError(f"{self.where}: {key} {what}")


_FORM = (
    "must be written as { value = ..., status = ..., source = ... }, with a status of "
    f"{', '.join(get_args(Status))}"
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_bound(bound: object, value: object) -> bool:
    """Whether it is a number, or infinite, for each number of the value."""
    if isinstance(value, list):
        ends, values = cast("list[Any]", bound), cast("list[Any]", value)
        paired = isinstance(bound, list) and len(ends) == len(values)
        return paired and all(map(_is_bound, ends, values))
    return bound == math.inf or _is_number(bound)


def _is_pair(value: object) -> bool:
    pair = cast("list[Any]", value) if isinstance(value, list) else []
    return len(pair) == 2 and all(_is_number(one) and one > 0 for one in pair)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Dotted names of what is no table, and of tables that look like a constant."""
    for key, value in table.items():
        if isinstance(value, dict) and "value" not in value and value:
            yield from _leaves(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
