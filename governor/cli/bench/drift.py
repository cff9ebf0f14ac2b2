"""What the governor makes of a change, and of none: on emulated boards in virtual time.

Each case runs until a point is held, changes something, and runs until one is held again. Then
nothing changes for hours: what the governor does then is a false alarm. Inference times scatter
as those of the emulation, or as measured ones that are drawn from a file in blocks.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from governor.cli.replay import result_console, result_table
from governor.controller import Controller
from governor.decision import Decision
from governor.devices.emulated import EmulatedBoard
from governor.devices.emulated.noise import Noise, ResampledNoise
from governor.errors import GovernorError, InputError, problem_of
from governor.progress import progress, with_progress
from governor.slo import LatencySLO, design_effect
from governor.trial import Span
from governor.units import format_duration
from policies.policy import DEFAULT_POLICY, load_policy

LOOK_S = 0.1
BEFORE_S = 30.0
"""A point has been held for so long when something changes."""
QUIET_S = 20.0
"""A point that has been held for so long is what the governor has settled on."""
PATIENCE_S = 300.0
NOTICED = ("drift", "fallback", "bound")
STRETCH_HOURS = 2
"""Of steady running, each with a search, a board, a bound and a noise of its own."""
BOARDS = ("nano", "xavier-nx")
MULTIPLES = (1.05, 2.0)
"""Bounds over the latency at the fastest clocks, drawn evenly."""
MOST_WINDOWS = 3
MOST_ALARMS_A_DAY = 1.0
LEAST_GOOD_HOURS = 0.99

# Loops -------------------------------------------------------------------------------------


class Loop:
    """A board whose inferences a controller sees, as under a runtime, and what it decides.

    Attributes:
        decisions: so far.
        spans: inferences so far.
        windows: finished so far at points that were held.
    """

    def __init__(self, board: EmulatedBoard, slo: str, seed: int, policy: str) -> None:
        self.board = board
        self.controller = Controller(
            board.space, LatencySLO.parse(slo), load_policy(policy), board.info, seed=seed
        )
        self.decisions: list[Decision] = []
        self.spans: list[Span] = []
        self.windows = 0
        self._held = self.controller.held
        self._fresh: list[Span] = []
        self._next_look_s = 0.0
        self.controller.applied(self.now_s)

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self.board.clock.now()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """For so long, or less; returns whether ``until`` came true."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self._fresh += self.board.frames(1)
            if self.now_s >= self._next_look_s:
                self._look()
                if until():
                    return True
        return False

    def hold(self) -> None:
        """Until a point is held that is not left for a while.

        Raises:
            GovernorError: there never is.
        """
        until_s = self.now_s + PATIENCE_S
        while self.now_s < until_s:
            self.run(until_s - self.now_s, until=lambda: self.controller.phase == "hold")
            if not self.run(QUIET_S, until=lambda: self.controller.phase != "hold"):
                return
        raise GovernorError(f"on {self.board.info.name} no point was held for {QUIET_S:g} s")

    def _look(self) -> None:
        board, controller = self.board, self.controller
        self._next_look_s = self.now_s + LOOK_S
        set_point = None if controller.target is None else board.read()
        decision = controller.observe(self.now_s, self._fresh, board.sample(), set_point)
        self.spans += self._fresh
        self._fresh = []
        if controller.held is not self._held:
            self._held = controller.held
            self.windows += 1
        if decision is not None:
            self.decisions.append(decision)
            if decision.change:
                self._set(decision)

    def _set(self, decision: Decision) -> None:
        actual = None
        if decision.point is None:
            self.board.release()
        else:
            actual = self.board.apply(decision.point.only(self.board.space.names))
        self.controller.applied(self.now_s, actual)

    @property
    def misses(self) -> int:
        """Inferences so far that took longer than the bound."""
        return self.controller.seen.violations

    @property
    def excess(self) -> float:
        """Energy at what is set over that of the best point, less 1, both as the physics say."""
        board, target = self.board, self.controller.target
        energy_j = board.true_default()[1] if target is None else board.true_energy_j(target)
        return energy_j / board.optimum(self.controller.slo_s)[2] - 1.0


# Changes -----------------------------------------------------------------------------------

Change = Callable[[Loop], None]
BOUND_WORK = "inception-v4"
"""On a nano, 250 ms is within a tenth of the fastest, and 700 ms leaves all settings open."""


def _work(workload: str, batch_size: int = 1) -> Change:
    return lambda loop: loop.board.set_workload(workload, batch_size)


def _neighbour(cpu_cores: float = 0.0, gpu: float = 0.0, memory: float = 0.0) -> Change:
    return lambda loop: loop.board.set_contention(cpu_cores, gpu, memory)


def _camera(rate_hz: float) -> Change:
    return lambda loop: loop.board.set_period(1.0 / rate_hz)


def _supply(share: float) -> Change:
    return lambda loop: loop.board.set_supply(share)


def _bound(slo: str) -> Change:
    return lambda loop: loop.controller.bind(LatencySLO.parse(slo))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something that changes.

    Attributes:
        changes: one after another, a point held before each; what is measured is the last.
        matters: False where the best point stays the best, so that nothing need be noticed.
    """

    name: str
    changes: tuple[Change, ...]
    board: str = "xavier-nx"
    workload: str = "yolov8n"
    slo: str = "70ms"
    period_s: float | None = None
    matters: bool = True


CASES = (
    Case(name="network, heavier", changes=(_work("resnet-101"),)),
    Case(name="network, lighter", changes=(_work("mobilenet-v2"),)),
    Case(name="input, 640 to 320 px", changes=(_work("yolov8n-320"),)),
    Case(name="batches, 1 to 2", slo="120ms", changes=(_work("yolov8n", 2),)),
    Case(name="neighbour, 4 CPU cores", changes=(_neighbour(cpu_cores=4.0),)),
    Case(name="neighbour, 20 % of GPU", changes=(_neighbour(gpu=0.2),)),
    Case(name="neighbour, 10 GB/s", changes=(_neighbour(memory=10e9),)),
    Case(name="supply sags to 70 %", matters=False, changes=(_supply(0.7),)),
    Case(name="supply sags to 40 %", slo="50ms", changes=(_supply(0.4),)),
    Case(name="camera, 10 to 15 Hz", slo="60ms", period_s=0.1, changes=(_camera(15.0),)),
    Case(name="camera, 15 to 10 Hz", slo="60ms", period_s=1 / 15, changes=(_camera(10.0),)),
    Case(
        name="bound, 250 to 700 ms", board="nano", workload=BOUND_WORK, slo="250ms",
        changes=(_bound("700ms"),),
    ),
    Case(
        name="bound, 700 to 250 ms", board="nano", workload=BOUND_WORK, slo="700ms",
        changes=(_bound("250ms"),),
    ),
    Case(
        name="bound, 250, 700, 250 ms", board="nano", workload=BOUND_WORK, slo="250ms",
        changes=(_bound("700ms"), _bound("250ms")),
    ),
    Case(
        name="phases A B A, B heavier", workload="mobilenet-v2",
        changes=(_work("resnet-101"), _work("mobilenet-v2")),
    ),
    Case(
        name="phases A B A B", workload="mobilenet-v2",
        changes=(_work("resnet-101"), _work("mobilenet-v2"), _work("resnet-101")),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reaction:
    """What became of one change.

    Attributes:
        noticed: the decision's kind; None: nothing was.
        windows: in which window after the change; the one it falls into is the first.
        noticed_s, held_s: after the change; ``held_s`` NaN where nothing was noticed.
        misses, inferences: until a point was held again.
        trials: until then.
        excess: energy of the point that is held then over the best one's, less 1.
    """

    noticed: str | None
    windows: int
    noticed_s: float
    held_s: float
    misses: int
    inferences: int
    trials: int
    excess: float


def react(case: Case, seed: int = 0, noise: Noise | None = None,
          policy: str = DEFAULT_POLICY) -> Reaction:  # fmt: skip
    """Run a case once."""
    board = EmulatedBoard(
        case.board, case.workload, seed=seed, period_s=case.period_s, noise=noise or True
    )
    loop = Loop(board, case.slo, seed, policy)
    for change in case.changes[:-1]:
        loop.hold()
        change(loop)
        loop.run(BEFORE_S, until=lambda: loop.controller.phase != "hold")
    loop.hold()
    loop.run(BEFORE_S - QUIET_S)
    return _reaction(loop, case.changes[-1])


def _reaction(loop: Loop, change: Change) -> Reaction:
    start_s, decided, windows = loop.now_s, len(loop.decisions), loop.windows
    inferences, misses, trials = len(loop.spans), loop.misses, len(loop.controller.trials)
    change(loop)

    def noticed() -> list[Decision]:
        return [each for each in loop.decisions[decided:] if each.kind in NOTICED]

    if not loop.run(60.0, until=lambda: bool(noticed())):
        return Reaction(
            None, loop.windows - windows, math.nan, math.nan, loop.misses - misses,
            len(loop.spans) - inferences, 0, loop.excess,
        )  # fmt: skip
    first = noticed()[0]
    windows = loop.windows - windows + (first.kind != "drift")
    loop.run(PATIENCE_S, until=lambda: loop.controller.phase == "hold")
    reaction = Reaction(
        first.kind, windows, first.time_s - start_s, loop.now_s - start_s, loop.misses - misses,
        len(loop.spans) - inferences, len(loop.controller.trials) - trials, loop.excess,
    )  # fmt: skip
    loop.hold()
    return reaction


# Nothing changes ---------------------------------------------------------------------------


@dataclass(slots=True)
class Steadiness:
    """What became of hours in which nothing changed.

    Attributes:
        hours: of holding.
        alarms: what the governor said then, of drift or a burning budget.
        kept: hours in which the percentile was within the bound.
        misses, inferences: in these hours.
    """

    hours: int = 0
    alarms: list[str] = field(default_factory=list[str])
    kept: int = 0
    misses: int = 0
    inferences: int = 0

    @property
    def alarms_a_day(self) -> float:
        """False alarms in 24 hours."""
        return 24.0 * len(self.alarms) / self.hours


def steady(
    hours: int, noises: Sequence[Sequence[float]] = (), seed: int = 0, policy: str = DEFAULT_POLICY
) -> Steadiness:
    """Search and hold, for so many hours in all.

    Args:
        noises: series of measured inference times to draw from; the emulation's where empty.
    """
    seen, rng = Steadiness(), np.random.default_rng([seed, 5])
    with progress("Holding", hours) as tell:
        while seen.hours < hours:
            number = seen.hours // STRETCH_HOURS
            noise = (
                ResampledNoise(noises[int(rng.integers(len(noises)))], number) if noises else True
            )
            board = EmulatedBoard(BOARDS[number % len(BOARDS)], seed=seed + number, noise=noise)
            loop = Loop(board, f"{rng.uniform(*MULTIPLES):.3f}x", seed + number, policy)
            loop.hold()
            for _ in range(min(STRETCH_HOURS, hours - seen.hours)):
                _hour(loop, seen)
                tell(seen.hours)
    return seen


def _hour(loop: Loop, seen: Steadiness) -> None:
    decided = len(loop.decisions)
    loop.spans.clear()
    loop.run(3600.0)
    latencies_s = np.array([span.latency_s for span in loop.spans])
    seen.hours += 1
    seen.kept += bool(np.quantile(latencies_s, loop.controller.slo.percentile)
                      <= loop.controller.slo_s)  # fmt: skip
    seen.misses += int((latencies_s > loop.controller.slo_s).sum())
    seen.inferences += len(latencies_s)
    seen.alarms += [each.reason for each in loop.decisions[decided:] if each.kind in NOTICED]


# Measured times ----------------------------------------------------------------------------


def read_latencies(path: Path) -> list[list[float]]:
    """Series of single inference times from a CSV: one for each value of the columns but two.

    These are ``latency_ms`` and, where there is one, ``cycle``, which numbers the rows of a
    series. Series too short to draw from are left out.

    Raises:
        InputError: the file cannot be read or used; names line and column.
    """
    series: dict[tuple[str, ...], list[float]] = defaultdict(list)
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if "latency_ms" not in (reader.fieldnames or ()):
                raise InputError(f"{path}: no column latency_ms; its first line must name columns")
            for row in reader:
                latency_s = _latency_s(path, reader.line_num, row.pop("latency_ms"))
                row.pop("cycle", None)
                series[tuple(map(str, row.values()))].append(latency_s)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {problem_of(error)}") from error
    long_enough = [each for each in series.values() if len(each) >= 120]
    if not long_enough:
        raise InputError(f"{path}: no setting has 120 inferences or more to draw from")
    return long_enough


def _latency_s(path: Path, line: int, text: str | None) -> float:
    try:
        latency_s = float(text or "") / 1e3
    except ValueError:
        latency_s = math.nan
    if not 0.0 < latency_s < math.inf:
        raise InputError(f"{path}, line {line}, latency_ms: {text!r} is no positive number")
    return latency_s


def clustering(noises: Sequence[Sequence[float]], percentile: float = 0.95) -> list[float]:
    """The design effect of each series' exceedances of its own percentile, ascending."""
    arrays = [np.asarray(series) for series in noises]
    exceed = [(times > np.quantile(times, percentile)).astype(np.float64) for times in arrays]
    return sorted(map(design_effect, exceed))


# The whole ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        reactions: by case, one of each seed.
        noise: where inference times were drawn from, for people.
        effects: of the measured series, see :func:`clustering`; empty: none was given.
    """

    reactions: Mapping[str, Sequence[Reaction]]
    steadiness: Steadiness
    noise: str
    effects: Sequence[float]

    @cached_property
    def missed(self) -> list[str]:
        """Goals that were not reached."""
        late = [
            f"{case.name} noticed within {MOST_WINDOWS} windows"
            for case in CASES
            for reactions in [self.reactions.get(case.name, ())]
            if case.matters and any(not _in_time(each) for each in reactions)
        ]
        seen = self.steadiness
        if seen.hours and seen.alarms_a_day >= MOST_ALARMS_A_DAY:
            late.append(f"{seen.alarms_a_day:.1f} false alarms in 24 h")
        if seen.hours and seen.kept < LEAST_GOOD_HOURS * seen.hours:
            late.append(f"the bound kept in {seen.kept} of {seen.hours} hours")
        return late


def _in_time(reaction: Reaction) -> bool:
    return reaction.noticed is not None and reaction.windows <= MOST_WINDOWS


def measure(
    hours: int = 24,
    latencies: Path | None = None,
    seeds: int = 3,
    cases: Sequence[Case] = CASES,
    policy: str = DEFAULT_POLICY,
) -> Outcome:
    """Every case with each seed, and so many hours of nothing.

    Raises:
        InputError: the file of latencies cannot be used.
    """
    noises = [] if latencies is None else read_latencies(latencies)
    drawn = _drawn(noises)
    runs = list(product(cases, range(seeds)))
    reactions: dict[str, list[Reaction]] = {case.name: [] for case in cases}
    for case, seed in with_progress(runs, len(runs), "Changing"):
        reactions[case.name].append(react(case, seed, next(drawn), policy))
    noise = "the emulation's" if latencies is None else f"drawn from {latencies.name} in blocks"
    return Outcome(reactions, steady(hours, noises, policy=policy), noise, clustering(noises))


def _drawn(noises: Sequence[Sequence[float]]) -> Iterator[Noise | None]:
    """A noise for each run, reproducibly."""
    number = 0
    while True:
        yield ResampledNoise(noises[37 * number % len(noises)], number) if noises else None
        number += 1


# What is said of it ------------------------------------------------------------------------


def show(outcome: Outcome) -> None:
    """Print a row for each case, and what became of nothing."""
    table = result_table(
        "Noticed and held again, on emulated boards: median, worst",
        "what changes", "in window", "misses", "trials", "over best", "held in",
    )  # fmt: skip
    for name, reactions in outcome.reactions.items():
        table.add_row(name, *_cells(reactions))
    console = result_console()
    console.print(table)
    for line in _notes(outcome):
        console.print(line, style="dim")


def _cells(reactions: Sequence[Reaction]) -> list[str]:
    seen = [each for each in reactions if each.noticed is not None]
    unseen = len(reactions) - len(seen)
    excess = max(each.excess for each in reactions)
    over_best = f"{100 * max(excess, 0.0):.1f} %"
    if not seen:
        return ["not", "0", "0", over_best, "-"]
    windows = _both([each.windows for each in seen])
    return [
        windows + (f" ({unseen} not)" if unseen else ""),
        _both([each.misses for each in seen]),
        _both([each.trials for each in seen]),
        over_best,
        format_duration(round(statistics.median(each.held_s for each in seen), 1)),
    ]


def _both(values: Sequence[int]) -> str:
    median, worst = round(statistics.median(values)), max(values)
    return f"{median}" if median == worst else f"{median}, {worst}"


def _notes(outcome: Outcome) -> list[str]:
    seen = outcome.steadiness
    notes = [
        "Figures of an emulation, not of hardware. The window that a change falls into is the "
        f"first. Inference times: {outcome.noise}.",
    ]
    if outcome.effects:
        effects = outcome.effects
        notes.append(
            f"Misses cluster in it by a design effect of {statistics.median(effects):.2f} "
            f"(median), {effects[int(0.9 * len(effects))]:.2f} (90 %), {effects[-1]:.2f} (largest)."
        )
    if seen.hours:
        notes.append(
            f"{seen.hours} h in which nothing changed: {len(seen.alarms)} false alarms; the bound "
            f"kept in {seen.kept} of {seen.hours} hours; "
            f"{seen.misses:,} of {seen.inferences:,} inferences missed it."
        )
    notes += [f"  false alarm: {alarm}" for alarm in seen.alarms]
    return notes


def document(outcome: Outcome) -> dict[str, object]:
    """For JSON; null where nothing was noticed."""
    seen = outcome.steadiness
    return {
        "emulated": True,
        "noise": outcome.noise,
        "design_effects": list(outcome.effects),
        "cases": {
            name: [
                {
                    "noticed": each.noticed,
                    "windows": each.windows,
                    "noticed_s": _finite(each.noticed_s),
                    "held_s": _finite(each.held_s),
                    "misses": each.misses,
                    "inferences": each.inferences,
                    "trials": each.trials,
                    "excess": each.excess,
                }
                for each in reactions
            ]
            for name, reactions in outcome.reactions.items()
        },
        "steady": {
            "hours": seen.hours,
            "false_alarms": seen.alarms,
            "hours_kept": seen.kept,
            "misses": seen.misses,
            "inferences": seen.inferences,
        },
        "missed": outcome.missed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
