"""What there is to govern on this machine, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

from governor.devices.device import Clock, MonotonicClock
from governor.devices.ina3221 import Rails, find_rails
from governor.devices.jetson_facts import facts
from governor.devices.jtop import JtopReading, read_jtop
from governor.devices.linux import Parts, find_parts, refusals
from governor.devices.nvpmodel import present_mode
from governor.devices.thermal import THROTTLING, Temperatures, Throttling
from governor.errors import DeviceError
from governor.lease.client import ask_daemon, may_write
from governor.lease.custody import ON_REQUEST
from governor.lease.jetson_board import Board, why_no_jetson
from governor.lease.jetson_controls import CappedClock, JetsonControl, Missing, Survey, survey

WATCHED_S = 2.0
"""How long the power sensors are watched for their refresh: four refreshes of an INA3221."""
LOOK_S = 0.02
AGREE = 0.25
"""jetson-stats and the kernel's files are read up to a second apart, under a load that moves."""
DAEMON = "sudo systemctl enable --now energy-governor"
CONTAINERS = (".dockerenv", "run/.containerenv")
CONTAINER_FLAGS = (
    "start the container with --privileged -v /sys:/sys "
    "-v /proc/device-tree:/proc/device-tree:ro "
    "-v /etc/nv_tegra_release:/etc/nv_tegra_release:ro; or run the daemon on the host and start "
    "the container with -v /run/energy-governor:/run/energy-governor"
)


@dataclass(frozen=True)
class KnobState:
    """A knob that can be set.

    Attributes:
        levels: ascending, within the present power mode.
        now: the level in force, None if this user may not see it.
        files: what setting it writes.
        writers: who may: ``this user``, ``root``, ``daemon``.
    """

    name: str
    levels: tuple[float, ...]
    now: float | None
    files: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()


@dataclass(frozen=True)
class RailState:
    """A power rail.

    Attributes:
        feeds: what, as far as it is known.
        inside: another rail that already counts this one.
        in_total: whether it is added up to the total.
    """

    name: str
    chip: str
    power_w: float | None
    feeds: str
    inside: str
    in_total: bool


@dataclass(frozen=True)
class Problem:
    """Something that is missing, and the command or setting that mends it."""

    what: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that ``governor doctor`` says.

    Attributes:
        machine: facts by name, such as ``board`` and ``power mode``.
        total_rail: what is charged; empty: nothing can be.
        total_covers: what that is the power of.
        stated_refresh_s: seconds between two fresh readings, as the driver says or as assumed.
        measured_refresh_s: the same as seen here; None: nothing changed while it was watched.
        access: how clocks would be set; empty: not at all.
        jetson_stats: what it says, and where that differs from the kernel's files.
        looked_for: reasons by backend that was refused.
    """

    machine: Mapping[str, str]
    knobs: Sequence[KnobState] = ()
    rails: Sequence[RailState] = ()
    total_rail: str = ""
    total_covers: str = ""
    total_w: float | None = None
    stated_refresh_s: float | None = None
    measured_refresh_s: float | None = None
    temperature_c: Mapping[str, float] = field(default_factory=dict[str, float])
    throttle_events: Mapping[str, int] = field(default_factory=dict[str, int])
    access: str = ""
    jetson_stats: Sequence[str] = ()
    looked_for: Mapping[str, str] = field(default_factory=dict[str, str])
    problems: Sequence[Problem] = ()

    @property
    def governable(self) -> bool:
        """Whether there is a knob, someone who may set it, and power to judge it by."""
        return bool(self.knobs and self.access and self.total_rail)


def diagnose(root: Path = Path("/")) -> Diagnosis:
    """Look at the machine whose ``sys``, ``proc`` and ``etc`` are under ``root``."""
    found = survey(root)
    return _of_linux(root) if found is None else _of_jetson(root, found)


# A Jetson ----------------------------------------------------------------------------------


def _of_jetson(root: Path, found: Survey) -> Diagnosis:
    board = found.board
    access, problems = _access(root)
    knobs = _daemon_knobs() if access == "daemon" else [_knob(each) for each in found.controls]
    power = _Power.of(root, board)
    events = Throttling(root).read(0.0)
    says, differs = _jetson_stats(root, board, power.power_w)
    return Diagnosis(
        machine=facts(root, board),
        knobs=knobs,
        rails=power.rails,
        total_rail=power.total_rail,
        total_covers=board.total_covers,
        total_w=power.power_w.get(power.total_rail),
        stated_refresh_s=power.stated_refresh_s,
        measured_refresh_s=power.measured_refresh_s,
        temperature_c=Temperatures(root).read(0.0),
        throttle_events=events,
        access=access,
        jetson_stats=says,
        problems=[
            *problems, *_missing(found, knobs), *_heat(root, events), *power.problems, *differs
        ],
    )  # fmt: skip


def _heat(root: Path, events: Mapping[str, int]) -> list[Problem]:
    if not events.get("thermal"):
        return []
    mode = present_mode(root)
    again = f"sudo nvpmodel -m {mode.id}" if mode is not None else "sudo nvpmodel -m MODE"
    fix = f"let it cool first; the power mode's own limits are set again by: {again}"
    return [Problem(THROTTLING, fix)]


def _missing(found: Survey, knobs: Sequence[KnobState]) -> list[Problem]:
    named = {knob.name for knob in knobs}
    problems = [
        Problem(f"{knob}: {missing.reason}", missing.fix)
        for knob, missing in found.missing.items()
        if knob not in named
    ]
    capped = [each for each in found.controls if isinstance(each, CappedClock)]
    for control in capped if any(knob.files for knob in knobs) else ():
        why = control.not_pinned or Missing("")
        what = f"{control.name}: it can be capped but not pinned; {why.reason}"
        problems.append(Problem(what, why.fix))
    return problems


@dataclass(frozen=True)
class _Power:
    """What the power sensors say; empty, with a problem, where they cannot be read."""

    rails: Sequence[RailState] = ()
    power_w: Mapping[str, float] = field(default_factory=dict[str, float])
    total_rail: str = ""
    stated_refresh_s: float | None = None
    measured_refresh_s: float | None = None
    problems: Sequence[Problem] = ()

    @classmethod
    def of(cls, root: Path, board: Board) -> _Power:
        try:
            rails = find_rails(root, board)
        except DeviceError as error:
            fix = CONTAINER_FLAGS if _contained(root) else ""
            return cls(problems=[Problem(f"power: {error}", fix)])
        power_w, refresh_s = watch(rails, WATCHED_S, MonotonicClock())
        states = _rail_states(rails, board, power_w)
        return cls(states, power_w, rails.total_rail, rails.refresh_s, refresh_s)


def _knob(clock: JetsonControl) -> KnobState:
    try:
        now = clock.read()
    except (OSError, ValueError):
        now = None
    here = all(os.access(path, os.W_OK) for path in clock.files)
    writers = ("this user", "root") if here and os.geteuid() else ("root",)
    return KnobState(clock.name, clock.levels, now, tuple(map(str, clock.files)), writers)


def _daemon_knobs() -> list[KnobState]:
    """The daemon may look at what this user may not, such as the memory clock."""
    try:
        levels = cast(Mapping[str, Sequence[float]], ask_daemon("hello")["knobs"])
        now = cast(Mapping[str, float], ask_daemon("read")["read"])
    except (DeviceError, KeyError):
        return []
    return [
        KnobState(name, tuple(levels[name]), now.get(name), (), ("root", "daemon"))
        for name in levels
        if name not in ON_REQUEST
    ]


def _rail_states(rails: Rails, board: Board, power_w: Mapping[str, float]) -> list[RailState]:
    return [
        RailState(
            name=rail.label,
            chip=rail.chip,
            power_w=power_w.get(rail.label),
            feeds=board.feeds.get(rail.label, ""),
            inside=board.inside.get(rail.label, ""),
            in_total=rail.label in board.total,
        )
        for rail in rails.rails
    ]


def watch(rails: Rails, seconds: float, clock: Clock) -> tuple[dict[str, float], float | None]:
    """The last watts by rail, and the median seconds between changes of any of them."""
    power_w = rails.read()
    end_s = clock.now() + seconds
    changes_s: list[float] = []
    while clock.now() < end_s:
        clock.sleep(LOOK_S)
        before, power_w = power_w, rails.read()
        if power_w != before:
            changes_s.append(clock.now())
    rails.close()
    gaps_s = [after - before for before, after in pairwise(changes_s)]
    return power_w, statistics.median(gaps_s) if gaps_s else None


def _access(root: Path) -> tuple[str, list[Problem]]:
    """How clocks would be set here, and what stands in the way."""
    if may_write(root):
        return "this process", []
    problems: list[Problem] = []
    if os.statvfs(root / "sys").f_flag & os.ST_RDONLY:
        fix = CONTAINER_FLAGS if _contained(root) else f"sudo mount -o remount,rw {root / 'sys'}"
        problems.append(Problem(f"{root / 'sys'} is mounted read-only", fix))
    if root != Path("/"):
        return "", [*problems, Problem(f"this user may not write under {root}", "run as root")]
    try:
        ask_daemon("status")
    except DeviceError as error:
        return "", [*problems, Problem(str(error), DAEMON)]
    return "daemon", []


def _contained(root: Path) -> bool:
    return any((root / mark).exists() for mark in CONTAINERS)


# jetson-stats ------------------------------------------------------------------------------


def _jetson_stats(
    root: Path, board: Board, power_w: Mapping[str, float]
) -> tuple[list[str], list[Problem]]:
    """What jetson-stats says, and where it disagrees."""
    if root != Path("/"):
        return ["not asked: it knows only the machine that it runs on"], []
    try:
        reading = read_jtop()
    except DeviceError as error:
        return [f"not used: {error}"], []
    return agreement(root, board, reading, power_w)


def agreement(
    root: Path, board: Board, reading: JtopReading, power_w: Mapping[str, float]
) -> tuple[list[str], list[Problem]]:
    """What jetson-stats says against what the kernel's files say, and where they differ."""
    says = [f"version {reading.version}, power mode {reading.mode or 'none'}"]
    says += [f"fan {name} at {percent:g} %" for name, percent in reading.fan_percent.items()]
    problems: list[Problem] = []
    mode = present_mode(root)
    if mode is not None and mode.name and reading.mode and mode.name != reading.mode:
        problems.append(
            Problem(f"power mode: nvpmodel's files say {mode}, jetson-stats {reading.mode}")
        )
    for rail, watts in reading.power_w.items():
        ours = power_w.get(rail)
        if ours is None:
            says.append(f"{rail} {watts:.2f} W, not seen in the kernel's files")
        elif abs(watts - ours) > AGREE * max(watts, ours, 1.0):
            problems.append(
                Problem(
                    f"{rail}: {ours:.2f} W by the kernel's files, {watts:.2f} W by jetson-stats"
                )
            )
        else:
            says.append(f"{rail} {watts:.2f} W, agrees with {ours:.2f} W")
    total_w = sum(reading.power_w.get(rail, 0.0) for rail in board.total)
    if reading.total_w is not None and reading.total_w > 1.01 * total_w > 0:
        says.append(
            f"its total of {reading.total_w:.2f} W counts a rail twice, {total_w:.2f} W is right"
        )
    return says, problems


# Another machine ---------------------------------------------------------------------------


def _of_linux(root: Path) -> Diagnosis:
    parts = find_parts(root, os.environ)
    access, problems = _access(root) if parts.knobs else ("", [])
    return Diagnosis(
        machine=_linux_machine(parts),
        knobs=_linux_knobs(parts, access),
        total_rail="total" if parts.sources else "",
        total_covers=", ".join(source.description for source in parts.sources),
        stated_refresh_s=max((source.refresh_s for source in parts.sources), default=None),
        access=access,
        looked_for={"jetson": why_no_jetson(root), **refusals(parts)},
        problems=problems,
    )


def _linux_machine(parts: Parts) -> dict[str, str]:
    facts = {"machine": "no Jetson", "cpu": parts.cpu.description if parts.cpu else ""}
    gpus = parts.gpus.gpus if parts.gpus else ()
    facts |= {f"gpu {gpu.place}": gpu.name for gpu in gpus}
    return {name: fact for name, fact in facts.items() if fact}


def _linux_knobs(parts: Parts, access: str) -> list[KnobState]:
    states: list[KnobState] = []
    for shared in parts.knobs:
        try:
            now = shared.gather({each.name: each.read() for each in shared.controls}, None)
        except (OSError, ValueError):
            now = None
        writers = ("root", *(["daemon"] if access == "daemon" else []))
        levels = shared.levels({each.name: each.levels for each in shared.controls})
        states.append(KnobState(shared.name, levels, now, (), writers))
    return states
