"""``governor calibrate``: measure a board's roofline, and save it as a board file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from governor.cli import refuse
from governor.cli.replay import check_writable, result_console, result_table
from governor.errors import DeviceError, InputError, NoDeviceError
from governor.progress import progress
from governor.units import format_percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from governor.calibration.bench import Bench, Kernel, Ran
    from governor.calibration.fit import Power, Rates
    from governor.calibration.measure import Look, Run, Session
    from governor.calibration.ridge import Ridge
    from governor.devices.device import Device
    from governor.devices.emulated import EmulatedBoard
    from governor.roofline.board import Board, Constant, Status
    from governor.space import Space

_LAUNCH_CLOCKS = 1e7
"""Of an emulated kernel: 8 to 50 ms, in which launching it is lost."""
POINTS, LEAST_POINTS, QUICK_POINTS = 8, 4, 5
"""Fewer levels of a clock show no voltage floor."""


def calibrate(
    context: typer.Context,
    device: Annotated[str, typer.Option(help="auto, or emulated:BOARD in virtual time.")] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.toml", help="Save the board file there."),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="What is not measured is taken from there; by default from the device's own.",
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=LEAST_POINTS,
            max=1000,
            help="Levels of the computing clock.",
            show_default=f"{POINTS}; {QUICK_POINTS} with --quick",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer levels, shorter looks.")] = False,
    kernels: Annotated[str, typer.Option(help="auto, pycuda, torch or numpy.")] = "auto",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Set nothing: only at the present clocks.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of an emulated board's noise.")] = 0,
) -> None:
    """Measure peaks, bandwidths, energies and standing power of this board.

    Kernels of known work run at several operating points while the sensors are read; the clocks
    are put back at the end, however it comes. Where nothing can be set it measures at the
    present clocks, and without sensors times alone.
    """
    from governor.calibration.measure import Session, plan

    check_writable(output)
    if output is not None and output.suffix != ".toml":
        raise InputError(f"{output} does not end in .toml, as board files do; name it so")
    if device.startswith("emulated:"):
        refuse(context, ["kernels"], "are those of real hardware; an emulated board has its own")
    else:
        refuse(context, ["seed"], "is that of an emulated board's noise; drop it on a real one")
    if read_only:
        refuse(context, ["points"], "is how many clocks to set, and --read-only sets none")
    console = result_console()
    with ExitStack() as stack:
        subject = _open(device, kernels, seed, console)
        stack.callback(subject.close)
        base = _base(board, subject)
        space = None if read_only else subject.space
        bench = subject.bench
        levels = points or (QUICK_POINTS if quick else POINTS)
        looks = plan(space, bench.kernels, bench.clock, levels, warm=not quick)
        session = Session(subject.device, subject.bench, quick=quick)
        runs = _run(session, looks)
    for why, dropped in session.dropped.items():
        console.print(f"{dropped} of {len(looks)} looks were dropped: {why}")
    _conclude(subject, base, runs, output, console)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is measured, and by what.

    Attributes:
        device: None: nothing can be set or read here.
        name: of the board, for its file.
        owned: whether to close the device.
    """

    device: Device | None
    bench: Bench
    name: str
    emulated: bool

    @property
    def space(self) -> Space | None:
        """What can be set."""
        return None if self.device is None else self.device.space

    @property
    def said(self) -> Status:
        """What its constants rest on."""
        return "emulated" if self.emulated else "measured"

    def close(self) -> None:
        """Put the clocks back, and let go of everything."""
        try:
            self.bench.close()
        finally:
            if self.device is not None:
                self.device.close()


def _open(device: str, kernels: str, seed: int, console: Console) -> _Subject:
    from governor.calibration.choose import open_bench
    from governor.devices import open_device

    kind, _, name = device.partition(":")
    if kind == "emulated":
        return _emulated(name, seed)
    bench, refusals = open_bench(kernels)
    for what, why in refusals.items():
        console.print(f"not {what}: {why}", highlight=False, markup=False)
    console.print(f"kernels: {bench.description}", highlight=False)
    try:
        found = open_device(device)
    except NoDeviceError as error:
        bench_only = _Subject(None, bench, "this-computer", emulated=False)
        why = f"times alone, at the present clocks: {error.looked_for}"
        console.print(why, highlight=False, markup=False)
        return bench_only
    except BaseException:
        bench.close()
        raise
    subject = _Subject(found, bench, found.info.name, emulated=found.info.emulated)
    if bench.clock == "cpu_hz" and "gpu_hz" in found.space.names:
        subject.close()
        raise DeviceError(
            f"no kernels of {found.info.name}'s GPU can run here: install pycuda or a PyTorch "
            "with CUDA"
        )
    return subject


def _emulated(name: str, seed: int) -> _Subject:
    from governor.devices.emulated import EmulatedBoard

    board = EmulatedBoard(name, seed=seed)
    return _Subject(board, _EmulatedBench(board, name), name, emulated=True)


def _base(board: str | None, subject: _Subject) -> Board:
    """The board file that this one begins as."""
    from governor.calibration.file import plain_board
    from governor.roofline.boards import board_names, load_board

    if board is not None:
        return load_board(board)
    if subject.name in board_names():
        return load_board(subject.name)
    levels: dict[str, Sequence[float]] = {}
    if subject.device is not None:
        knobs = {knob.name: knob.levels for knob in subject.device.space.knobs}
        for part, knob in (
            ("cpu", "cpu_hz"), ("gpu", subject.bench.clock), ("memory", "emc_hz"),
        ):  # fmt: skip
            if knob in knobs:
                levels[part] = knobs[knob]
    present = subject.bench.present_hz()
    if "gpu" not in levels and present is not None:
        levels["gpu"] = (float(round(present)),)
    return plain_board(subject.name, subject.name, levels)


def _run(session: Session, looks: Sequence[Look]) -> list[Run]:
    begun = count()
    with progress("Measuring", len(looks)) as tell:
        return session.run(looks, lambda _look: tell(next(begun)))


@dataclass(frozen=True)
class _Outcome:
    """What was measured; ``power`` None: without sensors."""

    constants: dict[str, Constant]
    rates: Rates
    ridge: Ridge | None
    power: Power | None


def calibrate_emulated(name: str, seed: int = 0) -> dict[str, Constant]:
    """The constants of an emulated board as a whole calibration finds them, by dotted name."""
    from governor.calibration.measure import Session, plan
    from governor.roofline.boards import load_board

    with closing(_emulated(name, seed)) as subject:
        looks = plan(subject.space, subject.bench.kernels, subject.bench.clock, POINTS)
        runs = Session(subject.device, subject.bench).run(looks, lambda _look: None)
        return _fit(subject, load_board(name), runs).constants


def _fit(subject: _Subject, base: Board, runs: Sequence[Run]) -> _Outcome:
    from governor.calibration.file import Provenance, calibrated, curves_of, known_terms
    from governor.calibration.fit import fit_power, fit_rates
    from governor.calibration.ridge import fit_ridge

    clock = subject.bench.clock
    rates = fit_rates(runs, clock)
    metered = [run for run in runs if math.isfinite(run.power_w)]
    power = None
    if metered:
        power = fit_power(metered, clock, base.cpu.cores, curves_of(base), known_terms(base))
    source = f"governor calibrate, {date.today().isoformat()}, {subject.bench.description}"
    constants = calibrated(base, rates, power, Provenance(subject.said, source))
    return _Outcome(constants, rates, fit_ridge(runs), power)


def _conclude(
    subject: _Subject, base: Board, runs: Sequence[Run], output: Path | None, console: Console
) -> None:
    """Fit, show, and save."""
    from governor.roofline.board_file import format_board, parse_board

    if not runs:
        raise DeviceError("nothing could be measured; see what was dropped above")
    found = _fit(subject, base, runs)
    text = format_board(base.title, found.constants)
    parse_board(text, subject.name, "the calibration")
    console.print(_table(base, found.constants, subject.said))
    worst = format_percent(found.rates.worst)
    console.print(f"streams lie within {worst} of the two bandwidth limits")
    if found.ridge is not None:
        console.print(_bend(found.ridge), highlight=False)
    if found.power is None:
        console.print("no sensors: energies and standing power stay as they were")
    else:
        error = format_percent(found.power.error)
        console.print(f"power lies {error} from the fit (root mean square)")
    if output is not None:
        output.write_text(text, encoding="utf-8")
        console.print(f"saved {output}", highlight=False)


def _bend(ridge: Ridge) -> str:
    """The ridge point of the sweep between stream and product, at the highest clocks."""
    least = "" if ridge.reached else "at least "
    return (
        f"ridge point by the sweep of intensities: {least}{ridge.intensity:.3g} FLOP a byte "
        f"({ridge.flop_per_s / 1e9:.4g} GFLOP/s, {ridge.bytes_per_s / 1e9:.4g} GB/s, "
        f"within {format_percent(ridge.worst)})"
    )


def _table(base: Board, constants: Mapping[str, Constant], said: str) -> Table:
    """What was measured, with its interval, beside what the base had."""
    table = result_table(f"{base.title}: {said}", "constant", said, "±", "before")
    for key, constant in constants.items():
        before = base.constants.get(key)
        if before is constant:
            continue
        was = "" if before is None else f"{_shown(before.value)} {before.status}"
        table.add_row(key, *_stated(constant), was)
    return table


def _stated(constant: Constant) -> tuple[str, str]:
    """The value, and half of its interval over it; where that is wide, the interval alone.

    Of several numbers, the first and the last, and the widest interval.
    """
    from governor.calibration.file import is_told, numbers

    value, low, high = constant.value, constant.low, constant.high
    if low is None or high is None:
        return _shown(value), ""
    if not isinstance(value, list) and not is_told(constant):
        return f"{low:.3g} to {high:.3g}" if math.isfinite(high) else f"at least {low:.4g}", ""
    closed = [each for each in numbers(constant) if math.isfinite(each[2]) and each[0]]
    if not closed:
        return _shown(value), "open"
    widest = max((high - low) / 2 / value for value, low, high in closed)
    shown = _shown(value)
    if isinstance(high, list) and high[-1] == math.inf:
        shown = f"{value[0]:.3g} .. >={low[-1]:.3g}"
    return shown, format_percent(widest)


def _shown(value: Any) -> str:
    """A number; of a list its ends; of a voltage curve its rise, and above how many MHz."""
    if not isinstance(value, list):
        return f"{value:.5g}"
    if isinstance(value[0], list):
        curve = cast("list[list[float]]", value)
        return f"x{curve[-1][1]:.3g} >{curve[0][0]:.0f}"
    return f"{value[0]:.3g} .. {value[-1]:.3g}"


class _EmulatedBench:
    """Microbenchmarks on an emulated board, in its own time."""

    clock = "gpu_hz"

    def __init__(self, board: EmulatedBoard, name: str) -> None:
        from governor.calibration.bench import MIXES, STREAMS, Kernel
        from governor.devices.emulated.hardware import load_board

        self._board = board
        hardware = load_board(name)
        self._gpu = gpu = hardware.gpu
        plain = gpu.flop_per_clock["fp32"]
        self.description = f"emulated {name}"
        self.kernels: Sequence[Kernel] = (
            *(
                # No plain core does more than two halves where it does one single.
                Kernel(
                    purpose="compute", precision=each, unit="tensor" if rate > 2 * plain else "cuda"
                )
                for each, rate in gpu.flop_per_clock.items()
            ),
            *STREAMS,
            *MIXES,
            Kernel(purpose="cores", cores=hardware.cpu.cores),
        )

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Launches of about ten million GPU clocks, until the time is over."""
        from governor.calibration.bench import Ran
        from governor.devices.emulated.workload import Probe

        board, gpu = self._board, self._gpu
        if kernel.purpose == "cores":
            board.set_contention(cpu_cores=kernel.cores)
            board.idle(seconds)
            board.set_contention()
            return Ran(0.0, 0.0, seconds)
        if kernel.purpose == "compute":
            flop = _LAUNCH_CLOCKS * gpu.flop_per_clock[kernel.precision]
            probe = Probe(precision=kernel.precision, flops=flop)
        else:
            moved = _LAUNCH_CLOCKS * gpu.bytes_per_clock
            probe = Probe(flops=moved * kernel.intensity, moved_bytes=moved)
        board.set_workload(probe)
        began_s, count = board.clock.now(), 0
        while board.clock.now() < began_s + seconds:
            board.infer()
            count += 1
        spent_s = board.clock.now() - began_s
        return Ran(count * probe.flops, count * probe.moved_bytes, spent_s)

    def present_hz(self) -> float | None:
        """The device tells."""
        return None

    def close(self) -> None:
        """There is nothing to let go of."""
