"""``governor sweep``: measure a workload at many settings of a device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.cli.replay import (
    ReportFile,
    check_report,
    check_writable,
    result_console,
    result_table,
)
from governor.errors import GovernorError, InputError
from governor.exits import Ended, ended_in_order
from governor.progress import progress
from governor.units import (
    WARMEST_C,
    format_duration,
    format_energy,
    format_power,
    parse_temperature,
)

if TYPE_CHECKING:
    from rich.console import Console

    from governor.devices.device import Device
    from governor.space import Space
    from governor.sweep.file import SweepFile
    from governor.sweep.schedule import Measurement
    from governor.sweep.sweep import OnError, Rules, Sweep

MOST = 1_000_000
"""Measurements of a sweep, inferences of a measurement, and items of a batch."""


def sweep(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.csv", help="The trace to write."),
    ],
    device: Annotated[
        str, typer.Option(help="auto, emulated:BOARD/WORKLOAD, or jetson:FOLDER.")
    ] = "auto",
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="WORKLOAD",
            help="A built-in network, package.module:callable or FILE.onnx; an emulated board has "
            "one of its own.",
        ),
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=LEVELS]",
            help="What to sweep: gpu_hz, gpu_hz=300MHz:1GHz, gpu_hz=/2 (every second), "
            "gpu_hz=5 (so many), cpu_hz=729MHz,1.2GHz. Others stay at their largest level.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...|study", help="Batch sizes.")] = "1",
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", help="Only so many settings, spread evenly.", min=1),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Of each setting.")] = 3,
    inferences: Annotated[int, typer.Option(min=2, max=MOST, help="At least, a measurement.")] = 30,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=86_400.0, help="At least, a measurement.")
    ] = 3.0,
    warm_up: Annotated[
        int, typer.Option(min=0, max=MOST, help="Inferences left out before each.")
    ] = 3,
    cool_down: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=WARMEST_C,
            metavar="DEGREES",
            help="Each begins no warmer than the first by so much.",
        ),
    ] = 5.0,
    on_error: Annotated[
        str, typer.Option(metavar="stop|skip", help="When a setting cannot be measured.")
    ] = "stop",
    memory_mib: Annotated[
        float,
        typer.Option(
            min=1.0, max=2.0**30, help="The workload may grow by so much before it is a leak."
        ),
    ] = 2048.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the settings.")] = 0,
    ambient: Annotated[
        str | None,
        typer.Option(metavar="25C", help="Of the air, to be written down: no board knows it."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again where FILE.csv was begun before.")
    ] = False,
    report: ReportFile = None,
) -> None:
    """Measure latency, power and energy at many settings of a device.

    Writes the trace that replay reads, every repeat of it beside that, and where it came from.
    Killed, it goes on where it was when the same command is run again.
    """
    from governor.sweep.file import describe
    from governor.sweep.provenance import provenance
    from governor.sweep.schedule import schedule
    from governor.sweep.sweep import Rules, told

    if output.suffix != ".csv":
        raise InputError(f"--output {output}: give a file name that ends in .csv")
    if on_error not in ("stop", "skip"):
        raise InputError(f"--on-error must be stop or skip, got {on_error!r}")
    ambient_c = None if ambient is None else parse_temperature(ambient, "--ambient")
    sizes = _sizes(batch, workload or _own_workload(device))
    check_writable(output)
    check_report(report)
    opened, infer = open_workload(device, workload)
    with _closed_after(opened):
        space = _space(opened, _knobs(knob), sizes, sample, seed)
        if repeats * (len(space) + 1) > MOST:
            raise InputError(
                f"--repeats {repeats}: of {len(space) + 1} settings, that is more than {MOST:,} "
                "measurements; lower it, or take --sample"
            )
        rules = Rules(
            inferences=inferences,
            seconds=seconds,
            warm_up=warm_up,
            cool_down_c=cool_down,
            memory_bytes=memory_mib * 2**20,
        )
        name = workload or _own_workload(device)
        about = describe(opened, name, space, rules, repeats, seed)
        started = provenance(opened, sys.argv, ambient_c)
        file = _file(output, space, about, started, overwrite)
        measurements = schedule(space, repeats, seed)
        console = result_console()
        _announce(console, opened, name, file, measurements)
        swept = run(opened, file.remaining(measurements), infer, file, rules, on_error)
        _show(console, file, opened.info.emulated, swept.redone)
        if report is not None:
            _write_report(report, output)
    if swept.failures:
        raise GovernorError(f"{told(swept.failures)}; run the same command again to try just those")


@contextmanager
def _closed_after(device: Device) -> Generator[None]:
    """What ended the sweep is told even where the board cannot be put back after it."""
    try:
        yield
    except GovernorError as error:
        try:
            device.close()
        except GovernorError as problem:
            if str(problem) not in str(error):
                typer.echo(f"governor: {problem}", err=True)
        raise
    except BaseException:
        device.close()
        raise
    device.close()


def _write_report(path: Path, trace: Path) -> None:
    from governor.devices.trace import read_traces
    from governor.report.beside import beside
    from governor.report.document import write_report
    from governor.report.sources import of_sweep

    known = beside(trace)
    reports = [of_sweep(each, known=known) for each in read_traces([trace])]
    write_report(path, reports[0].title if len(reports) == 1 else trace.stem, reports)


def _sizes(text: str, workload: str) -> tuple[int, ...]:
    if text == "study":
        from governor.cli.study.nano_xavier import NETWORKS

        if workload not in NETWORKS:
            raise InputError(
                f"--batch study: {workload} is not of the study, whose networks are "
                f"{', '.join(NETWORKS)}; give sizes such as 1,4,16"
            )
        return NETWORKS[workload]
    parts = text.split(",")
    if any(not part.strip().isdecimal() or not 1 <= int(part) <= MOST for part in parts):
        raise InputError(f"--batch must be sizes such as 1,4,16, at most {MOST:,}, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _knobs(options: Sequence[str] | None) -> dict[str, str]:
    knobs: dict[str, str] = {}
    for option in options or ():
        name, _, levels = option.partition("=")
        if name in knobs:
            raise InputError(f"--knob {name} is given twice; give its levels once")
        knobs[name] = levels
    return knobs


def _space(
    device: Device,
    knobs: dict[str, str],
    sizes: tuple[int, ...],
    count: int | None,
    seed: int,
) -> Space:
    from governor.devices.device import include_named
    from governor.space import Knob
    from governor.sweep.schedule import sample, thin

    include_named(device, knobs)
    space = thin(device.space, knobs)
    if count is not None:
        space = sample(space, count, seed)
    return space.with_knob(Knob("batch_size", tuple(float(size) for size in sizes)))


def _own_workload(device: str) -> str:
    from governor.devices import DEFAULT_WORKLOAD

    return device.partition("/")[2] or DEFAULT_WORKLOAD


def open_workload(device: str, workload: str | None) -> tuple[Device, Callable[[int], object]]:
    """The device, and what runs one inference of a batch on it.

    An emulated board without a workload of the user's runs its own, in virtual time.

    Raises:
        InputError: there is nothing to run, or it cannot be loaded.
    """
    from governor.devices import open_device
    from governor.workloads import workload_names

    kind, _, rest = device.partition(":")
    if workload is None:
        if kind != "emulated" or not rest:
            raise InputError(
                "--workload: say what to run on this device: package.module:callable, FILE.onnx, "
                f"or one of {', '.join(workload_names())}"
            )
        from governor.devices.emulated import EmulatedBoard

        name, _, own = rest.partition("/")
        board = EmulatedBoard(name, own or _own_workload(device))
        return board, board.infer
    from governor.sweep.workload import load_callable

    prepare = load_callable(workload)
    prepared: dict[int, Callable[[], object]] = {}

    def infer(batch_size: int) -> object:
        if batch_size not in prepared:
            prepared[batch_size] = prepare(batch_size)
        return prepared[batch_size]()

    return open_device(_like(device, workload)), infer


def _like(device: str, workload: str) -> str:
    """An emulated board lends a real loop the mix of its own network, where it knows that."""
    from governor.devices.emulated import workload_names

    if device.startswith("emulated:") and "/" not in device and workload in workload_names():
        return f"{device}/{workload}"
    return device


def _file(
    output: Path,
    space: Space,
    about: dict[str, Any],
    started: dict[str, Any],
    overwrite: bool,
) -> SweepFile:
    from governor.sweep.file import SweepFile

    if overwrite:
        for path in (output, output.with_suffix(".repeats.csv"), output.with_suffix(".json")):
            path.unlink(missing_ok=True)
    return SweepFile(output, space.names, about, started)


def run(
    device: Device,
    measurements: Sequence[Measurement],
    infer: Callable[[int], object],
    file: SweepFile,
    rules: Rules,
    on_error: OnError,
) -> Sweep:
    """Measure what is left, and write the trace of all that is there, however this ends.

    Raises:
        GovernorError: a setting could not be measured and the sweep was to stop at that, or
            what was measured could not be written.
    """
    from governor.space import named
    from governor.sweep.sweep import Sweep, told

    total = len(measurements)
    timed = not device.clock.virtual
    with ended_in_order(), progress("Measuring", total, still=timed) as tell:
        sweep = Sweep(
            device,
            measurements,
            file.keep,
            rules,
            on_error=on_error,
            on_progress=lambda left: tell(total - left),
        )
        try:
            with sweep:
                _loop(sweep, infer)
        except OSError as error:
            _finish(file, sweep)
            where = named(sweep.begun.point) if sweep.begun else "the end"
            raise GovernorError(
                f"{file.repeats_path}: cannot be written at {where} ({error.strerror}); what was "
                "measured before is kept, run the same command again to go on"
            ) from error
        except BaseException:
            _finish(file, sweep)
            raise
    try:
        file.finish(sweep.failures)
    except OSError as error:
        both = filter(None, (told(sweep.failures), _unwritten(file, error)))
        raise GovernorError("; besides: ".join(both)) from error
    return sweep


def _finish(file: SweepFile, sweep: Sweep) -> None:
    """Nothing here may hide what ended the sweep."""
    try:
        file.finish(sweep.failures)
    except OSError as error:
        typer.echo(_unwritten(file, error), err=True)


def _unwritten(file: SweepFile, error: OSError) -> str:
    return (
        f"{error.filename or file.path}: cannot be written ({error.strerror}); "
        f"{file.repeats_path} holds all that was measured, run the same command again for the rest"
    )


def _loop(sweep: Sweep, infer: Callable[[int], object]) -> None:
    for batch_size in sweep.turns():
        if (problem := _attempt(infer, batch_size)) is not None:
            sweep.fail(problem)


def _attempt(infer: Callable[[int], object], batch_size: int) -> str | None:
    """Run one inference; returns how it failed, if it did."""
    try:
        infer(batch_size)
    except (InputError, Ended):
        raise
    except (Exception, SystemExit) as error:  # the user's own workload: whatever it raises
        return f"the workload failed: {type(error).__name__}: {error}"
    return None


def _announce(
    console: Console,
    device: Device,
    workload: str,
    file: SweepFile,
    measurements: Sequence[Measurement],
) -> None:
    origin = "EMULATION: " if device.info.emulated else ""
    console.print(
        f"{origin}{device.info.description}, {workload}: {len(measurements)} measurements"
        + (f", {len(file.done)} of them done before" if file.done else ""),
        markup=False,
        soft_wrap=True,
    )


def _show(console: Console, file: SweepFile, emulated: bool, redone: Mapping[str, int]) -> None:
    """The setting of least energy an item, all-max and the defaults, for each batch size."""
    from governor.sweep.file import means

    table = result_table(
        "Least energy an item" + (" (emulated)" if emulated else ""),
        "batch",
        "latency",
        "power",
        "energy\nan item",
        "against\nall-max",
        "setting",
    )
    for column in table.columns:  # at 80 columns the setting folds, and nothing else
        column.no_wrap, column.min_width = column is not table.columns[-1], len("batch")
    for trace in file.traces():
        row = trace.optimum(float("inf"))
        fastest = trace.space.fastest
        item_j = trace.energy_j[row] / trace.batch_size
        change = trace.energy_j[row] / trace.energy_j[fastest] - 1.0
        table.add_row(
            str(trace.batch_size),
            format_duration(trace.latency_s[row]),
            format_power(trace.power_w[row]),
            format_energy(item_j),
            f"{100 * change:+.1f} %",
            str(trace.space.point(row)),
        )
    if table.row_count:
        console.print(table)
    default = file.repeats(None)
    if default:
        mean = means(default)
        console.print(
            f"The system's own governors: {format_duration(mean['mean_latency_s'])}, "
            f"{format_power(mean['power_w'])}, {format_energy(mean['energy_j'])} an item",
            markup=False,
        )
    if redone:
        causes = ", ".join(f"{count} {cause}" for cause, count in redone.items())
        console.print(f"Thrown away and measured again: {causes}", markup=False)
    console.print(
        f"{file.path}: {sum(len(trace.space) for trace in file.traces())} settings; "
        f"{file.repeats_path}: {len(file.done)} measurements",
        markup=False,
        soft_wrap=True,
    )
