"""What can be set: knobs, operating points, and the lattice of all allowed settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governor.errors import InputError
from governor.units import format_knob_name, format_knob_value

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.intp]

MAX_SETTINGS = 2_000_000
"""A lattice above this size is refused: it would not fit a small board's memory."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing that can be set live.

    Attributes:
        name: ends in its unit, ``gpu_hz`` or ``power_limit_w``; a plain count has none.
        levels: ascending, in that unit.
    """

    name: str
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"knob name {self.name!r} is not an identifier such as gpu_hz")
        if not self.levels:
            raise InputError(f"knob {self.name} has no levels; give at least one")
        values = np.asarray(self.levels, dtype=np.float64)
        if not np.all(np.isfinite(values)) or values[0] <= 0 or np.any(np.diff(values) <= 0):
            raise InputError(
                f"levels of knob {self.name} must be positive and strictly ascending, "
                f"got {self.levels}"
            )


class OperatingPoint(Mapping[str, float]):
    """One level for each knob, immutable and hashable.

    >>> OperatingPoint({"gpu_hz": 918e6})["gpu_hz"]
    918000000.0
    """

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = {name: float(value) for name, value in values.items()}
        self._hash = hash(frozenset(self._values.items()))

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, OperatingPoint):
            return self._values == other._values
        return NotImplemented

    def __reduce__(self) -> tuple[type[OperatingPoint], tuple[dict[str, float]]]:
        # Strings hash differently in each process: a pickle must not carry the hash.
        return OperatingPoint, (self._values,)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: Callable[[object], Any]) -> Any:
        """In JSON it is an object of numbers."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls,
            handler(dict[str, float]),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )

    def __repr__(self) -> str:
        return f"OperatingPoint({self._values})"

    def __str__(self) -> str:
        return ", ".join(
            f"{format_knob_name(name)} {format_knob_value(name, value)}"
            for name, value in self._values.items()
        )

    def only(self, names: Sequence[str]) -> OperatingPoint:
        """The part of this point that concerns the knobs in ``names``."""
        return OperatingPoint({name: self._values[name] for name in names if name in self._values})


def named(point: OperatingPoint | None) -> str:
    """A setting for people; None: nothing of ours is set."""
    return "the system's own governors" if point is None else str(point)


class Space:
    """All settings that the board, its power mode and the user's limits allow.

    A space is a lattice that may have holes.

    Attributes:
        knobs: ``k`` knobs, in the order of the columns of ``settings``.
        settings: shape ``(n, k)``, one allowed setting a row, in base units.
    """

    def __init__(self, knobs: Sequence[Knob], settings: FloatArray | None = None) -> None:
        """The full product of the knobs' levels, or only the rows given in ``settings``."""
        self.knobs = tuple(knobs)
        self.names = tuple(knob.name for knob in self.knobs)
        if not self.knobs:
            raise InputError("a space needs at least one knob")
        if len(set(self.names)) != len(self.names):
            raise InputError(f"a knob is named twice among {self.names}")
        if settings is None:
            count = int(np.prod([len(knob.levels) for knob in self.knobs], dtype=np.float64))
            if count > MAX_SETTINGS:
                raise InputError(
                    f"{count} settings are more than {MAX_SETTINGS}; "
                    "limit a knob or thin its levels"
                )
            levels = np.meshgrid(*(knob.levels for knob in self.knobs), indexing="ij")
            settings = np.stack(levels, axis=-1).reshape(-1, len(self.knobs)).astype(np.float64)
        if settings.ndim != 2 or settings.shape[1] != len(self.knobs) or len(settings) == 0:
            raise InputError(
                f"settings must have the shape (n > 0, {len(self.knobs)}), got {settings.shape}"
            )
        self.settings: FloatArray = settings
        self.settings.setflags(write=False)

    def __reduce__(self) -> tuple[type[Space], tuple[tuple[Knob, ...], FloatArray]]:
        return Space, (self.knobs, self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def __contains__(self, point: object) -> bool:
        return isinstance(point, OperatingPoint) and len(self._rows(point)) > 0

    def point(self, row: int) -> OperatingPoint:
        """The operating point in that row of ``settings``."""
        return OperatingPoint(dict(zip(self.names, self.settings[row].tolist(), strict=True)))

    def index(self, point: OperatingPoint) -> int:
        """The row of ``settings`` that holds ``point``.

        Raises:
            InputError: the point is not one of the allowed settings.
        """
        rows = self._rows(point)
        if not len(rows):
            raise InputError(f"{point} is not one of the {len(self)} allowed settings")
        return int(rows[0])

    def _rows(self, point: OperatingPoint) -> IntArray:
        if set(point) != set(self.names):
            return np.empty(0, dtype=np.intp)
        wanted = [point[name] for name in self.names]
        return np.flatnonzero((self.settings == wanted).all(axis=1))

    @cached_property
    def normalised(self) -> FloatArray:
        """``settings`` over each knob's largest value: shape ``(n, k)``, in (0, 1]."""
        return self.settings / self.settings.max(axis=0)

    @cached_property
    def fastest(self) -> int:
        """The row of the all-max corner: the largest product of normalised knobs.

        Batch size does not count: a larger batch is not a faster setting.
        """
        clocks = [column for column, name in enumerate(self.names) if name != "batch_size"]
        speed = np.log(self.normalised[:, clocks]).sum(axis=1)
        best = np.flatnonzero(speed >= speed.max() - 1e-12)
        if "batch_size" in self.names:
            best = best[np.argsort(self.settings[best, self.names.index("batch_size")])]
        return int(best[0])

    @cached_property
    def has_top(self) -> bool:
        """Whether :attr:`fastest` has every clock at its highest: else it is a mere guess."""
        clocks = [column for column, name in enumerate(self.names) if name != "batch_size"]
        return bool((self.normalised[self.fastest, clocks] == 1.0).all())

    @cached_property
    def slowest(self) -> int:
        """The row of the smallest product of normalised knobs, batch size and all."""
        return int(np.argmin(np.log(self.normalised).sum(axis=1)))

    def limited(self, limits: Mapping[str, tuple[float | None, float | None]]) -> Space:
        """The part within ``limits``: ``{"gpu_hz": (low, high)}``, ends included, None: open.

        Raises:
            InputError: a knob that this space does not have, or nothing is left.
        """
        keep = np.ones(len(self.settings), dtype=np.bool_)
        for name, (low, high) in limits.items():
            if name not in self.names:
                raise InputError(
                    f"limit on unknown knob {name!r}; this device has {', '.join(self.names)}"
                )
            column = self.settings[:, self.names.index(name)]
            within = np.ones_like(keep)
            if low is not None:
                within &= column >= low
            if high is not None:
                within &= column <= high
            if not np.any(within):
                raise InputError(
                    f"the limit on {name} leaves no setting; it goes from "
                    f"{format_knob_value(name, column.min())} to "
                    f"{format_knob_value(name, column.max())}"
                )
            keep &= within
        if not np.any(keep):
            raise InputError("the limits together leave no setting; widen one of them")
        return Space.of_settings(self.names, self.settings[keep])

    def with_knob(self, knob: Knob) -> Space:
        """This space times one more knob."""
        count = len(self.settings) * len(knob.levels)
        if count > MAX_SETTINGS:
            raise InputError(f"{count} settings are more than {MAX_SETTINGS}; limit a knob")
        settings = np.column_stack(
            (
                np.repeat(self.settings, len(knob.levels), axis=0),
                np.tile(np.asarray(knob.levels, dtype=np.float64), len(self.settings)),
            )
        )
        return Space((*self.knobs, knob), settings)

    @classmethod
    def of_settings(cls, names: Sequence[str], settings: FloatArray) -> Space:
        """A space made of just these settings, shape ``(n, k)``; levels are what occurs."""
        knobs = [
            Knob(name, tuple(np.unique(settings[:, column]).tolist()))
            for column, name in enumerate(names)
        ]
        return cls(knobs, settings)
