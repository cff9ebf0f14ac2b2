"""``governor study``: published studies, done again on the emulated boards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.replay import (
    Backend,
    Jobs,
    Scheduler,
    check_writable,
    make_folder,
    result_console,
    result_table,
    write_json,
)
from governor.errors import unknown_name
from governor.progress import with_progress
from governor.spread import Place, spread
from governor.units import format_duration, format_energy, format_percent

if TYPE_CHECKING:
    from rich.console import Console

    from governor.cli.study.nano_xavier import Finding, Result

STUDIES = ("nano-xavier",)


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="nano-xavier.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Of sweeps and figures.")
    ] = Path("nano-xavier"),
    inferences: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Of each measurement; the study took 3,200.")
    ] = 20,
    repeats: Annotated[
        int, typer.Option(min=1, max=10_000, help="Of each setting; the study took 10.")
    ] = 2,
    jobs: Jobs = None,
    backend: Backend = None,
    scheduler: Scheduler = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of the settings, and of noise.")
    ] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure.")
    ] = None,
) -> None:
    """Do a published study again on the emulated boards, and check what it found.

    Every sweep, and the figures, are written to FOLDER. A study that was killed goes on where
    it was when the same command is run again.
    """
    from governor.cli.study.figures import draw
    from governor.cli.study.nano_xavier import findings, measure, tasks, to_json
    from governor.report.drawing import empty_figure

    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    place = Place(jobs, backend, scheduler)
    check_writable(json_file)
    empty_figure(1.0, 1.0)  # before the work, not after it: can figures be drawn here?
    make_folder(output)
    todo = tasks(output, inferences, repeats, seed)
    swept = with_progress(spread(measure, todo, place, long_tasks=True), len(todo), "Sweeping")
    results = [one for many in swept for one in many]
    console = result_console()
    _show_minima(console, results)
    _show_findings(console, list(findings(results)))
    pictures = draw(output, results)
    console.print(f"Figures: {', '.join(str(path) for path in pictures)}", soft_wrap=True)
    if json_file is not None:
        write_json(json_file, to_json(results))


def _show_minima(console: Console, results: Sequence[Result]) -> None:
    table = result_table(
        "EMULATION: least energy an item over all CPU and GPU clocks, mean over batch sizes",
        "board, network",
        "batches",
        "default\ngovernors",
        "least",
        "against\ndefault",
        "against\nall-max",
        "slower by",
        "published",
    )
    for (board, network), group in _by_network(results).items():
        published = _published(board, network)
        table.add_row(
            f"{board} {network}",
            f"{group[0].batch_size} to {group[-1].batch_size}",
            format_energy(_mean(r.default_j for r in group)),
            format_energy(_mean(float(r.energy_j.min()) for r in group)),
            format_percent(-_mean(r.saving for r in group), signed=True),
            format_percent(-_mean(r.saving_from_max for r in group), signed=True),
            format_percent(_mean(r.slower for r in group), signed=True),
            "" if published is None else format_percent(-published, signed=True),
        )
    console.print(table)
    quickest = min(results, key=lambda r: r.default_s)
    console.print(
        f"All latencies are of an emulation, from {format_duration(quickest.default_s)} a batch; "
        "the default governors are the emulated kernel's.",
        style="dim",
    )


def _show_findings(console: Console, found: Sequence[Finding]) -> None:
    console.print("What the study found, and whether it holds here", style="bold")
    for one in found:
        verdict = "holds    " if one.holds else "does NOT "
        console.print(f"  {verdict} {one.statement}: {one.margin}", soft_wrap=True, markup=False)


def _by_network(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.board, result.network), []).append(result)
    return groups


def _published(board: str, network: str) -> float | None:
    from governor.cli.study.nano_xavier import PUBLISHED

    return PUBLISHED.get((board, network))


def _mean(values: Iterator[float]) -> float:
    from statistics import mean

    return mean(values)
