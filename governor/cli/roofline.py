"""``governor roofline``: time and energy of a network on a board, predicted without hardware."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from governor.cli import refuse
from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.errors import InputError
from governor.progress import progress, with_progress
from governor.roofline.board import Status
from governor.units import (
    format_duration,
    format_energy,
    format_percent,
    format_power,
    parse_duration,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from governor.roofline.board import Board
    from governor.roofline.forecast import Forecast
    from governor.roofline.published import Compared, Published
    from governor.roofline.tuning import Setting
    from governor.roofline.work import Work

ORIGIN = "Predicted: computed from counted work and the board's constants; nothing was measured."


def roofline(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A built-in network, an .onnx file, a TensorRT inspector's .json, "
            "or package.module:callable.",
        ),
    ] = None,
    board: Annotated[str, typer.Option(help="A board's name, or the .toml of one.")] = "agx-orin",
    mode: Annotated[str, typer.Option(help="A power mode, or all.")] = "all",
    stack: Annotated[
        str | None, typer.Option(help="pytorch, onnxruntime, tensorrt, ...; by MODEL's kind.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, tf32, fp16 or int8; by default as MODEL has it.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Batch sizes.")] = "1",
    shape: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Of an item, where MODEL does not say: 3,224,224."),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="A training step, not inference.")
    ] = False,
    latency_slo: Annotated[
        str | None, typer.Option("--latency-slo", metavar="BOUND", help="50ms or 20fps, a batch.")
    ] = None,
    flop: Annotated[
        float | None, typer.Option("--work", metavar="FLOP", help="Instead of MODEL: an item's.")
    ] = None,
    moved: Annotated[
        float | None, typer.Option("--bytes", metavar="BYTES", help="Instead of MODEL: an item's.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: .png, .svg or .html.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(metavar="nvpmodel", help="The tuned clocks as a power mode.")
    ] = None,
    conf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The nvpmodel.conf to add it to.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write that.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Compare with published figures instead.")
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="With --published: fit half of them anew.")
    ] = False,
    check_counts: Annotated[
        bool,
        typer.Option("--check-counts", help="Compare counted FLOP and bytes with published ones."),
    ] = False,
) -> None:
    """Predict time and energy at every clock, and the clocks of least energy.

    From a network's counted work and the board's constants: no hardware is needed or touched.
    """
    check_writable(json_file, plot, output, inputs=() if model is None else [Path(model)])
    if plot is not None:
        from governor.report.drawing import check_format
        from governor.report.roofline import FORMATS

        check_format(plot, FORMATS)
    others = {each.name for each in cast(Any, context).command.params}
    if check_counts:
        refuse(context, others - {"model", "check_counts"}, "has no effect on --check-counts")
        _check_counts(model)
        return
    if published:
        allowed = {"published", "refit", "json_file", "plot"}
        refuse(context, others - allowed, "does not go with --published; leave it out")
        _compare(json_file, plot, refit=refit)
        return
    if refit:
        raise InputError("--refit fits published figures; give it with --published")
    from governor.roofline.boards import load_board
    from governor.roofline.forecast import forecast

    chosen = load_board(board)
    modes = chosen.modes if mode.lower() == "all" else (chosen.mode(mode),)
    named = stack or _stack_of(model)
    slo_s = None if latency_slo is None else parse_duration(latency_slo, "--latency-slo")
    addition = _check_export(export, conf, output)
    item = None if shape is None else _whole(shape, "--shape", "sizes", "3,224,224")
    with progress("Counting", None):
        work = _work(model, flop, moved, precision, item, training=training, stack=named)
    forecasts = [
        forecast(chosen, named, work.scaled(size), modes, slo_s)
        for size in dict.fromkeys(_whole(batch, "--batch", "batch sizes", "1,4,16"))
    ]
    console = result_console()
    _print(console, forecasts)
    if json_file is not None:
        write_json(json_file, to_json(forecasts))
    if plot is not None:
        from governor.report.roofline import draw_forecasts

        draw_forecasts(plot, forecasts)
    if addition is not None:
        _export(console, *addition, forecasts[0])


def _stack_of(model: str | None) -> str:
    endings = {".onnx": "onnxruntime", ".json": "tensorrt"}
    return endings.get(Path(model or "").suffix, "pytorch")


def _whole(text: str, option: str, what: str, example: str) -> list[int]:
    """Whole numbers above 0 as people list them."""
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(f"{option} {text!r} is no list of {what}; write it like {example}")
    return [int(number) for number in numbers]


def _work(
    model: str | None,
    flop: float | None,
    moved: float | None,
    precision: str | None,
    item: Sequence[int] | None,
    *,
    training: bool,
    stack: str,
) -> Work:
    """One item's work, counted or as given."""
    if model is None:
        if item is not None:
            raise InputError("--shape is that of MODEL's items; give one, or leave it out")
        if flop is None or moved is None:
            raise InputError("give a MODEL, or its counts with --work FLOP and --bytes BYTES")
        from governor.roofline.forecast import given_work

        return given_work(flop, moved, precision or "fp32", training=training)
    if flop is not None or moved is not None:
        raise InputError("give a MODEL or --work and --bytes, not both")
    from governor.roofline.counting import count_work

    return count_work(
        model,
        batch_size=1,
        item_shape=item,
        precision=precision,
        training=training,
        fused=stack != "pytorch",
    )


def _check_export(
    export: str | None, conf: Path | None, output: Path | None
) -> tuple[Path, Path] | None:
    """The file to add a mode to and where to write it, looked at before the work."""
    if export is None:
        if conf is not None or output is not None:
            raise InputError("--conf and --output belong to --export nvpmodel; give that too")
        return None
    if export != "nvpmodel":
        raise InputError(f"--export {export!r} is unknown; the only form is nvpmodel")
    if conf is None or output is None:
        raise InputError("--export nvpmodel needs --conf FILE to add to and -o FILE to write")
    if output.exists() and conf.exists() and output.samefile(conf):
        raise InputError(f"{output} is the --conf itself; write to another file and compare first")
    if not os.access(conf, os.R_OK) or conf.is_dir():
        raise InputError(f"cannot read {conf}; give the path of an nvpmodel.conf")
    return conf, output


def _export(console: Console, conf: Path, output: Path, forecast: Forecast) -> None:
    from governor.devices.nvpmodel_conf import Caps, add_mode

    tuned = forecast.within_slo if forecast.slo_s is not None else forecast.least
    if tuned is None:
        raise InputError("no setting keeps --latency-slo, so there is no mode to write; loosen it")
    base = forecast.base.name
    name = "TUNED_" + re.sub(r"[^A-Z0-9]+", "_", Path(forecast.work.name).stem.upper()).strip("_")
    caps = Caps(cpu_hz=tuned.cpu_hz, gpu_hz=tuned.gpu_hz, emc_hz=tuned.emc_hz)
    comment = (
        f"{base} with clocks predicted (not measured) by energy-governor for "
        f"{forecast.work.name}, {forecast.stack}, batch {forecast.work.batch_size}"
    )
    try:
        content, number = add_mode(conf.read_bytes(), base, name, caps, comment)
    except InputError as error:
        raise InputError(f"{conf}: {error}") from error
    output.write_bytes(content)
    console.print(
        f"Wrote {output}: mode {number}, {name}, as {base} but capped at "
        f"{_clocks(tuned)} MHz (CPU/GPU/EMC)."
    )


def _print(console: Console, forecasts: Sequence[Forecast]) -> None:
    first = forecasts[0]
    kind = "a training step" if first.work.training else "inference"
    console.print(
        f"{first.work.name}, {kind}, on {first.board.title} with {first.stack}, "
        f"{first.work.precision}\n{ORIGIN}\n{_grounds(first.board)}",
        highlight=False,
    )
    console.print(_work_table(forecasts))
    if first.work.unknown:
        unknown = ", ".join(f"{one.operator} ({one.count}x)" for one in first.work.unknown)
        console.print(f"No rule counts these operators; their FLOP are a lower bound: {unknown}")
    console.print(_roof_table(first))
    for forecast in forecasts:
        console.print(_settings_table(forecast))
        for line in _remarks(forecast):
            console.print(line, highlight=False)


def _grounds(board: Board) -> str:
    """How many of the board's constants rest on what."""
    counts = Counter(constant.status for constant in board.constants.values())
    parts = (f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    return f"The board's constants: {', '.join(parts)}; how far they carry: docs/roofline.md"


def _work_table(forecasts: Sequence[Forecast]) -> Table:
    table = result_table(
        "Work of a batch, and what limits it at the first mode's clocks",
        "batch", "GFLOP", "MB", "FLOP/B", "kernels", "arith-\nmetic", "memory", "kernel\nstarts",
    )  # fmt: skip
    for forecast in forecasts:
        work, limits = forecast.work, forecast.limits
        table.add_row(
            str(work.batch_size),
            f"{work.flop / 1e9:.4g}",
            f"{work.bytes / 1e6:.4g}",
            f"{work.intensity:.1f}",
            str(work.kernels),
            *(format_percent(share) for share in (limits.compute, limits.memory, limits.launch)),
        )
    return table


def _roof_table(forecast: Forecast) -> Table:
    precision = forecast.roofs[0].precision
    table = result_table(
        f"Rooflines, {precision.upper()} {forecast.main_kind}",
        "mode", "TFLOP/s", "GB/s", "ridge\nFLOP/B", "energy\nbalance\nFLOP/B",
        "half of\nbest J\nFLOP/B", "standing\nW",
    )  # fmt: skip
    for mode, roof in zip(forecast.modes, forecast.roofs, strict=True):
        table.add_row(
            mode.name,
            f"{roof.flop_per_s / 1e12:.2f}",
            f"{roof.bytes_per_s / 1e9:.1f}",
            f"{roof.ridge:.1f}",
            f"{roof.energy_balance:.1f}",
            f"{roof.half_efficiency:.1f}",
            f"{roof.standing_w:.1f}",
        )
    return table


def _settings_table(forecast: Forecast) -> Table:
    slo = forecast.slo_s is not None
    columns = ["least:\ntime/J"] + ["SLO:\ntime/J"] * slo
    table = result_table(
        f"Batch {forecast.work.batch_size}: modes at their caps; how far off the tuned clocks are",
        "setting", "CPU/GPU/EMC\nMHz", "time", "power", "energy\nan item", *columns,
    )  # fmt: skip
    tuned = [forecast.least] + [forecast.within_slo] * slo
    for setting in forecast.at_modes:
        distances = [_distance(one, setting) for one in tuned]
        table.add_row(*_cells(setting, forecast), *distances)
    table.add_section()
    for setting in tuned:
        if setting is not None:
            table.add_row(*_cells(setting, forecast), style="bold")
    return table


def _cells(setting: Setting, forecast: Forecast) -> tuple[str, ...]:
    return (
        setting.name,
        _clocks(setting),
        format_duration(setting.time_s),
        format_power(setting.power_w) + "*" * setting.capped,
        format_energy(setting.energy_j / forecast.work.batch_size),
    )


def _clocks(setting: Setting) -> str:
    hertz = (setting.cpu_hz, setting.gpu_hz, setting.emc_hz)
    return "/".join(f"{hz / 1e6:.0f}" for hz in hertz)


def _distance(tuned: Setting | None, setting: Setting) -> str:
    if tuned is None:
        return "–"
    time, energy = tuned.time_s / setting.time_s - 1, tuned.energy_j / setting.energy_j - 1
    return f"{100 * time:+.0f}/{100 * energy:+.0f} %"


def _remarks(forecast: Forecast) -> list[str]:
    lines: list[str] = []
    if any(setting.capped for setting in forecast.at_modes):
        lines.append(f"* slowed down to the module's limit of {forecast.board.limit_w:g} W")
    if forecast.slo_s is not None and forecast.within_slo is None:
        lines.append(
            f"No setting keeps the SLO of {format_duration(forecast.slo_s)}; the fastest mode "
            f"takes {format_duration(min(one.time_s for one in forecast.at_modes))}."
        )
    gated, idling = (hz / 1e6 for hz in (forecast.race_gated_hz, forecast.race_idling_hz))
    top = forecast.modes[0].gpu_hz / 1e6
    if gated >= top:
        lines.append(f"Racing to idle wins at every GPU clock, up to {top:.0f} MHz.")
    else:
        lines.append(
            f"Racing to idle wins up to a GPU clock of {gated:.0f} MHz "
            f"({idling:.0f} if idling costs power); above it, slower saves energy."
        )
    return lines


def to_json(forecasts: Sequence[Forecast]) -> dict[str, object]:
    """Everything that the tables show, in SI units; figures are per batch."""
    first = forecasts[0]
    return {
        "origin": ORIGIN,
        "board": first.board.name,
        "stack": first.stack,
        "model": first.work.name,
        "precision": first.work.precision,
        "training": first.work.training,
        "slo_s": first.slo_s,
        "roofs": {
            mode.name: asdict(roof)
            | {
                "ridge_flop_per_byte": roof.ridge,
                "energy_balance_flop_per_byte": roof.energy_balance,
                "half_efficiency_flop_per_byte": roof.half_efficiency,
            }
            for mode, roof in zip(first.modes, first.roofs, strict=True)
        },
        "batches": [
            {
                "batch_size": forecast.work.batch_size,
                "flop": forecast.work.flop,
                "bytes": forecast.work.bytes,
                "kernels": forecast.work.kernels,
                "limits": asdict(forecast.limits),
                "modes": [_setting_json(setting) for setting in forecast.at_modes],
                "least_energy": _setting_json(forecast.least),
                "within_slo": _setting_json(forecast.within_slo),
                "layers": _layers_json(forecast),
                "race_until_gpu_hz": {
                    "gated": forecast.race_gated_hz,
                    "idling": forecast.race_idling_hz,
                },
            }
            for forecast in forecasts
        ],
        "unknown_operators": [asdict(one) for one in first.work.unknown],
    }


def _layers_json(forecast: Forecast) -> list[dict[str, object]]:
    """Each layer at the first mode's caps."""
    from governor.roofline.prediction import Clocks, layer_joules, layer_seconds

    board, work, base = forecast.board, forecast.work, forecast.base
    stack, clocks = board.stack(forecast.stack), Clocks.at(base)
    seconds = layer_seconds(board, stack, work, clocks.gpu_hz, clocks.emc_hz, clocks.gpu_share)
    joules = layer_joules(board, stack, work, base)
    return [
        {
            "name": layer.name,
            "operator": layer.operator,
            "flop": layer.flop,
            "bytes": layer.bytes,
            "gpu_s": gpu_s,
            "energy_j": energy_j,
        }
        for layer, gpu_s, energy_j in zip(
            work.layers, seconds[0].tolist(), joules.tolist(), strict=True
        )
    ]


def _setting_json(setting: Setting | None) -> dict[str, object] | None:
    if setting is None:
        return None
    fields: dict[str, object] = asdict(setting)
    return fields | {"power_w": setting.power_w}


def _check_counts(model: str | None) -> None:
    """Counts against published ones, of one network if named, and what any difference is."""
    from governor.roofline.count_check import compare_counts, count_published

    wanted = [model] if model else ()
    rows = list(with_progress(compare_counts(wanted), count_published(wanted), "Counting"))
    if not rows:
        raise InputError(f"no counts of {model!r} are published; leave it out to see which are")
    console = result_console()
    table = result_table(
        "Published and counted here, in 1e9; of Pagoda's 11 batch sizes the furthest apart",
        "network", "by", "what", "batch", "published", "counted", "difference",
    )  # fmt: skip
    for row in rows:
        difference = f"{100 * row.difference:+.1g} %" if row.difference else "none"
        figures = (f"{row.batch_size}", f"{row.published / 1e9:.7g}", f"{row.counted / 1e9:.7g}")
        table.add_row(row.network, row.source, row.quantity, *figures, difference)
    console.print(table)
    for network, why in dict.fromkeys((row.network, row.why) for row in rows if row.why):
        console.print(f"{network}: {why}", highlight=False)


def _compare(json_file: Path | None, plot: Path | None, *, refit: bool) -> None:
    from governor.roofline.board_file import with_constants
    from governor.roofline.published import compare, fit, load_set, set_names

    console = result_console()
    console.print(
        "Predicted against published figures. Of each set the 1st, 3rd, 5th ... point was\n"
        "fitted by the boards' derived constants, the others only tested.",
        highlight=False,
    )
    names = set_names()
    known = list(with_progress(map(load_set, names), len(names), "Counting"))
    sets: list[tuple[Published, list[Compared]]] = []
    boards = dict.fromkeys(one.board.name for one in known)
    for name in with_progress(boards, len(boards), "Fitting" if refit else "Comparing"):
        of_board = [one for one in known if one.board.name == name]
        board = of_board[0].board
        if refit:
            values = fit(of_board)
            board = with_constants(board, values)
            console.print(_fit_table(of_board[0].board, values))
        sets += [(one, compare(one, board)) for one in of_board]
    for published, compared in sets:
        console.print(_points_table(published, compared))
    console.print(_summary_table(sets))
    if json_file is not None:
        write_json(json_file, [_set_json(*one) for one in sets])
    if plot is not None:
        from governor.report.roofline import draw_published

        draw_published(plot, sets)


def _fit_table(board: Board, values: Mapping[str, float]) -> Table:
    table = result_table(f"{board.title}: constants fitted anew", "constant", "file", "fitted")
    for key, value in values.items():
        table.add_row(key, f"{board.constants[key].value:g}", f"{value:.3g}")
    return table


def _points_table(published: Published, compared: Sequence[Compared]) -> Table:
    table = result_table(
        f"{published.title}: {published.board.title}\n{published.source}",
        "network", "CPU/GPU/EMC\nMHz", "half", "time", "pre-\ndicted", "energy", "pre-\ndicted",
    )  # fmt: skip
    for one in compared:
        point, clocks = one.point, one.point.clocks
        hertz = (clocks.cpu_hz[0], clocks.gpu_hz[0], clocks.emc_hz[0])
        cells = [
            point.label,
            "/".join(f"{hz / 1e6:.0f}" for hz in hertz),
            "fit" if point.fitted else "test",
            format_duration(point.time_s),
            f"{100 * one.time_error:+.0f} %",
        ]
        if point.energy_j is not None and one.energy_error is not None:
            cells += [
                format_energy(point.energy_j),
                f"{100 * one.energy_error:+.0f} %",
            ]
        table.add_row(*cells)
    return table


def _summary_table(sets: Sequence[tuple[Published, Sequence[Compared]]]) -> Table:
    from governor.roofline.published import summarise

    table = result_table(
        "Mean absolute error",
        "set", "fitted\npoints", "time", "energy", "tested\npoints", "time", "energy",
    )  # fmt: skip
    everything = [one for _, compared in sets for one in compared]
    for name, compared in [*((one.name, c) for one, c in sets), ("all", everything)]:
        cells: list[str] = []
        for half in (True, False):
            found = summarise([one for one in compared if one.point.fitted is half])
            cells += [
                str(found.latencies),
                *(
                    "–" if error is None else format_percent(error)
                    for error in (found.time_error, found.energy_error)
                ),
            ]
        table.add_row(name, *cells, style="bold" if name == "all" else None)
    return table


def _set_json(published: Published, compared: Sequence[Compared]) -> dict[str, object]:
    return {
        "set": published.name,
        "board": published.board.name,
        "stack": published.stack,
        "source": published.source,
        "points": [
            {
                "network": one.point.label,
                "fitted": one.point.fitted,
                "cpu_hz": float(one.point.clocks.cpu_hz[0]),
                "gpu_hz": float(one.point.clocks.gpu_hz[0]),
                "emc_hz": float(one.point.clocks.emc_hz[0]),
                "published_s": one.point.time_s,
                "predicted_s": one.time_s,
                "published_j": one.point.energy_j,
                "predicted_j": None if one.point.energy_j is None else one.energy_j,
            }
            for one in compared
        ],
    }
