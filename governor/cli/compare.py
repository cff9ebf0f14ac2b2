"""``governor compare``: several policies on the same sweeps, seeds and noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.replay import (
    DEFAULT_TRIALS,
    Backend,
    Devices,
    Jobs,
    Json,
    Noise,
    Resume,
    Scheduler,
    Seeds,
    Slo,
    Trials,
    check_trials,
    check_writable,
    infeasible_note,
    kind_of,
    read_sweeps,
    result_console,
    result_table,
    run_with_progress,
    select,
    write_json,
)
from governor.errors import InputError
from governor.spread import Place
from governor.units import format_percent, parse_bound
from policies.policy import load_policy

if TYPE_CHECKING:
    from rich.table import Table

    from governor.comparison import Curve, Reference
    from governor.devices.trace import Sweep
    from governor.replay import Task

DEFAULT_POLICIES = (
    "bayesian,gp-ehvi,skopt-baseline,gradient-descent,coordinate,linear-sweep,roofline,random,fixed"
)
CHECKPOINTS = (6, 8, 12, 16, 25)
DEFAULT_BUDGET = 12
"""Trials that a governed run may spend."""

EVERY_SETTING, DEFAULT_GOVERNORS = "every setting once", "default governors"
"""What policies are compared with that are none themselves."""

Defaults = dict[str, tuple[float, float]]
"""By the names of sweeps: seconds and joules of an inference under the default governors."""


def compare(
    latency_slo: Slo,
    traces: Annotated[
        list[Path] | None, typer.Argument(metavar="[TRACE.csv|RUN.jsonl]", help="Measured sweeps.")
    ] = None,
    board: Annotated[
        str | None, typer.Option(help="Instead of traces: an emulated board, by its physics.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="Only this workload; repeatable.")
    ] = None,
    device: Devices = None,
    policies: Annotated[str, typer.Option(help="Names, comma-separated.")] = DEFAULT_POLICIES,
    trials: Trials = DEFAULT_TRIALS,
    budget: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Trials that the search of a whole run may take; repeatable.",
            show_default=f"{DEFAULT_BUDGET} and --trials",
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Windows of a whole run.")
    ] = 100,
    seeds: Seeds = 5,
    noise: Noise = 0.02,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves: .png, .svg or .html.")
    ] = None,
    json_file: Json = None,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
    resume: Resume = None,
) -> None:
    """Compare policies on measured sweeps, or on an emulated board.

    Every policy gets the same sweeps, seeds and noise. Beside them stands what trusting each
    reading would come to: every setting tried once, and the best as measured chosen; and on an
    emulated board what its default governors come to.
    """
    from governor.comparison import curve, to_json
    from governor.replay import Task

    place = Place(jobs, backend, scheduler)
    names = _policies(policies)
    budgets = _budgets(budget, trials, windows)
    slos = [parse_bound(text) for text in latency_slo]
    sweeps, defaults = _sweeps(traces or [], board, workload, device)
    check_trials(trials, sweeps)
    check_writable(plot, json_file, inputs=traces or ())
    if plot is not None:
        from governor.report.drawing import check_format
        from governor.report.plots import FORMATS

        check_format(plot, FORMATS)
    tasks = [
        Task(sweep, slo, name, seed, trials, noise, curve=True)
        for name in names
        for sweep in sweeps
        for slo in slos
        for seed in range(seeds)
    ]
    runs = run_with_progress(tasks, place, resume)
    found = [
        curve(name, [run for run in runs if run.policy == name], trials, budgets, windows)
        for name in names
    ]
    curves = [one for one in found if one is not None]
    references = _references(tasks, defaults)
    if json_file is not None:
        write_json(json_file, to_json(runs, curves, references))
    plural = "s" * (len(sweeps) > 1)
    subject = (
        (
            f"EMULATION of {board}: {', '.join(sweep.workload for sweep in sweeps)}"
            if board
            else f"replayed on {len(sweeps)} {kind_of(sweeps)} sweep{plural}"
        )
        + f", SLO {', '.join(map(str, slos))}, {seeds} seed{'s' * (seeds > 1)}, "
        f"{format_percent(noise)} noise"
    )
    console = result_console()
    if curves:
        console.print(_nearness(curves, references, trials, subject))
        console.print(_cost(curves, references, windows))
    if infeasible := sum(not run.feasible for run in runs):
        console.print(infeasible_note(infeasible, len(runs)))
    if plot is None:
        return
    if not references:
        raise InputError(f"nothing to draw in {plot}: no setting keeps any of these SLOs")
    from governor.report.plots import draw_comparison

    draw_comparison(plot, curves, references, subject)


def _sweeps(
    traces: Sequence[Path],
    board: str | None,
    workloads: Sequence[str] | None,
    devices: Sequence[str] | None,
) -> tuple[list[Sweep], Defaults]:
    """What is searched, and what is known of the default governors there."""
    if (board is None) == (not traces):
        raise InputError("give either traces or --board, for instance: --board agx-orin")
    if board is None:
        return select(read_sweeps(traces), workloads, devices), {}
    if devices:
        raise InputError("--device chooses among traces; drop it beside --board")
    if not workloads:
        raise InputError("--board needs a --workload, for instance: --workload yolov8n")
    return _emulated(board, workloads)


def _emulated(board: str, workloads: Sequence[str]) -> tuple[list[Sweep], Defaults]:
    from governor.devices.emulated import EmulatedBoard
    from governor.devices.trace import EMULATED, Sweep

    sweeps: list[Sweep] = []
    defaults: Defaults = {}
    for workload in dict.fromkeys(workloads):
        emulated = EmulatedBoard(board, workload)
        latency_s, energy_j = emulated.truth()
        power_w, name = energy_j / latency_s, f"{board}{EMULATED}"
        sweeps.append(Sweep(name, workload, 1, emulated.space, latency_s, energy_j, power_w))
        defaults[str(sweeps[-1])] = emulated.true_default()
        emulated.close()
    return sweeps, defaults


def _references(tasks: Sequence[Task], defaults: Defaults) -> dict[str, Reference]:
    """By their names; none where no SLO can be kept."""
    from governor.comparison import leave_alone, measure_everything

    found = {EVERY_SETTING: measure_everything(tasks)}
    if defaults:
        found[DEFAULT_GOVERNORS] = leave_alone(tasks, defaults)
    return {name: one for name, one in found.items() if one is not None}


def _budgets(asked: Sequence[int] | None, trials: int, windows: int) -> list[int]:
    budgets = sorted(set(asked or (min(DEFAULT_BUDGET, trials, windows), min(trials, windows))))
    if budgets[-1] > min(trials, windows):
        raise InputError(
            f"--budget {budgets[-1]} is more than {trials} --trials or {windows} --windows; "
            "lower it or raise them"
        )
    return budgets


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"--policies names {', '.join(twice)} twice; name each once")
    if not names:
        raise InputError(f"--policies {text!r} names none; write them like {DEFAULT_POLICIES}")
    for name in names:
        load_policy(name)
    return names


def _nearness(
    curves: Sequence[Curve], references: Mapping[str, Reference], trials: int, subject: str
) -> Table:
    checkpoints = sorted({k for k in CHECKPOINTS if k < trials} | {trials})
    table = result_table(
        f"Energy above the optimum: mean (p95), in %\n{subject}",
        "after trials",
        *(str(k) for k in checkpoints),
        folding=1 + len(checkpoints),
    )
    for curve in curves:
        table.add_row(
            curve.policy,
            *(_pair(curve.excess_mean[k - 1], curve.excess_p95[k - 1]) for k in checkpoints),
        )
    table.add_section()
    for name, reference in references.items():
        blank = [""] * (len(checkpoints) - 1)
        table.add_row(name, *blank, _pair(reference.excess_mean, reference.excess_p95))
    return table


def _cost(curves: Sequence[Curve], references: Mapping[str, Reference], windows: int) -> Table:
    budgets = [whole.budget for whole in curves[0].whole_runs]
    table = result_table(
        f"A whole run of {windows} windows, a search of so many trials among them:\n"
        "energy above the optimum's in % / windows that missed the SLO",
        "search of",
        *(f"≤ {budget}\ntrials" for budget in budgets),
        "trials\nmissed",
        "choices\nkept",
        "trials\na run",
        "CPU s\na run",
    )
    for curve in curves:
        table.add_row(
            curve.policy,
            *(_whole(whole.energy_excess, whole.windows_missed) for whole in curve.whole_runs),
            _share(float(curve.violation_rate[-1])),
            _share(float(curve.slo_met_rate[-1])),
            f"{curve.summary.trials_mean:.1f}",
            f"{curve.summary.search_seconds_mean:.2f}",
        )
    if (left := references.get(DEFAULT_GOVERNORS)) is not None:
        table.add_section()
        missed = (1 - left.slo_met_rate) * windows
        cells = [_whole(left.excess_mean, missed)] * len(budgets)
        table.add_row(DEFAULT_GOVERNORS, *cells, "", _share(left.slo_met_rate), "", "")
    return table


def _whole(excess: float, missed: float) -> str:
    return f"{100 * excess:.1f} / {missed:.1f}"


def _pair(mean: float, p95: float) -> str:
    return f"{100 * mean:.1f} ({100 * p95:.{_decimals(p95)}f})"


def _share(share: float) -> str:
    return f"{100 * share:.{_decimals(share)}f} %"


def _decimals(share: float) -> int:
    """So many digits of a percentage are worth a column's width."""
    return 0 if share >= 0.095 or share == 0 else 1
