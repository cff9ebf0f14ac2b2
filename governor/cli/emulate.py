"""``governor emulate``: emulated boards, how near they come to real ones, and their ``/sys``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli import refuse
from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.devices import DEFAULT_WORKLOAD
from governor.units import format_duration, format_percent, format_power

if TYPE_CHECKING:
    from governor.devices.emulated.calibration import Anchor, Comparison, Summary

KEEP_UP_S = 10.0
"""A mounted board that nobody reads is brought up to date so often, so that no read must."""


def emulate(
    context: typer.Context,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Compare with every published figure.")
    ] = False,
    board: Annotated[str | None, typer.Option(help="Only this board; all by default.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")
    ] = None,
    mount: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Serve the board's /sys there until interrupted."),
    ] = None,
    l4t: Annotated[
        int | None, typer.Option(help="Jetson Linux release to mount; the board's usual one.")
    ] = None,
    workload: Annotated[str, typer.Option(help="What the mounted board runs.")] = DEFAULT_WORKLOAD,
    nvpmodel: Annotated[
        int | None,
        typer.Option(metavar="ID", help="Power mode to mount; the one without caps by default."),
    ] = None,
    late_gpu: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="The mounted GPU has no clock node before.", min=0, max=86_400
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the mounted board's noise.", min=0)] = 0,
) -> None:
    """List the emulated boards and how far they lie from published figures, or mount one."""
    if mount is None:
        mounting = ("l4t", "workload", "nvpmodel", "late_gpu", "seed")
        refuse(context, mounting, "says how a board is mounted; add --mount DIR")
    else:
        refuse(context, ("calibration", "json_file"), "is for the comparison; drop it or --mount")
    if mount is not None:
        _mount(mount, board or "agx-orin", l4t, workload, nvpmodel, late_gpu, seed)
    else:
        _compare(board, calibration, json_file)


def _mount(
    directory: Path,
    board: str,
    l4t: int | None,
    workload: str,
    mode: int | None,
    late_gpu_s: float,
    seed: int,
) -> None:
    """Serve a virtual board's files until SIGINT or SIGTERM."""
    from governor.devices.emulated.mount import check_mount_point, mounted
    from governor.devices.emulated.sysfs import CONTROL, VirtualJetson

    check_mount_point(directory)
    jetson = VirtualJetson(board, l4t, workload, mode=mode, seed=seed, gpu_appears_s=late_gpu_s)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    with mounted(jetson, directory):
        typer.echo(
            f"{jetson.board.info.description}, L4T {jetson.kernel.l4t}, running {workload}, "
            f"is mounted on {directory}; {directory}{CONTROL}/README says how to use it. "
            "Ctrl-C unmounts."
        )
        sys.stdout.flush()
        while not ended.wait(KEEP_UP_S):
            jetson.board.read()


def _compare(board: str | None, calibration: bool, json_file: Path | None) -> None:
    """Print, and write, how far the boards lie from published figures."""
    from governor.devices.emulated import board_names, workload_names
    from governor.devices.emulated.calibration import compare, summarise

    check_writable(json_file)
    comparisons = compare(board)
    summaries = summarise(comparisons)
    if calibration:
        _print_comparisons(comparisons)
    _print_summaries(summaries)
    known = {each.anchor.board for each in comparisons}
    assumed = [name for name in ([board] if board else board_names()) if name not in known]
    said = [f"Nothing published to compare with, all assumed: {', '.join(assumed)}"] * bool(assumed)
    names = [name for name in workload_names() if not name.endswith("-trt")]
    said += [f"Workloads: {', '.join(names)}; as in PyTorch, and with -trt behind it compiled"]
    for text in said:
        result_console().print(text, highlight=False, markup=False)
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
    return format_power(value)


def _print_summaries(summaries: Sequence[Summary]) -> None:
    table = result_table(
        "Emulated against published", "board", "quantity", "anchors", "mean |error|", "worst"
    )
    for each in sorted(summaries, key=lambda one: (one.board, one.quantity)):
        table.add_row(
            each.board,
            each.quantity,
            str(each.count),
            format_percent(each.mean_error),
            format_percent(each.worst_error),
        )
    console = result_console()
    console.print(table)
    console.print(
        "Relative errors. No figure here was measured by this program.",
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
