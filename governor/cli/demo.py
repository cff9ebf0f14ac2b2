"""``governor demo``: govern an inference loop on an emulated board, and show what happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from governor.cli.replay import (
    Json,
    Limits,
    LiveAim,
    Log,
    PowerCap,
    Profiles,
    Record,
    ReportFile,
    check_record,
    check_report,
    check_writable,
    parse_profiles,
    result_table,
    write_json,
)
from governor.errors import GovernorError, unknown_name
from governor.objective import ENERGY, Objective
from governor.slo import LatencySLO
from governor.space import BoolArray, FloatArray, OperatingPoint, Space
from governor.trial import Trial
from governor.units import (
    HOTTEST,
    ThermalLimit,
    format_duration,
    format_energy,
    format_percent,
    format_power,
    parse_temperature,
    parse_thermal_limit,
    thermal_limits,
)
from policies.policy import DEFAULT_POLICY

if TYPE_CHECKING:
    from rich.console import Console, Group

    from governor.decision import Decision
    from governor.devices.emulated import EmulatedBoard, ShadowBoard
    from governor.governor import EnergyGovernor

    Board = EmulatedBoard | ShadowBoard

HOLD_S = 15.0
"""So long the point that was found is held and measured before the summary."""
LONGEST_S = 300.0
"""A search that has not come to hold by then never will."""
SPEED_UP = 8.0
"""Virtual time on a terminal runs so many times faster than real time, to be watched."""
JITTER = 0.01
"""Relative standard deviation of the sleep that stands for an inference in real time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What was asked for; ``latency_slo`` as it was written."""

    board: str
    workload: str
    latency_slo: str
    policy: str
    seed: int
    realtime: bool
    ambient_c: float = 25.0
    thermal_limit: ThermalLimit | None = None
    objective: str = "energy"
    power_cap: str | None = None

    @property
    def optimum_named(self) -> str:
        """The emulator's best setting, for people: what a limit rules out is none."""
        return "emulator's optimum" if self.thermal_limit is None else "optimum within limit"


@dataclass(slots=True)
class Held:
    """What was seen in hold: each inference's seconds, and the seconds and joules of them all.

    ``since_s`` is when hold was first reached, on the board's clock.
    """

    since_s: float = math.nan
    latencies_s: list[float] = field(default_factory=list[float])
    time_s: float = 0.0
    energy_j: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """At one setting: seconds at the SLO's percentile, watts, joules an item."""

    point: OperatingPoint | None
    latency_s: float
    power_w: float
    energy_j: float

    @classmethod
    def of(cls, trial: Trial) -> Figures:
        """What one window of the search amounted to."""
        return cls(
            point=trial.point,
            latency_s=trial.latency_s,
            power_w=trial.power_w,
            energy_j=trial.energy_j,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the demo came out. Every figure is emulated.

    Attributes:
        default, first: measured by the governor, on the board's sensors; ``first`` is the search's
            first trial, at all-max clocks unless heat forbids them.
        held: what the board spent while the point was held.
        optimum: computed from the emulator's own physics, of the settings that keep the thermal
            limits once warm.
        truth: by them, of every setting of ``space``: seconds at the SLO's percentile and joules
            an item, shape ``(n,)``.
        objective: what was searched for.
        feasible: whether any setting keeps the bounds.
        kept: share of the inferences in hold that kept the bound.
        inferences: in hold.
        search_s, board_s: on the board's clock, until hold and in all.
        wall_s: on the wall.
    """

    default: Figures
    first: Figures
    held: Figures
    optimum: Figures
    space: Space
    truth: tuple[FloatArray, FloatArray]
    trials: tuple[Trial, ...]
    slo: LatencySLO
    slo_s: float
    objective: Objective
    feasible: bool
    kept: float
    inferences: int
    search_s: float
    board_s: float
    wall_s: float

    @property
    def cost_excess(self) -> float:
        """The objective's cost of what was held over that of the optimum, less 1."""
        held, best = self.held, self.optimum
        energy = (held.energy_j / best.energy_j) ** self.objective.energy
        return energy * (held.latency_s / best.latency_s) ** self.objective.latency - 1.0

    @property
    def at_all_max(self) -> bool:
        """Whether the first trial was at all-max clocks."""
        return self.first.point == self.space.point(self.space.fastest)

    @property
    def first_named(self) -> str:
        """The first trial, for people."""
        return "all-max clocks" if self.at_all_max else "first setting tried"

    @property
    def slo_kept(self) -> bool:
        """Whether the SLO was kept while the point was held."""
        return self.kept >= self.slo.percentile

    @property
    def missed_trials(self) -> int:
        """Trials that missed the SLO."""
        return sum(trial.latency_s > self.slo_s for trial in self.trials)


def demo(
    board: Annotated[
        str, typer.Option(help="The emulated board; governor emulate lists them.")
    ] = "agx-orin",
    workload: Annotated[str, typer.Option(help="The emulated network; the same does.")] = "yolov8n",
    latency_slo: Annotated[
        str,
        typer.Option("--latency-slo", metavar="BOUND", help="50ms, 20fps, 1.3x all-max or none."),
    ] = "50ms",
    objective: LiveAim = "energy",
    power_cap: PowerCap = None,
    policy: Annotated[str, typer.Option(help="Who searches.")] = DEFAULT_POLICY,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn at random.")] = 0,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="In real time, with real threads and processes.")
    ] = False,
    ambient: Annotated[
        str, typer.Option(metavar="25C", help="The room that the board stands in.")
    ] = "25C",
    thermal_limit: Limits = None,
    json_file: Json = None,
    report: ReportFile = None,
    record: Record = None,
    profiles: Profiles = None,
    log_format: Log = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Show its metrics there, for Prometheus."),
    ] = None,
) -> None:
    """Govern an inference loop on an emulated Jetson: no hardware is needed or touched."""
    from rich.console import Console

    check_writable(json_file)
    check_record(record)
    check_report(report)
    store = parse_profiles(profiles)
    setup = Setup(
        board=board,
        workload=workload,
        latency_slo=latency_slo,
        policy=policy,
        seed=seed,
        realtime=realtime,
        ambient_c=parse_temperature(ambient, "--ambient"),
        thermal_limit=thermal_limits(thermal_limit or ()),
        objective=objective,
        power_cap=power_cap,
    )
    if log_format is not None:
        from governor.logs import log_to_stderr

        log_to_stderr(log_format)
    console = Console(highlight=False)
    with TemporaryDirectory() as folder:
        if report is not None and record is None:
            record = Path(folder) / "run.jsonl"
        outcome = play(setup, console, record, metrics, log_format is None, store)
        show_summary(console, outcome, setup)
        if json_file is not None:
            write_json(json_file, to_json(outcome, setup))
        if report is not None and record is not None:
            _write_report(report, record, outcome, setup)


def _write_report(path: Path, record: Path, outcome: Outcome, setup: Setup) -> None:
    from governor.records.reader import read_run
    from governor.report.document import Landscape, write_report
    from governor.report.panels import Measured
    from governor.report.sources import of_run

    def setting(figures: Figures) -> Measured:
        return Measured(
            point=figures.point,
            latency_s=figures.latency_s,
            energy_j=figures.energy_j,
            power_w=figures.power_w,
        )

    latency_s, energy_j = outcome.truth
    every = [
        Measured(point=outcome.space.point(row), latency_s=seconds, energy_j=joules)
        for row, (seconds, joules) in enumerate(
            zip(latency_s.tolist(), energy_j.tolist(), strict=True)
        )
    ]
    report = of_run(
        read_run(record),
        landscape=Landscape(settings=every, what="the emulator's own physics, every setting"),
        others=[
            (outcome.first_named, setting(outcome.first)),
            (setup.optimum_named, setting(outcome.optimum)),
        ],
        remarks=list(_sentences(outcome, setup))[2:],
        subject=setup.workload,
    )
    write_report(path, report.title, [report])


def _emulate(setup: Setup) -> tuple[Board, Callable[[], object]]:
    """The board, and one inference on it: in virtual time, or a sleep that it shadows."""
    from governor.devices.emulated import EmulatedBoard, ShadowBoard

    if not setup.realtime:
        virtual = EmulatedBoard(
            setup.board, setup.workload, seed=setup.seed, ambient_c=setup.ambient_c
        )
        return virtual, virtual.infer
    shadow = ShadowBoard(setup.board, setup.workload, seed=setup.seed, ambient_c=setup.ambient_c)
    fastest_s = shadow.true_latency_s(shadow.space.point(shadow.space.fastest))
    draw = np.random.default_rng(setup.seed)

    def sleep() -> None:
        time.sleep(fastest_s * max(draw.normal(1.0, JITTER), 0.5))

    return shadow, sleep


# The run ----------------------------------------------------------------------------------


def play(
    setup: Setup,
    console: Console,
    record: Path | None = None,
    metrics: str | None = None,
    watched: bool = True,
    profiles: str | bool | None = None,
) -> Outcome:
    """Govern the loop until it holds, and then for a while; show it meanwhile where ``watched``."""
    from governor.governor import EnergyGovernor

    device, infer = _emulate(setup)
    _check_zones(device, setup.thermal_limit)
    slo = LatencySLO.parse(setup.latency_slo)
    live = watched and console.is_terminal and not console.is_dumb_terminal
    stage = _Stage(setup, console, device, slo)
    began_s, wall_s = device.clock.now(), time.monotonic()
    with EnergyGovernor(
        setup.latency_slo,
        objective=setup.objective,
        power_cap=setup.power_cap,
        device=device,
        policy=setup.policy,
        seed=setup.seed,
        thermal_limit=setup.thermal_limit,
        callback=stage.print if watched and not live else stage.note,
        record=record,
        metrics=metrics,
        profiles=profiles,
    ) as gov:
        if gov.metrics_url is not None:
            console.print(f"Metrics: {gov.metrics_url}", soft_wrap=True, markup=False)
        speed_up = SPEED_UP if live and not setup.realtime else math.inf
        with stage.live(gov) if live else nullcontext():
            held = _loop(gov, device, infer, speed_up)
        status, trials, baseline = gov.status(), gov.trials, gov.baseline
        objective = gov.objective
    if baseline is None:
        raise GovernorError("the demo ended without a baseline; please report this")
    latency_s = np.array(held.latencies_s)
    at_percentile_s = float(np.quantile(latency_s, slo.percentile))
    tail = at_percentile_s / float(latency_s.mean())
    true_latency_s, true_energy_j = device.truth()
    return Outcome(
        default=Figures.of(baseline),
        first=Figures.of(trials[0]),
        held=Figures(
            point=status.point,
            latency_s=at_percentile_s,
            power_w=held.energy_j / held.time_s,
            energy_j=held.energy_j / len(latency_s),
        ),
        optimum=_optimum(device, status.slo_s, tail, objective, status.thermal_limits_c),
        space=device.space,
        truth=(tail * true_latency_s, true_energy_j),
        trials=trials,
        slo=slo,
        slo_s=status.slo_s,
        objective=objective,
        feasible=bool(status.slo_feasible),
        kept=float(np.mean(latency_s <= status.slo_s)),
        inferences=len(latency_s),
        search_s=held.since_s - began_s,
        board_s=device.clock.now() - began_s,
        wall_s=time.monotonic() - wall_s,
    )


def _loop(gov: EnergyGovernor, device: Board, infer: Callable[[], object], speed_up: float) -> Held:
    """The inference loop of an application, and what it sees once the governor holds."""
    clock, held = device.clock, Held()
    began_s, wall_s = clock.now(), time.monotonic()
    spent_j = device.spent_j
    while held.time_s < HOLD_S:
        start_s, before_j = clock.now(), spent_j
        with gov.inference():
            infer()
        now_s, spent_j = clock.now(), device.spent_j
        if gov.phase == "hold":
            held.since_s = start_s if math.isnan(held.since_s) else held.since_s
            held.latencies_s.append(now_s - start_s)
            held.time_s += now_s - start_s
            held.energy_j += spent_j - before_j
        elif now_s - began_s > LONGEST_S:
            raise GovernorError(
                f"no setting was held after {LONGEST_S:g} s; try another --latency-slo or --policy"
            )
        time.sleep(max((now_s - began_s) / speed_up - (time.monotonic() - wall_s), 0.0))
    return held


def _optimum(
    device: Board,
    slo_s: float,
    tail: float,
    objective: Objective,
    limits_c: Mapping[str, float],
) -> Figures:
    """What the emulator's physics call best of what keeps the limits once warm.

    ``tail`` is the percentile over the mean. Where nothing keeps the limits: the coolest.
    """
    mean_s, energy_j = device.truth()
    power_w = energy_j / mean_s
    cool = _keeping(device.true_temperature_c(), limits_c)
    strains = np.where(cool, objective.strains(mean_s * tail, power_w, slo_s), np.inf)
    costs = np.where(strains <= 1.0, objective.costs(energy_j, mean_s), np.inf)
    by_rank = [costs, strains, power_w]
    row = int(np.argmin(next(rank for rank in by_rank if np.isfinite(rank).any())))
    return Figures(
        point=device.space.point(row),
        latency_s=float(mean_s[row]) * tail,
        power_w=float(power_w[row]),
        energy_j=float(energy_j[row]),
    )


def _check_zones(device: Board, limit: ThermalLimit | None) -> None:
    zones = [zone for zone in parse_thermal_limit(limit) if zone != HOTTEST]
    known = list(device.true_temperature_c()) if zones else []
    for zone in zones:
        if zone not in known:
            raise unknown_name("zone of --thermal-limit", zone, known)


def _keeping(temperature_c: Mapping[str, FloatArray], limits_c: Mapping[str, float]) -> BoolArray:
    """Which settings keep the limits, of a zone or of the hottest; of other zones nobody knows."""
    by_zone = {"hottest": np.maximum.reduce(list(temperature_c.values())), **temperature_c}
    keeps = [by_zone[zone] <= limit for zone, limit in limits_c.items() if zone in by_zone]
    return np.logical_and.reduce(keeps or [by_zone["hottest"] < np.inf])


# What is shown ----------------------------------------------------------------------------


class _Stage:
    """Shows the run: a live screen on a terminal, a line a decision elsewhere."""

    def __init__(self, setup: Setup, console: Console, device: Board, slo: LatencySLO) -> None:
        clock = "real time" if setup.realtime else "virtual time"
        self._title = f"EMULATION: {device.info.description}, {setup.workload}, {clock}"
        self._console = console
        self._device = device
        self._slo = slo
        self._began_s = device.clock.now()
        self._latest: Decision | None = None

    def note(self, decision: Decision) -> None:
        """The governor decided; the screen shows it by itself."""
        self._latest = decision

    def print(self, decision: Decision) -> None:
        """The governor decided; there is no screen."""
        from governor.report.terminal import line

        if self._latest is None:
            self._console.print(self._title, soft_wrap=True, markup=False)
        self._latest = decision
        if decision.kind != "wait":
            self._console.print(line(decision, self._began_s), soft_wrap=True, markup=False)

    @contextmanager
    def live(self, gov: EnergyGovernor) -> Generator[None]:
        """Keep the screen up to date."""
        from rich.live import Live

        from governor.report.terminal import Scene, screen

        def now() -> Group:
            return screen(
                gov.status(),
                Scene(
                    title=self._title,
                    time_s=self._device.clock.now() - self._began_s,
                    slo=self._slo,
                    total_rail=self._device.info.total_rail,
                    trials=gov.trials,
                    decision=self._latest,
                ),
            )

        with Live(get_renderable=now, console=self._console, refresh_per_second=10):
            yield


def show_summary(console: Console, outcome: Outcome, setup: Setup) -> None:
    """The summary, on 80 columns."""
    table = result_table(
        "What it came to (emulated; nothing was measured on hardware)",
        "",
        f"latency\np{100 * outcome.slo.percentile:g}",
        "power",
        "energy\nan item",
        "against\ndefault",
        f"against\n{'all-max' if outcome.at_all_max else 'the first'}",
    )
    for name, figures in (
        ("default governors", outcome.default),
        (outcome.first_named, outcome.first),
        ("held by the governor", outcome.held),
        (setup.optimum_named, outcome.optimum),
    ):
        table.add_row(
            name,
            format_duration(figures.latency_s),
            format_power(figures.power_w),
            format_energy(figures.energy_j),
            *(_change(figures, other) for other in (outcome.default, outcome.first)),
            style="bold" if figures is outcome.held else None,
        )
    console.print()
    console.print(table)
    for text in _sentences(outcome, setup):
        console.print(text, markup=False)


def _change(figures: Figures, other: Figures) -> str:
    if figures is other:
        return ""
    return format_percent(figures.energy_j / other.energy_j - 1.0, signed=True)


def _sentences(outcome: Outcome, setup: Setup) -> Iterator[str]:
    held = outcome.held.point or "the system's own governors; nothing better was found"
    yield f"Held:    {held}"
    yield f"Optimum: {outcome.optimum.point}"
    if outcome.objective != ENERGY:
        excess = format_percent(outcome.cost_excess, signed=True)
        yield f"Objective {outcome.objective}: {excess} against the emulator's optimum"
    if not outcome.slo.unbounded:
        kept = "kept" if outcome.slo_kept else "NOT KEPT"
        yield (
            f"SLO {outcome.slo}: {kept}, {format_percent(outcome.kept)} of "
            f"{outcome.inferences} inferences in hold within it"
        )
    if not outcome.feasible and outcome.objective.capped:
        yield "Nothing keeps these bounds: the cap goes first. Loosen --latency-slo or --power-cap."
    elif not outcome.feasible and outcome.at_all_max:
        yield "Nothing keeps this SLO: the fastest setting is held. Loosen --latency-slo."
    elif not outcome.feasible:
        yield "Nothing that heat allows keeps this SLO. Loosen --latency-slo or --thermal-limit."
    clock = "real" if setup.realtime else "virtual"
    yield (
        f"Trials: {len(outcome.trials)} in {outcome.search_s:.0f} s of {clock} time, "
        f"{outcome.missed_trials} missed the SLO; the whole run took {outcome.wall_s:.1f} s"
    )


# For machines -----------------------------------------------------------------------------


def to_json(outcome: Outcome, setup: Setup) -> dict[str, object]:
    """The outcome with SI units in the names; figures that are not known are null."""
    return {
        "emulated": True,
        **asdict(setup),
        "percentile": outcome.slo.percentile,
        "slo_s": _known(outcome.slo_s),
        "slo_feasible": outcome.feasible,
        "slo_kept": outcome.slo_kept,
        "slo_kept_share": outcome.kept,
        "inferences_in_hold": outcome.inferences,
        "default": _figures_json(outcome.default),
        "all_max": _figures_json(outcome.first) if outcome.at_all_max else None,
        "held": _figures_json(outcome.held),
        "optimum": _figures_json(outcome.optimum),
        "trials": [
            _figures_json(Figures.of(trial))
            | {"duration_s": trial.duration_s, "slo_missed": trial.latency_s > outcome.slo_s}
            for trial in outcome.trials
        ],
        "search_s": outcome.search_s,
        "board_s": outcome.board_s,
        "wall_s": outcome.wall_s,
    }


def _figures_json(figures: Figures) -> dict[str, object]:
    return {
        "point": None if figures.point is None else dict(figures.point),
        "latency_s": figures.latency_s,
        "power_w": _known(figures.power_w),
        "energy_j": _known(figures.energy_j),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
