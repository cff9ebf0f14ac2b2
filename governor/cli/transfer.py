"""``governor transfer``: what profiles of other workloads and boards save a search."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from governor.cli import refuse
from governor.cli.replay import (
    Backend,
    Devices,
    Jobs,
    Json,
    Noise,
    Scheduler,
    Seeds,
    Trials,
    Workloads,
    check_trials,
    check_writable,
    kind_of,
    read_sweeps,
    result_console,
    run_with_progress,
    select,
    write_json,
)
from governor.cli.seeding import emulated_sweep, worth_table
from governor.errors import InputError
from governor.spread import Place
from governor.units import parse_bound

EMULATED = (
    "agx-orin/yolov8n,agx-orin/resnet-50,agx-orin/mobilenet-v2,"
    "agx-xavier/yolov8n,agx-xavier/resnet-50,nano/resnet-50,nano/mobilenet-v2"
)


def transfer(
    context: typer.Context,
    traces: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TRACE.csv]", help="Measured sweeps; without any, emulated ones."),
    ] = None,
    emulated: Annotated[
        str, typer.Option(metavar="BOARD/WORKLOAD,...", help="Emulated sweeps, without traces.")
    ] = EMULATED,
    latency_slo: Annotated[
        list[str] | None,
        typer.Option("--latency-slo", metavar="BOUND", help="Repeatable; 1.2x and 2x by default."),
    ] = None,
    trials: Trials = 12,
    seeds: Seeds = 1,
    noise: Noise = 0.02,
    workload: Workloads = None,
    device: Devices = None,
    json_file: Json = None,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
) -> None:
    """Compare searches that know other workloads and boards with such that know nothing.

    Each sweep is searched once to make its profile, then again: cold, with the profiles of the
    same board's other workloads (batch sizes among them), with those of other boards, and, to see
    what a mistake costs, with the profile of the most unlike sweep under its own name.
    """
    from governor.replay import Task
    from governor.seeding import to_json, worth
    from governor.transfer import KINDS, backgrounds, donor, profile_task

    slos = [parse_bound(text) for text in latency_slo or ("1.2x", "2x")]
    place = Place(jobs, backend, scheduler)
    check_writable(json_file, inputs=traces or ())
    if traces:
        refuse(context, ["emulated"], "is for sweeps without traces; give one or the other")
    names = [name.strip() for name in emulated.split(",") if name.strip()]
    sweeps = read_sweeps(traces) if traces else [emulated_sweep(name) for name in names]
    sweeps = select(sweeps, workload, device)
    if len(sweeps) < 2:
        raise InputError("one sweep has nobody to learn from; give two or more")
    check_trials(trials, sweeps)
    what = kind_of(sweeps) if traces else "emulated"
    cold = {
        (str(sweep), slo, seed): Task(sweep, slo, "bayesian", seed, trials, noise, curve=True)
        for sweep, slo, seed in product(sweeps, slos, range(seeds))
    }
    made = run_with_progress([profile_task(task) for task in cold.values()], place)
    profiles = {
        key: donor(task.sweep, run, noise)
        for (key, task), run in zip(cold.items(), made, strict=True)
    }
    plan = [("none", task) for task in cold.values()]
    for (_, slo, seed), task in cold.items():
        known = {str(sweep): profiles[str(sweep), slo, seed] for sweep in sweeps}
        plan += [
            (kind, replace(task, background=background))
            for kind, background in backgrounds(task.sweep, sweeps, known).items()
        ]
    runs = run_with_progress([task for _, task in plan], place)
    by_kind = {
        wanted: [run for (kind, _), run in zip(plan, runs, strict=True) if kind == wanted]
        for wanted in KINDS
    }
    worths = [worth(kind, found, trials) for kind, found in by_kind.items() if found]
    if json_file is not None:
        write_json(json_file, {what: to_json(worths)})
    result_console().print(worth_table(worths, sweeps, what, trials, "profiles"))
