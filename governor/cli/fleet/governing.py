"""One board of the fleet, governed three ways: by its kernel, alone, and with the fleet's store.

A trial is not simulated inference by inference: it is drawn from the emulated physics' own mean
at its setting, with the noise that a window has. So a search takes a fraction of a second, and
all that a policy sees of a board is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from governor.cli.fleet.members import Member
from governor.devices.emulated import EmulatedBoard
from governor.devices.replay import ReplayDevice
from governor.devices.trace import Sweep
from governor.known import ENERGY_TOLERANCE, energy_change
from governor.profile import Entry, Profile, ProfileKey, StoredTrial
from governor.search import Search
from governor.space import OperatingPoint
from governor.store import ProfileStore
from governor.trial import Trial
from policies.background import Background, Donor
from policies.policy import DEFAULT_POLICY, Problem, load_policy

Known = Literal["nothing", "similar", "same"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How each board is governed.

    Attributes:
        trials: that a search may take, the all-max corner included.
        noise: relative standard deviation of a trial's latency and of its energy.
        windows: of equal work that a board runs, the search among them.
    """

    trials: int
    noise: float
    windows: int


@dataclass(frozen=True, slots=True)
class Task:
    """One board to govern; ``store`` is the URL or path of what the fleet knows."""

    member: Member
    rules: Rules
    store: str


@dataclass(frozen=True, slots=True)
class Course:
    """How one way of governing went, by the board's own truth.

    Attributes:
        trials: until a setting was held; 0 for the kernel's governors.
        missed: of them, those that missed the SLO.
        held_j, held_s: joules an item and mean latency of what was held.
        energy_j: joules an item over all windows, the trials among them.
        slo_kept: whether what was held keeps the SLO.
    """

    trials: int
    missed: int
    held_j: float
    held_s: float
    energy_j: float
    slo_kept: bool


@dataclass(frozen=True, slots=True)
class BoardRun:
    """One board, governed each way.

    Attributes:
        rate_hz: items a second under the kernel's governors; the same work is compared.
        known: what the store had when it was switched on: nothing of use, profiles of other
            boards or workloads, or that of its cohort.
        default: the kernel's governors.
        least: the best setting from the first window on, as no one can know it.
        alone: searched without any store.
        shared: started from the store.
        profile: what it leaves there.
    """

    number: int
    wave: int
    cohort: str
    room_c: float
    slo_s: float
    rate_hz: float
    known: Known
    default: Course
    least: Course
    alone: Course
    shared: Course
    profile: Profile


class _Windows(ReplayDevice):
    """Trials of a board whose frames may come at a rate."""

    def __init__(self, sweep: Sweep, noise: float, seed: int, period_s: float | None) -> None:
        super().__init__(sweep, noise, seed)
        self._period_s = period_s or 0.0

    def measure(self, row: int) -> Trial:
        """One window at that row of the space."""
        trial = super().measure(row)
        cycle_s = max(trial.mean_latency_s, self._period_s)
        return replace(trial, duration_s=cycle_s, power_w=trial.energy_j / cycle_s)


def govern(task: Task) -> BoardRun:
    """Govern one board; deterministic by the task and by what is in the store."""
    member, rules, cohort = task.member, task.rules, task.member.cohort
    board = member.board()
    latency_s, energy_j = board.truth()
    sweep = Sweep(str(member.number), cohort.workload, 1, board.space, latency_s, energy_j,
                  energy_j / latency_s)  # fmt: skip
    site = _Site(member, sweep, rules)
    with ProfileStore(task.store) as store:
        profile, similar = store.lookup(cohort.key), store.similar(cohort.key)
    known = [*([Entry(cohort.key, profile)] if profile else []), *similar]
    default = _left_alone(board, cohort.slo_s)
    alone, _ = site.search(None, None)
    shared, left = site.search(_background(cohort.key, known), profile)
    return BoardRun(
        number=member.number,
        wave=member.wave,
        cohort=str(cohort),
        room_c=member.room_c,
        slo_s=cohort.slo_s,
        rate_hz=1 / max(default.held_s, cohort.period_s or 0.0),
        known="same" if profile else "similar" if similar else "nothing",
        default=default,
        least=site.course((), sweep.optimum(cohort.slo_s)),
        alone=alone,
        shared=shared,
        profile=left,
    )


def _left_alone(board: EmulatedBoard, slo_s: float) -> Course:
    latency_s, energy_j = board.true_default()
    return Course(0, 0, energy_j, latency_s, energy_j, latency_s <= slo_s)


def _background(key: ProfileKey, known: Sequence[Entry]) -> Background | None:
    """As a governor tells its policy of what the store knows."""
    donors = tuple(
        Donor(entry.key.board, entry.key.workload, tuple(one.trial for one in entry.profile.trials))
        for entry in known
    )
    return Background(key.board, key.workload, donors) if donors else None


class _Site:
    """A board where it stands, to be searched more than once."""

    def __init__(self, member: Member, sweep: Sweep, rules: Rules) -> None:
        self._member, self._sweep, self._rules = member, sweep, rules

    def search(
        self, background: Background | None, profile: Profile | None
    ) -> tuple[Course, Profile]:
        """Find the setting to hold: how it went, and what is to be kept of it.

        Args:
            background: what is known of other boards and workloads.
            profile: of the cohort. What it held is tried second, and held if it keeps its
                promises; if not, the search goes on.
        """
        cohort, space = self._member.cohort, self._sweep.space
        problem = Problem(space, cohort.slo_s, self._member.seed, background=background)
        search = Search(problem, load_policy(DEFAULT_POLICY)(problem), self._rules.trials)
        device = _Windows(self._sweep, self._rules.noise, self._member.seed, cohort.period_s)

        def measure(point: OperatingPoint) -> None:
            search.record(device.measure(space.index(point)))

        def course(held: OperatingPoint) -> Course:
            rows = [space.index(trial.point) for trial in search.trials if trial.point is not None]
            return self.course(rows, space.index(held))

        measure(space.point(space.fastest))
        if profile is not None:
            known = OperatingPoint(profile.chosen)
            measure(known)
            if _as_promised(search, profile):
                return course(known), profile
        while (proposal := search.next()) is not None:
            measure(proposal.point)
        chosen = search.choose().point
        return course(chosen), self._profile(search, chosen)

    def course(self, tried: Sequence[int], held: int) -> Course:
        """These rows tried, and that one held for the rest of the windows."""
        sweep, slo_s, windows = self._sweep, self._member.cohort.slo_s, self._rules.windows
        held_j = float(sweep.energy_j[held])
        spent_j = sum(float(sweep.energy_j[row]) for row in tried)
        return Course(
            trials=len(tried),
            missed=sum(bool(sweep.latency_s[row] > slo_s) for row in tried),
            held_j=held_j,
            held_s=float(sweep.latency_s[held]),
            energy_j=(spent_j + held_j * (windows - len(tried))) / windows,
            slo_kept=bool(sweep.latency_s[held] <= slo_s),
        )

    def _profile(self, search: Search, chosen: OperatingPoint) -> Profile:
        trials = [one for trial in search.trials if (one := StoredTrial.of(trial)) is not None]
        return Profile(
            levels={knob.name: list(knob.levels) for knob in self._sweep.space.knobs},
            trials=trials,
            chosen=dict(chosen),
            slo_s=self._member.cohort.slo_s,
        )


def _as_promised(search: Search, profile: Profile) -> bool:
    """Whether the profile's setting, just tried, is one to hold.

    Boards of a kind differ in what they draw, less in what a setting saves: it must save as
    much against the fastest setting as it did on the board that found it.
    """
    choice = search.choose()
    before = profile.chosen_trial
    if before is None or choice.point != OperatingPoint(before.point) or not choice.feasible:
        return False
    here, here_se = energy_change(search.trials[-1], search.trials[0])
    there, there_se = energy_change(before.trial, profile.trials[0].trial)
    return here - there < ENERGY_TOLERANCE + 2 * math.hypot(here_se, there_se)
