"""``governor replay``: search measured sweeps, and judge the search by the sweeps' own truth."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor import __version__
from governor.devices.trace import Sweep, join, read_traces
from governor.errors import InputError
from governor.finished import FinishedFile, resumed
from governor.logs import LogFormat
from governor.objective import ENERGY, Objective
from governor.progress import with_progress
from governor.spread import Cluster, Place, spread
from governor.units import Bound, format_percent, parse_bound
from policies.policy import DEFAULT_POLICY, load_policy

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from governor.replay import ReplayRun, Summary, Task

Traces = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRACE.csv|RUN.jsonl", help="Measured sweeps; of a run record its trials."
    ),
]
Slo = Annotated[
    list[str],
    typer.Option(
        "--latency-slo",
        metavar="BOUND",
        help="50ms, 1.3x the latency at the all-max corner, or none; repeatable.",
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, max=10_000, help="Searches of each sweep, seeded 0, 1, ...")
]
Trials = Annotated[
    int, typer.Option(min=1, max=1_000_000, help="Trials a search, all-max included.")
]
Noise = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Relative standard deviation of each measured figure."),
]
Workloads = Annotated[
    list[str] | None, typer.Option("--workload", help="Only this workload; repeatable.")
]
Devices = Annotated[
    list[str] | None, typer.Option("--device", help="Only this device; repeatable.")
]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write every run and the summary.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write a page with pictures."),
]
Record = Annotated[
    Path | None,
    typer.Option("--record", metavar="FILE", help="Append the run to FILE, as JSON lines."),
]
Profiles = Annotated[
    str | None,
    typer.Option(
        "--profiles",
        metavar="PATH|URL",
        help="Start from what was learnt before, and keep what is learnt: a file, "
        "postgresql://..., or 'default', the user's own file.",
    ),
]
Workload = Annotated[str, typer.Option("--workload-name", help="What the profile is called.")]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--thermal-limit",
        metavar="[ZONE=]85C",
        help="The warmest its hottest zone, or that one, may get; repeatable.",
    ),
]
KnobLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="KNOB=LOW:HIGH",
        help="The lowest and highest allowed, such as gpu_hz=300MHz:900MHz, an end left out where "
        "it is open; repeatable. cpu_cores=2: makes the number of cores a knob.",
    ),
]
Log = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="Log each decision to stderr, for people or machines."),
]
Aim = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What is to be small: energy, latency, or edp, their product.",
    ),
]
LiveAim = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What is to be small: energy, latency, edp; or '20Wh until 18:00', or prices.csv.",
    ),
]
PowerCap = Annotated[
    str | None,
    typer.Option("--power-cap", metavar="POWER", help="The most to take on average: 10W."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Processes that share the work.",
        show_default="all cores, where it pays",
    ),
]
Backend = Annotated[
    Cluster | None,
    typer.Option("--backend", help="A cluster whose machines share the work."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Of the cluster; without, a local one is started for the occasion."
    ),
]

Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", metavar="FILE", help="Keep finished runs in FILE, and go on from those in it."
    ),
]

PIPE_WIDTH = 160
DEFAULT_TRIALS = 25
"""The most that any command spends by default."""
SUMMARY_COLUMNS = (
    "energy\nexcess,\nmean",
    "\n\np95",
    "trials\nmissing\nthe SLO",
    "runs\nkeeping\nit",
    "trials\na run",
    "CPU s\na run",
)


def replay(
    traces: Traces,
    latency_slo: Slo,
    policy: Annotated[str, typer.Option(help="Who searches.")] = DEFAULT_POLICY,
    trials: Trials = 12,
    seeds: Seeds = 5,
    noise: Noise = 0.02,
    workload: Workloads = None,
    device: Devices = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Make the batch size a knob, beside the clocks.")
    ] = False,
    objective: Aim = "energy",
    power_cap: Annotated[
        str | None,
        typer.Option(metavar="CAP", help="10W, or 0.6x the power at the all-max corner."),
    ] = None,
    json_file: Json = None,
    report: ReportFile = None,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
    resume: Resume = None,
) -> None:
    """Search measured sweeps and judge the search.

    Each trial is replayed from the sweep with noise; what the search chooses is judged by the
    sweep's own figures against the best of all its settings.
    """
    from governor.replay import Task, to_json

    place = Place(jobs, backend, scheduler)
    load_policy(policy)
    aim = _Aim(objective, power_cap)
    slos = [parse_bound(text) for text in latency_slo]
    sweeps = select(read_sweeps(traces), workload, device)
    if joint:
        sweeps = join(sweeps)
    check_trials(trials, sweeps)
    check_writable(json_file, inputs=traces)
    check_report(report)
    runs = run_with_progress(
        [
            Task(sweep, slo, policy, seed, trials, noise, objective=aim.of(sweep))
            for sweep in sweeps
            for slo in slos
            for seed in range(seeds)
        ],
        place,
        resume,
    )
    if json_file is not None:
        write_json(json_file, to_json(runs))
    if report is not None:
        _write_report(report, runs, sweeps)
    _print(
        runs,
        f"{policy}, {trials} trials, replayed on {kind_of(sweeps)} sweeps "
        f"with {format_percent(noise)} noise",
        aim,
    )
    if joint and aim.plain:
        _print_joint(sweeps, slos)


class _Aim:
    """What was asked for, as an objective for each sweep.

    Attributes:
        plain: it is energy alone.
    """

    def __init__(self, name: str, power_cap: str | None) -> None:
        relative = power_cap is not None and power_cap.strip().lower().endswith("x")
        self._share = parse_bound(power_cap, "power cap").value if power_cap and relative else None
        self._any = Objective.parse(name, 1.0 if relative else power_cap)
        self.plain = self._any == ENERGY
        self._name = f"{name} under {power_cap} power" if relative else str(self._any)

    def of(self, sweep: Sweep) -> Objective:
        """With the cap in watts."""
        if self._share is None:
            return self._any
        return replace(
            self._any, power_cap_w=self._share * float(sweep.mean_power_w[sweep.space.fastest])
        )

    def __str__(self) -> str:
        return self._name


def read_sweeps(paths: Sequence[Path]) -> list[Sweep]:
    """The sweeps in traces, and the trials of run records, which end in .jsonl.

    Raises:
        InputError: a file is neither.
    """
    records = [path for path in paths if path.suffix.lower() == ".jsonl"]
    sweeps = read_traces([path for path in paths if path not in records])
    if records:
        from governor.records.trace import read_sweep

        sweeps += [read_sweep(path) for path in records]
    return sweeps


def select(
    sweeps: Sequence[Sweep], workloads: Sequence[str] | None, devices: Sequence[str] | None
) -> list[Sweep]:
    """The sweeps of these workloads and devices; None: of any.

    Raises:
        InputError: a name that no sweep has, or nothing is left.
    """
    for option, wanted, known in (
        ("--workload", workloads, {sweep.workload for sweep in sweeps}),
        ("--device", devices, {sweep.device for sweep in sweeps}),
    ):
        for name in wanted or ():
            if name not in known:
                raise InputError(
                    f"{option} {name!r} is in none of the traces; "
                    f"choose among {', '.join(sorted(known))}"
                )
    selected = [
        sweep
        for sweep in sweeps
        if (not workloads or sweep.workload in workloads)
        and (not devices or sweep.device in devices)
    ]
    if not selected:
        raise InputError("no sweep has both that --workload and that --device; drop one of them")
    return selected


def kind_of(sweeps: Sequence[Sweep]) -> str:
    """Whether they are measured or emulated, or both."""
    emulated = [sweep.emulated for sweep in sweeps]
    if all(emulated):
        return "emulated"
    return "measured and emulated" if any(emulated) else "measured"


def check_trials(trials: int, sweeps: Sequence[Sweep]) -> None:
    """No search tries more settings than there are; the default is left alone on small grids.

    Raises:
        InputError: that many were asked for.
    """
    most = max(len(sweep.space) for sweep in sweeps)
    if trials > max(most, DEFAULT_TRIALS):
        raise InputError(f"--trials {trials} are more than the {most} settings there are; lower it")


def check_writable(*paths: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Find out before the work, not after it, that a result cannot be written.

    Raises:
        InputError: the path is a folder, or one of the ``inputs``, or its folder is missing or
            read-only.
    """
    read = {source.resolve() for source in inputs}
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the path of a file")
        if path.resolve() in read:
            raise InputError(f"{path} is an input; give another name for what is written")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise InputError(f"{path} cannot be written; give a path in a folder that can be")


def make_folder(output: Path) -> None:
    """Make the folder of ``--output`` before the work.

    Raises:
        InputError: it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be made ({error.strerror}); give a folder's path"
        ) from error


def check_record(path: Path | None) -> None:
    """Find out before the run that it cannot be appended to a file.

    Raises:
        InputError: it cannot be written, or holds something else.
    """
    from governor.records.file import is_foreign

    check_writable(path)
    if path is not None and is_foreign(path):
        raise InputError(f"{path} is no run record, and is left as it is; give another file")


def parse_profiles(text: str | None) -> str | bool | None:
    """Of ``--profiles``, what :class:`EnergyGovernor` takes.

    Raises:
        InputError: it is no store.
    """
    if text is None:
        return None
    from governor.store import ProfileStore

    ProfileStore(None if text == "default" else text)
    if text == "default":
        return True
    return text if "://" in text else os.path.abspath(text)


def check_report(path: Path | None) -> None:
    """Find out before the work whether a report can be written.

    Raises:
        InputError: it does not end in .html, or cannot be written.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} is no page; end it in .html")
    check_writable(path)


def _write_report(path: Path, runs: Sequence[ReplayRun], sweeps: Sequence[Sweep]) -> None:
    """A section for each sweep and SLO, of the first seed."""
    from governor.report.document import write_report
    from governor.report.sources import of_replay

    named = {str(sweep): sweep for sweep in sweeps}
    first = [run for run in runs if run.seed == 0]
    write_report(path, "Replayed searches", [of_replay(run, named[run.sweep]) for run in first])


def write_json(path: Path, document: object) -> None:
    """Write strict JSON: a NaN is an error here, not in the reader's program."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def run_with_progress(
    tasks: Sequence[Task], place: Place, resume: Path | None = None
) -> list[ReplayRun]:
    """Run the tasks there, under a progress bar.

    ``resume``: a file that keeps finished runs; those in it are not run again.
    """
    from governor.replay import ReplayRun, run, settings_of

    def work(some: Sequence[Task]) -> Iterator[ReplayRun]:
        return spread(run, some, place)

    if resume is None:
        return list(with_progress(work(tasks), len(tasks), "Searching"))
    settings = {"version": __version__, **settings_of(tasks)}
    with FinishedFile(resume, settings, ReplayRun) as file:
        return list(with_progress(resumed(file, tasks, work), len(tasks), "Searching"))


def _print(runs: Sequence[ReplayRun], title: str, aim: _Aim) -> None:
    from governor.replay import by_slo, by_sweep, summarise

    console = result_console()
    columns = SUMMARY_COLUMNS
    if not aim.plain:
        title += f"; objective: {aim}"
        columns = ("cost\nexcess,\nmean", "\n\np95", "trials\nmissing\na bound", *columns[3:])
    table = result_table(title, "sweep", "SLO", *columns)
    groups = by_sweep(runs)
    for (sweep, slo), group in groups.items():
        table.add_row(sweep, str(slo), *summary_cells(summarise(group)))
    table.add_section()
    if len(groups) > 1:
        for slo, group in by_slo(runs).items():
            table.add_row("all", str(slo), *summary_cells(summarise(group)))
    total = summarise(runs)
    table.add_row("all", "all", *summary_cells(total), style="bold")
    console.print(table)
    if total.infeasible_runs:
        console.print(infeasible_note(total.infeasible_runs, total.runs))


def _print_joint(sweeps: Sequence[Sweep], slos: Sequence[Bound]) -> None:
    """What the joint optimum is worth, by the sweeps' own figures."""
    from governor.replay import marginal_optima

    table = result_table(
        "Energy an item above the joint optimum, by the sweeps' own figures",
        "sweep",
        "SLO",
        "clocks only,\nleast batch",
        "batch only,\nall-max",
        "joint optimum",
    )
    for sweep in sweeps:
        for slo in slos:
            optima = marginal_optima(sweep, slo.seconds(sweep.all_max_latency_s))
            table.add_row(
                str(sweep),
                str(slo),
                *(
                    "–" if excess is None else format_percent(excess, signed=True)
                    for excess in (optima.clocks_only, optima.batch_only)
                ),
                str(sweep.space.point(optima.joint)),
            )
    result_console().print(table)


def result_console() -> Console:
    """Stdout; in a pipe or file, wide enough that no table is folded."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def result_table(title: str, *columns: str, folding: int = 1) -> Table:
    """A table whose columns but the first are numbers; the first ``folding`` may fold."""
    from rich.box import SIMPLE_HEAD

    from governor.report.table import TitledTable

    table = TitledTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.heading = title
    for index, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if index else "left",
            no_wrap=index >= folding,
            overflow="fold",
        )
    return table


def summary_cells(summary: Summary) -> list[str]:
    """A summary as table cells; a dash where no run could be judged."""
    shares = (
        summary.cost_excess_mean,
        summary.cost_excess_p95,
        summary.trial_violation_rate,
        summary.slo_met_rate,
    )
    return [
        *("–" if share is None else format_percent(share) for share in shares),
        "–" if summary.trials_mean is None else f"{summary.trials_mean:.1f}",
        "–" if summary.search_seconds_mean is None else f"{summary.search_seconds_mean:.2f}",
    ]


def infeasible_note(infeasible: int, runs: int) -> str:
    """What to say when an SLO could not be met by any setting."""
    return (
        f"{infeasible} of {runs} runs had bounds that no setting of the sweep keeps; they count "
        "in no column. Loosen --latency-slo or --power-cap for those sweeps."
    )
