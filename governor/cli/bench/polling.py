"""What reading the sensors costs a real PyTorch loop, by how often they are read.

A virtual board's files are mounted by a process of their own, as a kernel would show them, and
read by the code that reads a real board's: all rails, temperatures and throttle counters. The
loop's inferences and all times are real; only what the files say is emulated.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from governor.beat import Beat
from governor.errors import DeviceError
from governor.exits import ended_in_order, interrupts_later
from governor.progress import with_progress
from governor.units import format_duration

if TYPE_CHECKING:
    from governor.cli.bench import Measurement

PERIODS_S = (0.1, 0.01, 0.001)
STUDY = {0.1: "< 0.5 %", 0.01: "> 2 %", 0.001: "> 2 %"}
"""The overhead that the frequency study of Jetson Nano and Xavier NX saw (IGSC 2023), which
polled the power alone: below 0.5 % at 100 ms, above 2 % at 10 ms or faster."""
BUDGET = 0.5
"""Per cent of a core at 100 ms."""
WORKLOAD = "mobilenet-v2"
"""On one thread: as where a GPU does the work, the loop leaves cores to others."""
ROUNDS = 30
BLOCK_S = 0.5
"""Short, so that what else the machine does lasts for whole rounds, and falls out of ratios."""
WARM_UP = 3
_COMMAND = "from governor.cli.main import main; raise SystemExit(main())"


@dataclass(eq=False)
class Polled:
    """One period, over all rounds.

    Attributes:
        slower: by what share the loop was slower than without polling, in each round.
        dearer: by what share its own thread took more CPU time, in each round.
        cpu_s: CPU time of the thread that polls.
        elapsed_s: for so long it polled.
        polls: how often it did.
    """

    period_s: float
    slower: list[float] = field(default_factory=list[float])
    dearer: list[float] = field(default_factory=list[float])
    cpu_s: float = 0.0
    elapsed_s: float = 0.0
    polls: int = 0

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.elapsed_s


def measure(board: str, rounds: int = ROUNDS, block_s: float = BLOCK_S) -> list[Polled]:
    """Run the loop without polling and at each period in turn, ``rounds`` times over.

    Raises:
        InputError: no such board, or nothing can be mounted here.
        MissingExtraError: PyTorch is not installed.
    """
    from governor.devices.emulated.hardware import load_board
    from governor.devices.emulated.mount import check_mount_point
    from governor.sweep.network import built_in

    load_board(board)
    with ExitStack() as stack:
        stack.enter_context(ended_in_order())
        root = Path(stack.enter_context(TemporaryDirectory(prefix="governor-polling-")))
        check_mount_point(root)
        infer = built_in(WORKLOAD)(1)
        stack.enter_context(_one_thread())
        stack.enter_context(_served(board, root))
        read = stack.enter_context(_sensors(root))
        for _ in range(WARM_UP):
            infer()
        return _rounds(infer, read, rounds, block_s)


def _rounds(
    infer: Callable[[], object], read: Callable[[], object], rounds: int, block_s: float
) -> list[Polled]:
    """The ways take turns, each round in another order: whatever else runs disturbs them alike."""
    polled = [Polled(period_s) for period_s in PERIODS_S]
    ways: list[Polled | None] = [None, *polled]
    for turn in with_progress(range(rounds), rounds, "Polling", still=True):
        first = turn % len(ways)
        taken = {way: _block(infer, read, way, block_s) for way in (*ways[first:], *ways[:first])}
        for way in polled:
            wall, cpu = (mine / bare for mine, bare in zip(taken[way], taken[None], strict=True))
            way.slower.append(wall - 1.0)
            way.dearer.append(cpu - 1.0)
    return polled


def _block(
    infer: Callable[[], object], read: Callable[[], object], way: Polled | None, block_s: float
) -> tuple[float, float]:
    """Seconds an inference, and CPU seconds of the loop's thread, over about ``block_s``."""
    cpu_s = [0.0]

    def poll() -> None:
        read()
        cpu_s.append(time.thread_time())  # of this thread, since it began

    beat = None if way is None else Beat("polling", poll, way.period_s)
    start_s, start_cpu_s, count = time.perf_counter(), time.thread_time(), 0
    while time.perf_counter() < start_s + block_s:
        infer()
        count += 1
    elapsed_s, loop_cpu_s = time.perf_counter() - start_s, time.thread_time() - start_cpu_s
    if way is not None and beat is not None:
        beat.end()
        beat.join(time.monotonic() + block_s)
        way.cpu_s += cpu_s[-1]
        way.elapsed_s += elapsed_s
        way.polls += len(cpu_s) - 1
    return elapsed_s / count, loop_cpu_s / count


@contextmanager
def _one_thread() -> Generator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _served(board: str, root: Path) -> Generator[None]:
    """``governor emulate --mount`` in another process: what it computes is not ours to pay."""
    with interrupts_later():
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", _COMMAND, "emulate", "--mount", str(root), "--board", board],
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        if process.stdout is None or "is mounted" not in process.stdout.readline():
            raise DeviceError(f"{board} cannot be mounted on {root}; try governor emulate --mount")
        yield
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _sensors(root: Path) -> Generator[Callable[[], object]]:
    """Reads all that the governor reads of a Jetson's sensors."""
    from governor.devices.jetson import open_rails
    from governor.devices.thermal import Temperatures, Throttling
    from governor.lease.jetson_board import identify

    known = identify(root)
    if known is None:
        raise DeviceError(f"what is mounted on {root} is not taken for a Jetson")
    rails, temperatures, throttling = open_rails(root, known), Temperatures(root), Throttling(root)

    def read() -> object:
        now_s = time.perf_counter()
        return rails.read(), temperatures.read(now_s), throttling.read(now_s)

    try:
        yield read
    finally:
        for sensor in (rails, temperatures, throttling):
            sensor.close()


def measurements(polled: Sequence[Polled]) -> list[Measurement]:
    """For the table: what each period costs, beside what the study saw."""
    from governor.cli.bench import Measurement

    figures: list[Measurement] = []
    for each in polled:
        every = f"every {format_duration(each.period_s)}"
        budget = BUDGET if each.period_s == PERIODS_S[0] else None
        rate = f"{each.polls / each.elapsed_s:.0f} polls a second"
        slower, dearer = (100 * statistics.median(many) for many in (each.slower, each.dearer))
        figures += [
            Measurement(f"{every}: CPU of a core", 100 * each.share, "%", budget, rate),
            Measurement(
                f"{every}: loop slower", slower, "%", None,
                f"{_spread(each.slower)}; study: {STUDY[each.period_s]}{_load()}",
            ),
            Measurement(f"{every}: loop's CPU time", dearer, "%", None, _spread(each.dearer)),
        ]  # fmt: skip
    return figures


def _spread(shares: Sequence[float]) -> str:
    low, high = (100 * np.quantile(shares, share) for share in (0.25, 0.75))
    return f"half of {len(shares)} rounds {low:+.1f} to {high:+.1f} %"


def _load() -> str:
    """A warning where others want the cores too: then who sleeps now and then is let in first."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"; NOT reliable at a load of {load:.0f}" if load > cores + 1 else ""
