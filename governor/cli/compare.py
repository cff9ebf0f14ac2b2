"""``governor compare``: several policies on the same measured sweeps, seeds and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.replay import (
    Backend,
    Devices,
    Jobs,
    Json,
    Noise,
    Scheduler,
    Seeds,
    Slo,
    Traces,
    Workloads,
    check_writable,
    infeasible_note,
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

DEFAULT_POLICIES = "bayesian,roofline,coordinate,skopt-baseline,random"
CHECKPOINTS = (6, 8, 12, 16, 25)


def compare(
    traces: Traces,
    latency_slo: Slo,
    policies: Annotated[str, typer.Option(help="Names, comma-separated.")] = DEFAULT_POLICIES,
    trials: Annotated[int, typer.Option(min=1, help="Trials a search, all-max included.")] = 25,
    seeds: Seeds = 5,
    noise: Noise = 0.02,
    workload: Workloads = None,
    device: Devices = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves: .png, .svg or .html.")
    ] = None,
    json_file: Json = None,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
) -> None:
    """Compare policies on measured sweeps.

    Every policy gets the same sweeps, seeds and noise. Beside them stands what trusting each
    reading would come to: every setting tried once, and the best as measured chosen.
    """
    from governor.comparison import curve, measure_everything, to_json
    from governor.replay import Task

    place = Place(jobs, backend, scheduler)
    names = _policies(policies)
    slos = [parse_bound(text) for text in latency_slo]
    sweeps = select(read_sweeps(traces), workload, device)
    check_writable(plot, json_file)
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
    runs = run_with_progress(tasks, place)
    found = [curve(name, [run for run in runs if run.policy == name], trials) for name in names]
    curves = [one for one in found if one is not None]
    reference = measure_everything(tasks)
    if json_file is not None:
        write_json(json_file, to_json(runs, curves, reference))
    subject = (
        f"replayed on {len(sweeps)} measured sweep{'s' * (len(sweeps) > 1)}, "
        f"SLO {', '.join(map(str, slos))}, {seeds} seed{'s' * (seeds > 1)}, "
        f"{format_percent(noise)} noise"
    )
    console = result_console()
    if curves:
        console.print(_table(curves, reference, trials, subject))
    if infeasible := sum(not run.feasible for run in runs):
        console.print(infeasible_note(infeasible, len(runs)))
    if plot is None:
        return
    if reference is None:
        raise InputError(f"nothing to draw in {plot}: no setting keeps any of these SLOs")
    from governor.report.plots import draw_comparison

    draw_comparison(plot, curves, reference, subject)


def _policies(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"--policies {text!r} names none; write them like {DEFAULT_POLICIES}")
    for name in names:
        load_policy(name)
    return names


def _table(
    curves: Sequence[Curve], reference: Reference | None, trials: int, subject: str
) -> Table:
    checkpoints = sorted({k for k in CHECKPOINTS if k < trials} | {trials})
    table = result_table(
        f"Energy above the optimum: mean (p95), in %\n{subject}",
        "policy",
        *(f"after {k}\ntrials" for k in checkpoints),
        "trials\nmissing\nthe SLO",
        "runs\nkeeping\nit",
        "CPU s\na run",
        folding=1 + len(checkpoints),
    )
    for curve in curves:
        table.add_row(
            curve.policy,
            *(_pair(curve.excess_mean[k - 1], curve.excess_p95[k - 1]) for k in checkpoints),
            format_percent(float(curve.violation_rate[-1])),
            format_percent(float(curve.slo_met_rate[-1])),
            f"{curve.summary.search_seconds_mean:.2f}",
        )
    if reference is not None:
        table.add_section()
        table.add_row(
            "every setting once",
            *[""] * (len(checkpoints) - 1),
            _pair(reference.excess_mean, reference.excess_p95),
            "",
            format_percent(reference.slo_met_rate),
            "",
        )
    return table


def _pair(mean: float, p95: float) -> str:
    return f"{100 * mean:.1f} ({100 * p95:.1f})"
