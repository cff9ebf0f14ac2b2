"""Which settings a sweep measures, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from governor.errors import InputError
from governor.space import FloatArray, OperatingPoint, Space
from governor.units import format_knob_value, parse_knob_value


@dataclass(frozen=True, slots=True)
class Measurement:
    """One thing to do: measure this setting for the so-many-th time.

    Attributes:
        point: None: the system's own governors.
        repeat: 1, 2, ...
    """

    point: OperatingPoint | None
    repeat: int


def thin(space: Space, knobs: Mapping[str, str]) -> Space:
    """The part of ``space`` that is swept; a knob that is not named stays at its largest level.

    Args:
        space: all settings.
        knobs: by name what of its levels: ``"all"``; ``"300MHz:900MHz"``, a range, ends included,
            either may be left out; ``"/3"``, every third, both ends included; ``"4"``, so many,
            evenly spread; ``"306MHz,918MHz"``, these. Empty: every knob is swept.

    Raises:
        InputError: a knob or a level that the space does not have.
    """
    for name in knobs:
        if name not in space.names:
            raise InputError(
                f"--knob {name}: this device has no such knob; choose of {', '.join(space.names)}"
            )
    keep = np.ones(len(space), dtype=np.bool_)
    for column, knob in enumerate(space.knobs):
        levels = np.unique(space.settings[:, column])
        if knob.name in knobs:
            levels = _chosen(knob.name, levels, knobs[knob.name])
        elif knobs:
            levels = levels[-1:]
        keep &= np.isin(space.settings[:, column], levels)
    if not np.any(keep):
        raise InputError("the levels of --knob together name no setting; widen one of them")
    return Space.of_settings(space.names, space.settings[keep])


def _chosen(name: str, levels: FloatArray, wanted: str) -> FloatArray:
    text = wanted.strip()
    if text in ("", "all"):
        return levels
    if ":" in text:
        low, _, high = text.partition(":")
        keep = np.ones(len(levels), dtype=np.bool_)
        if low.strip():
            keep &= levels >= parse_knob_value(name, low)
        if high.strip():
            keep &= levels <= parse_knob_value(name, high)
        if not np.any(keep):
            raise InputError(
                f"--knob {name}={wanted}: no level lies there; they go from "
                f"{format_knob_value(name, levels[0])} to {format_knob_value(name, levels[-1])}"
            )
        return levels[keep]
    if text.startswith("/"):
        step = _count(name, text[1:], wanted)
        return np.union1d(levels[::-1][::step], levels[:1])
    if text.isdecimal() and name.endswith(("_hz", "_w")):
        if (count := _count(name, text, wanted)) > len(levels):
            raise InputError(
                f"--knob {name}={wanted}: there are {len(levels)} levels; a single level has a "
                f"unit, such as {format_knob_value(name, levels[-1]).replace(' ', '')}"
            )
        places = (
            np.linspace(0, len(levels) - 1, count) if count > 1 else np.array([len(levels) - 1])
        )
        return levels[np.round(places).astype(int)]
    return np.unique([_nearest(name, levels, part) for part in text.split(",")])


def _count(name: str, text: str, wanted: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--knob {name}={wanted}: {text!r} is not a count such as 3")
    return int(text)


def _nearest(name: str, levels: FloatArray, text: str) -> float:
    """The level that people write so: clocks are no round numbers."""
    value = parse_knob_value(name, text)
    level = float(levels[np.argmin(np.abs(levels - value))])
    if abs(level - value) > 0.01 * value:
        raise InputError(
            f"--knob {name}: there is no level {text.strip()}; the nearest is "
            f"{format_knob_value(name, level)}"
        )
    return level


def sample(space: Space, count: int, seed: int) -> Space:
    """``count`` settings that fill the space evenly, its fastest among them.

    Halton's sequence (Numer. Math. 2, 1960), scrambled, each point moved to the nearest setting
    that is not taken.
    """
    if count < 1:
        raise InputError(f"--sample must be at least 1, got {count}")
    if count >= len(space):
        return space
    from scipy.stats import qmc  # heavy, and only sampling needs it

    halton: Any = qmc.Halton
    low, high = space.settings.min(axis=0), space.settings.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    places = (space.settings - low) / span
    taken = [space.fastest]
    for place in halton(len(space.knobs), scramble=True, seed=seed).random(count - 1):
        distance = ((places - place) ** 2).sum(axis=1)
        distance[taken] = math.inf
        taken.append(int(np.argmin(distance)))
    return Space.of_settings(space.names, space.settings[np.sort(taken)])


def schedule(space: Space, repeats: int = 1, seed: int = 0) -> list[Measurement]:
    """Every setting ``repeats`` times, the system's own governors among them.

    Each repeat is a fresh random order of all settings, so that slow drift (heat, a battery, a
    background task) spreads over all of them alike instead of along one knob.
    """
    if repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {repeats}")
    random = np.random.default_rng(seed)
    points: list[OperatingPoint | None] = [None]
    points += [space.point(row) for row in range(len(space))]
    return [
        Measurement(points[place], repeat)
        for repeat in range(1, repeats + 1)
        for place in map(int, random.permutation(len(points)))
    ]
