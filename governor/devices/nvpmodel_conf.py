"""Adds a power mode to an ``nvpmodel.conf``, and keeps every line that is there.

The file first names what can be set (``< PARAM TYPE=CLOCK NAME=GPU >`` and the kernel's file of
each argument), then each mode (``< POWER_MODEL ID=0 NAME=MAXN >`` and lines ``PARAM ARG value``).
Which parameter is the CPU's, the GPU's or the memory's clock is told by the kernel's files, since
their names differ from board to board. Nothing is written here and no kernel file is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from governor.errors import InputError

# Shipped files leave out the blank after < in places; headers start in the first column.
_HEADER = re.compile(r"<\s*([A-Z_]+)\s*([^>]*)>")
_NAME = re.compile(r"[A-Za-z0-9_]+")

Clock = Literal["cpu", "gpu", "emc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The clocks that a mode allows at most, in hertz."""

    cpu_hz: float
    gpu_hz: float
    emc_hz: float

    def value(self, clock: Clock) -> int:
        """As the file has it: kilohertz for the CPU, hertz for the others."""
        return round(self.cpu_hz / 1e3 if clock == "cpu" else getattr(self, f"{clock}_hz"))


@dataclass(slots=True)
class _Section:
    """A header and the lines up to the next; ``start`` and ``end`` are line numbers."""

    kind: str
    fields: dict[str, str]
    start: int
    end: int = 0
    lines: list[str] = field(default_factory=list[str])


def add_mode(conf: bytes, base: str, name: str, caps: Caps, comment: str) -> tuple[bytes, int]:
    """The file with one more mode: that called ``base`` with other caps.

    Cores, power gating and all that ``caps`` does not name stay as in ``base``; a minimum
    above its new cap comes down to it.

    Args:
        conf: the file's content; all its lines are kept, byte for byte.
        name: of the new mode; letters, digits and ``_``.
        comment: one line that is written before it.

    Returns:
        The new content and the mode's number, one above the highest there is.

    Raises:
        InputError: the file is no ``nvpmodel.conf``, has no such mode or already has the new
            one, or the mode does not set all three clocks.
    """
    lines = conf.splitlines(keepends=True)
    sections = list(_sections([line.decode("utf-8", "surrogateescape") for line in lines]))
    modes = [one for one in sections if one.kind == "POWER_MODEL" and _is_mode(one)]
    if not modes:
        raise InputError("no < POWER_MODEL ID=... NAME=... > in it; give a board's nvpmodel.conf")
    names = [mode.fields["NAME"] for mode in modes]
    if base not in names:
        raise InputError(f"it has no power mode {base!r}; choose one of {', '.join(names)}")
    if not _NAME.fullmatch(name):
        raise InputError(f"mode name {name!r} may hold letters, digits and _ only")
    if name in names:
        raise InputError(f"it already has a power mode {name!r}; give another name")
    number = 1 + max(int(mode.fields["ID"]) for mode in modes)
    copied = _with_caps(modes[names.index(base)], _clocks(sections), caps)

    last = max(mode.end for mode in modes)
    ending = b"\r\n" if lines[modes[0].start].endswith(b"\r\n") else b"\n"
    header = f"< POWER_MODEL ID={number} NAME={name} >"
    block = [f"# {' '.join(comment.split())}", header, *copied]
    added = [b"" if lines[last].endswith(b"\n") else ending, ending]
    added += [line.encode("utf-8", "surrogateescape") + ending for line in block]
    return b"".join([*lines[: last + 1], *added, *lines[last + 1 :]]), number


def _sections(lines: Sequence[str]) -> Iterator[_Section]:
    section: _Section | None = None
    for number, line in enumerate(lines):
        if match := _HEADER.match(line):
            if section is not None:
                yield section
            pairs = (part.partition("=") for part in match[2].split())
            fields = {key: value for key, _, value in pairs}
            section = _Section(match[1], fields, number, number)
        elif section is not None and line.strip() and not line.lstrip().startswith("#"):
            section.end = number
            section.lines.append(line.strip())
    if section is not None:
        yield section


def _is_mode(section: _Section) -> bool:
    return section.fields.get("ID", "").isdecimal() and "NAME" in section.fields


def _clocks(sections: Sequence[_Section]) -> dict[str, Clock]:
    """Which parameter of the file is the clock of what."""
    found: dict[str, Clock] = {}
    for section in sections:
        if section.kind == "PARAM" and section.fields.get("TYPE") == "CLOCK":
            for line in section.lines:
                argument, _, path = line.partition(" ")
                clock = _clock_of(path.strip()) if argument.startswith("MAX_FREQ") else None
                if clock and "NAME" in section.fields:
                    found[section.fields["NAME"]] = clock
    return found


def _clock_of(path: str) -> Clock | None:
    """The clock that a file of the kernel caps; None for those of other engines."""
    if path.startswith("/sys/devices/system/cpu/"):
        return "cpu"
    if re.search(r"/nvpmodel_\w+_cap/emc(_iso_cap)?$", path):
        return "emc"
    if re.search(r"(gpu|gm20b|gp10b|gv11b|ga10b|gpu-gpc-0)(/devfreq\w*)?.*/max_freq$", path):
        return "gpu"
    return None


def _with_caps(mode: _Section, clocks: dict[str, Clock], caps: Caps) -> list[str]:
    copied: list[str] = []
    capped: set[Clock] = set()
    for line in mode.lines:
        parameter, argument, value = (*line.split(), "", "", "")[:3]
        clock = clocks.get(parameter)
        if clock and argument.startswith("MAX_FREQ"):
            capped.add(clock)
            copied.append(f"{parameter} {argument} {caps.value(clock)}")
        elif clock and argument.startswith("MIN_FREQ") and _above(value, caps.value(clock)):
            copied.append(f"{parameter} {argument} {caps.value(clock)}")
        else:
            copied.append(line)
    missing = sorted({"cpu", "gpu", "emc"} - capped)
    if missing:
        raise InputError(
            f"its power mode {mode.fields['NAME']!r} caps no clock of {' and '.join(missing)}; "
            "choose a mode that caps all three"
        )
    return copied


def _above(value: str, cap: int) -> bool:
    return value.isdecimal() and int(value) > cap
