"""Joules of bursts of work shorter than the power sensor's refresh: ours and Zeus's, and the truth.

A virtual board's files are mounted and read as those of a real one; the truth is what the
emulation spent. All figures are those of an emulation.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from governor.cli.bench.zeus import Zeus
from governor.cli.replay import result_console, result_table
from governor.devices.device import DeviceInfo, MonotonicClock, Sample
from governor.errors import DeviceError
from governor.exits import ended_in_order
from governor.progress import with_progress
from governor.units import format_duration, format_energy

if TYPE_CHECKING:
    from governor.devices.emulated.live import LiveBoard
    from governor.devices.jetson import PowerSource
    from governor.meter import Meter
    from governor.slo import Estimate

LENGTHS_S = (0.02, 0.05, 0.2, 1.0)
WORKLOAD = "squeezenet"
"""A few milliseconds an inference, so that a burst of 20 ms can be made of them."""
POLL_S = 0.1
REST_REFRESHES = 4.2
"""Rest on either side of a burst: one refresh is the burst's, three tell what is drawn at rest."""


@dataclass(frozen=True)
class Burst:
    """One burst.

    Attributes:
        nominal_s, lasted_s: how long it was to be, and was: a whole number of inferences.
        truth_j: what the emulated board spent meanwhile.
        said: by our meter.
        zeus_j: by Zeus; None where it does not say.
    """

    nominal_s: float
    lasted_s: float
    truth_j: float
    said: Estimate
    zeus_j: float | None

    @property
    def resolved(self) -> bool:
        """Whether our meter says anything of it."""
        from governor.meter import STALE

        return self.said.relative_se < STALE

    @property
    def within(self) -> bool:
        """Whether the truth is within two of our stated standard errors."""
        return abs(self.said.value - self.truth_j) <= 2 * self.said.se


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        device: which board, for people; says that it is emulated.
        zeus: the version of Zeus, None where it did not run.
        why_not_zeus: the reason then.
    """

    device: str
    bursts: tuple[Burst, ...]
    zeus: str | None
    why_not_zeus: str


def measure(
    board: str = "orin-nano", repeats: int = 5, lengths_s: Sequence[float] = LENGTHS_S
) -> Outcome:
    """Run bursts on a mounted virtual board, under the kernel's own governors, and read them.

    Raises:
        InputError: no such board, or nothing can be mounted here.
    """
    from governor.devices.emulated.mount import mounted
    from governor.devices.emulated.sysfs import VirtualJetson

    with ExitStack() as stack:
        stack.enter_context(ended_in_order())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="governor-bursts-")))
        jetson = VirtualJetson(board, workload=WORKLOAD)
        root = stack.enter_context(mounted(jetson, folder))
        zeus, why_not = _start_zeus(root, stack)
        bench = stack.enter_context(_bench(root, jetson.board, zeus))
        bench.rest()
        each = [length for length in lengths_s for _ in range(repeats)]
        bursts = tuple(map(bench.burst, with_progress(each, len(each), "Bursts")))
    return Outcome(
        jetson.board.info.description, bursts, None if zeus is None else zeus.version, why_not
    )


def _start_zeus(root: Path, stack: ExitStack) -> tuple[Zeus | None, str]:
    try:
        zeus = Zeus(root)
    except DeviceError as error:
        return None, str(error)
    stack.callback(zeus.close)
    return zeus, ""


@contextmanager
def _bench(root: Path, board: LiveBoard, zeus: Zeus | None) -> Generator[_Bench]:
    """The real backend's rails under ``root``, read in a thread of their own meanwhile."""
    from governor.devices.jetson import open_rails
    from governor.lease.jetson_board import identify
    from governor.meter import Meter

    known = identify(root)
    if known is None:
        raise DeviceError(f"the mounted {board.info.name} is not taken for a Jetson")
    rails = open_rails(root, known)
    info = DeviceInfo(known.name, known.title, True, rails.total_rail, rails.refresh_s, 0.0)
    sensor = _Sensor(rails)
    sensor.start()
    try:
        yield _Bench(board, sensor, Meter(info), zeus, REST_REFRESHES * rails.refresh_s)
    finally:
        sensor.stop()
        rails.close()


class _Sensor(threading.Thread):
    """Reads the rails as often as the governor does."""

    def __init__(self, rails: PowerSource) -> None:
        super().__init__(name="sensor", daemon=True)
        self._rails, self._clock = rails, MonotonicClock()
        self._stopped = threading.Event()
        self.samples: deque[Sample] = deque()

    def run(self) -> None:
        while not self._stopped.wait(POLL_S):
            self.samples.append(Sample(self._clock.now(), self._rails.read()))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class _Bench:
    """A board that rests and works in turn, with all who look on."""

    def __init__(
        self, board: LiveBoard, sensor: _Sensor, meter: Meter, zeus: Zeus | None, rest_s: float
    ) -> None:
        self._board, self._sensor, self._meter, self._zeus = board, sensor, meter, zeus
        self._rest_s, self._random = rest_s, Random(0)

    def rest(self) -> None:
        """Up to a quarter longer: bursts meet the sensor, and Zeus's polls, in any phase."""
        time.sleep(self._rest_s * self._random.uniform(1.0, 1.25))
        while self._sensor.samples:
            self._meter.add(self._sensor.samples.popleft())

    def burst(self, nominal_s: float) -> Burst:
        """As many inferences as come nearest to so many seconds, and a rest."""
        if self._zeus is not None:
            self._zeus.begin()
        start_s, end_s, truth_j = self._work(nominal_s)
        zeus_j = None if self._zeus is None else self._zeus.end()
        self.rest()
        said = self._meter.burst(start_s, end_s)
        return Burst(nominal_s, end_s - start_s, truth_j, said, zeus_j)

    def _work(self, nominal_s: float) -> tuple[float, float, float]:
        """Start, end and joules of a burst."""
        board = self._board
        start_s, start_j, last_s = board.clock.now(), board.spent_j, 0.0
        while board.clock.now() + last_s / 2 < start_s + nominal_s:
            last_s = board.infer().latency_s
        end_s, end_j = board.clock.now(), board.spent_j
        return start_s, end_s, end_j - start_j


# What is said of it ------------------------------------------------------------------------


def show(outcome: Outcome) -> None:
    """Print one row for each length."""
    zeus = f"Zeus {outcome.zeus}" if outcome.zeus else "Zeus"
    table = result_table(
        f"Energy of bursts on {outcome.device}: mean, and range of the shares",
        "burst", "lasted", "truth", "ours ± 1 se", "recovered", "within 2 se",
        zeus, "recovered",
    )  # fmt: skip
    for nominal_s in dict.fromkeys(burst.nominal_s for burst in outcome.bursts):
        table.add_row(*_cells([each for each in outcome.bursts if each.nominal_s == nominal_s]))
    console = result_console()
    console.print(table)
    for line in _notes(outcome):
        console.print(line, style="dim")


def _cells(bursts: Sequence[Burst]) -> list[str]:
    return [
        format_duration(bursts[0].nominal_s),
        format_duration(round(_mean(bursts, lambda each: each.lasted_s), 3)),
        format_energy(_mean(bursts, lambda each: each.truth_j)),
        *_our_cells(bursts),
        *_zeus_cells([(each.zeus_j, each.truth_j) for each in bursts if each.zeus_j is not None]),
    ]


def _our_cells(bursts: Sequence[Burst]) -> list[str]:
    resolved = [each for each in bursts if each.resolved]
    unresolved = len(bursts) - len(resolved)
    if not resolved:
        return ["not resolvable", "-", "-"]
    energy_j = format_energy(_mean(resolved, lambda each: each.said.value))
    se_j = format_energy(_mean(resolved, lambda each: each.said.se))
    within = f"{sum(each.within for each in resolved)} of {len(resolved)}"
    return [
        f"{energy_j} ± {se_j}",
        _shares([each.said.value / each.truth_j for each in resolved]),
        within + (f", {unresolved} not resolvable" if unresolved else ""),
    ]


def _zeus_cells(pairs: Sequence[tuple[float, float]]) -> list[str]:
    if not pairs:
        return ["-", "-"]
    energy_j = format_energy(statistics.mean(zeus_j for zeus_j, _ in pairs))
    return [energy_j, _shares([zeus_j / truth_j for zeus_j, truth_j in pairs])]


def _mean(bursts: Sequence[Burst], value: Callable[[Burst], float]) -> float:
    return statistics.mean(map(value, bursts))


def _shares(shares: Sequence[float]) -> str:
    mean, low, high = statistics.mean(shares), min(shares), max(shares)
    return f"{100 * mean:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _notes(outcome: Outcome) -> list[str]:
    notes = ["Figures of an emulation, not of hardware. Truth: what the emulated board spent."]
    if outcome.zeus is None:
        notes.append(f"Without Zeus: {outcome.why_not_zeus}")
    elif all(each.zeus_j is None for each in outcome.bursts):
        notes.append("Zeus finds no rail that it takes for this board's total.")
    else:
        notes.append("Zeus: its Jetson class, unchanged, with the mounted board's files as /sys.")
        notes.append(
            "Its windows hold the poll interval before them and lack the one in progress: of short "
            "bursts the spread of the shares tells more than their mean."
        )
    return notes


def document(outcome: Outcome) -> dict[str, object]:
    """For JSON; null where nothing was said. Joules and seconds."""
    return {
        "device": outcome.device,
        "emulated": True,
        "zeus": outcome.zeus,
        "why_not_zeus": outcome.why_not_zeus or None,
        "bursts": [
            {
                "nominal_s": each.nominal_s,
                "lasted_s": each.lasted_s,
                "truth_j": each.truth_j,
                "resolved": each.resolved,
                "energy_j": _finite(each.said.value),
                "energy_se_j": _finite(each.said.se),
                "zeus_j": each.zeus_j,
            }
            for each in outcome.bursts
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
