"""``governor emulate``: the emulated boards there are, and how near they come to real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.units import format_duration, format_percent, format_power

if TYPE_CHECKING:
    from governor.devices.emulated.calibration import Anchor, Comparison, Summary


def emulate(
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Compare with every published figure.")
    ] = False,
    board: Annotated[str | None, typer.Option(help="Only this board; all by default.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")
    ] = None,
) -> None:
    """List the emulated boards and workloads, and how far they lie from published figures."""
    from governor.devices.emulated import workload_names
    from governor.devices.emulated.calibration import compare, summarise

    check_writable(json_file)
    comparisons = compare(board)
    summaries = summarise(comparisons)
    if calibration:
        _print_comparisons(comparisons)
    _print_summaries(summaries)
    typer.echo(f"Workloads: {', '.join(workload_names())} (-trt: compiled, else PyTorch eager)")
    if json_file is not None:
        write_json(json_file, _document(comparisons, summaries))


def _print_comparisons(comparisons: Sequence[Comparison]) -> None:
    console = result_console()
    for board in dict.fromkeys(each.anchor.board for each in comparisons):
        table = result_table(
            f"{board} (emulated)", "workload", "CPU/GPU/EMC MHz", "published", "emulated", "error"
        )
        table.add_column("source", overflow="fold")
        for each in comparisons:
            if each.anchor.board == board:
                table.add_row(*_cells(each))
        console.print(table)


def _cells(comparison: Comparison) -> list[str]:
    anchor = comparison.anchor
    return [
        anchor.label,
        "/".join("max" if clock is None else f"{clock:g}" for clock in anchor.clocks_mhz),
        _format(anchor, anchor.published),
        _format(anchor, comparison.emulated),
        format_percent(comparison.error, signed=True),
        f"{anchor.source}{' [supply]' if anchor.supply else ''}",
    ]


def _format(anchor: Anchor, value: float) -> str:
    if anchor.quantity == "latency":
        return format_duration(value)
    return format_power(value) if anchor.quantity == "power" else format_percent(value)


def _print_summaries(summaries: Sequence[Summary]) -> None:
    table = result_table(
        "Emulated against published", "board", "quantity", "anchors", "mean |error|", "worst"
    )
    for each in sorted(summaries, key=lambda one: (one.board, one.quantity)):
        points = " points" if each.quantity == "saving" else ""
        table.add_row(
            each.board,
            each.quantity,
            str(each.count),
            format_percent(each.mean_error) + points,
            format_percent(each.worst_error) + points,
        )
    console = result_console()
    console.print(table)
    console.print(
        "Latency and power: relative. Saving: energy against the default governors, at up to 10 % "
        "more latency; percentage points. No figure here was measured by this program.",
        style="dim",
    )


def _document(
    comparisons: Sequence[Comparison], summaries: Sequence[Summary]
) -> dict[str, list[dict[str, object]]]:
    return {
        "anchors": [
            {
                "board": each.anchor.board,
                "what": each.anchor.label,
                "quantity": each.anchor.quantity,
                "clocks_mhz": each.anchor.clocks_mhz,
                "scope": "supply" if each.anchor.supply else "module",
                "published": each.anchor.published,
                "emulated": each.emulated,
                "error": each.error,
                "source": each.anchor.source,
            }
            for each in comparisons
        ],
        "summary": [
            {
                "board": each.board,
                "quantity": each.quantity,
                "anchors": each.count,
                "mean_error": each.mean_error,
                "worst_error": each.worst_error,
            }
            for each in summaries
        ],
    }
