"""The emulated boards of a fleet: what they are, where they stand and what they run.

Boards of one kind differ: no two dies leak and switch alike. How much they scatter is assumed,
as no one publishes it for Jetson; leakage differs most, as on all silicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from governor.devices.emulated import EmulatedBoard
from governor.devices.emulated.hardware import Board, Domain, load_board
from governor.profile import ProfileKey, fingerprint_of
from governor.units import format_duration

KINDS = ("nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin")

ROOM_C = (5.0, 45.0)
"""From a cold store to a cabinet in the sun."""

LEAKAGE, VOLTAGE, SWITCHING, UPKEEP, BANDWIDTH = 0.35, 0.06, 0.04, 0.04, 0.01
"""Standard deviations from board to board, relative: of leakage, of how far the voltage rises
above its floor, of the energy of work, of what memory and the rest draw always, and of the
bandwidth that the memory reaches."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What a board runs.

    Attributes:
        name: for people.
        workload: a name of the emulator's.
        pace: a frame arrives every so many latencies of the kind at all-max; None: a closed loop.
        bound: the latency SLO, in the same unit.
    """

    name: str
    workload: str
    pace: float | None
    bound: float


DUTIES = (
    Duty("camera", "yolov8n-trt", 1.5, 1.5),
    Duty("watch", "mobilenet-v2", 3.0, 3.0),
    Duty("server", "resnet-50-trt", None, 1.3),
)
"""A camera that leaves little rest, one that leaves much, and a server that always has work."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Boards of one kind that run one workload within one bound.

    Attributes:
        period_s: between frames; None: a closed loop.
        slo_s: the same bound for all of them, as one program brings it.
    """

    kind: str
    duty: str
    workload: str
    period_s: float | None
    slo_s: float

    def __str__(self) -> str:
        return f"{self.kind} {self.duty}"

    @property
    def key(self) -> ProfileKey:
        """What its profile is kept under. A store takes kinds for boards: one tells not another."""
        pace = "" if self.period_s is None else f" every {format_duration(self.period_s)}"
        return ProfileKey(
            board=f"emulated:{self.kind}",
            space=fingerprint_of(EmulatedBoard(self.kind).space),
            workload=self.workload + pace,
            slo=f"<= {format_duration(self.slo_s)}",
        )


@dataclass(frozen=True, slots=True)
class Member:
    """One board of the fleet.

    Attributes:
        wave: the number of those that were switched on together.
        seed: of its silicon and of the noise of its trials.
    """

    number: int
    wave: int
    cohort: Cohort
    room_c: float
    seed: int

    def board(self) -> EmulatedBoard:
        """The board itself, of its own silicon."""
        cohort = self.cohort
        return EmulatedBoard(
            silicon(load_board(cohort.kind), self.seed),
            cohort.workload,
            period_s=cohort.period_s,
            ambient_c=self.room_c,
        )


@cache
def cohorts() -> tuple[Cohort, ...]:
    """Every kind with every duty; times are round, as people write them."""
    return tuple(_cohort(kind, duty) for kind in KINDS for duty in DUTIES)


def _cohort(kind: str, duty: Duty) -> Cohort:
    nominal = EmulatedBoard(kind, duty.workload)
    latency_s = nominal.true_latency_s(nominal.space.point(nominal.space.fastest))
    period_s = None if duty.pace is None else _round(duty.pace * latency_s)
    return Cohort(kind, duty.name, duty.workload, period_s, _round(duty.bound * latency_s))


def _round(seconds: float) -> float:
    return float(f"{seconds:.2g}")


def members(boards: int, waves: int, seed: int) -> list[Member]:
    """The fleet, wave by wave; the same for the same arguments."""
    random = np.random.default_rng([seed, boards])
    choices = cohorts()
    return [
        Member(
            number=number,
            wave=number * waves // boards,
            cohort=choices[int(random.integers(len(choices)))],
            room_c=round(float(random.uniform(*ROOM_C)), 1),
            seed=int(random.integers(2**31)),
        )
        for number in range(boards)
    ]


def silicon(kind: Board, seed: int) -> Board:
    """A board of this kind as it comes from the factory."""
    random = np.random.default_rng([seed, 7])

    def scatter(sd: float) -> float:
        """A factor about 1; log-normal, and never of the far tails."""
        return float(np.exp(sd * np.clip(random.standard_normal(), -3, 3)))

    leakage, voltage, work = scatter(LEAKAGE), scatter(VOLTAGE), scatter(SWITCHING)

    def die(domain: Domain) -> dict[str, Any]:
        # CPU and GPU are on one die: what it is like, both are.
        return {
            "leakage_w": domain.leakage_w * leakage,
            "v_top": 1 + (domain.v_top - 1) * voltage * scatter(VOLTAGE / 2),
        }

    gpu, memory = kind.gpu, kind.memory
    upkeep = scatter(UPKEEP)
    return replace(
        kind,
        base_w=kind.base_w * scatter(UPKEEP),
        cpu=replace(
            kind.cpu,
            core_w_per_ghz=kind.cpu.core_w_per_ghz * work,
            idle_w_per_ghz=kind.cpu.idle_w_per_ghz * work,
            **die(kind.cpu),
        ),
        gpu=replace(
            gpu,
            busy_w_per_ghz=gpu.busy_w_per_ghz * work,
            idle_w_per_ghz=gpu.idle_w_per_ghz * work,
            pj_per_flop={name: pj * work for name, pj in gpu.pj_per_flop.items()},
            pj_per_byte=gpu.pj_per_byte * work,
            **die(gpu),
        ),
        memory=replace(
            memory,
            efficiency=min(memory.efficiency * scatter(BANDWIDTH), 1.0),
            soc_w=_times(memory.soc_w, upkeep),
            dram_w=_times(memory.dram_w, upkeep),
        ),
    )


def _times(values: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple(value * factor for value in values)
