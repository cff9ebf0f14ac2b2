"""An hour in a hot room: the governor against the kernel's governors, on every emulated board.

Each board is switched on as cold as its room and runs one workload in a closed loop, once under
the kernel's governors and once under ours, in virtual time. The search is counted in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from governor.cli.replay import result_console, result_table
from governor.devices.emulated import EmulatedBoard, board_names
from governor.errors import unknown_name
from governor.governor import EnergyGovernor
from governor.progress import with_progress
from governor.spread import Place, spread
from governor.units import format_energy, format_percent

WORKLOADS = ("yolov8n", "vgg19")
"""One that hardly warms a board, and one under which most come near their trip."""
SLOWER = 1.2
"""The bound, over the mean time at all-max."""
PERCENTILE = 0.95
NOTHING = 0.001
"""Where the kernel's governors are so near the emulator's optimum, nothing can be won: there it is
enough to stay as near."""


@dataclass(frozen=True, slots=True)
class Case:
    """One board with one workload."""

    board: str
    workload: str
    room_c: float
    minutes: float
    policy: str
    thermal_limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one run came out, on the emulator's own books.

    Attributes:
        energy_j: joules an inference, over the whole of it.
        kept: share of the inferences that kept the bound.
        throttled_s: in which the board held a clock of its own down.
        hottest_c: the die.
    """

    energy_j: float
    kept: float
    throttled_s: float
    hottest_c: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, under the kernel's governors and under ours.

    Attributes:
        least_j: joules an inference of the best setting within the bound, by the emulator's
            physics, once warm.
    """

    case: Case
    slo_s: float
    least_j: float
    default: Run
    governed: Run

    @property
    def change(self) -> float:
        """Of energy an inference, as a share."""
        return self.governed.energy_j / self.default.energy_j - 1.0

    @property
    def winnable(self) -> bool:
        """Whether the kernel's governors leave anything to be won."""
        return self.default.energy_j > (1.0 + NOTHING) * self.least_j

    @property
    def met(self) -> bool:
        """Less energy where that can be, no throttling, and the bound kept."""
        governed = self.governed
        frugal = self.change < (0.0 if self.winnable else NOTHING)
        return frugal and governed.throttled_s == 0 and governed.kept >= PERCENTILE


def measure(
    room_c: float,
    minutes: float,
    policy: str,
    thermal_limit: str | None = None,
    boards: Sequence[str] = (),
) -> list[Outcome]:
    """Every board with every workload, with progress on a terminal."""
    cases = [
        Case(board, workload, room_c, minutes, policy, thermal_limit)
        for board in boards or board_names()
        for workload in WORKLOADS
    ]
    for board in boards:
        if board not in board_names():
            raise unknown_name("board", board, board_names())
    outcomes = spread(compare, cases, Place(), long_tasks=True)
    return list(with_progress(outcomes, len(cases), "Running hours"))


def compare(case: Case) -> Outcome:
    """Run one case both ways."""
    board = _cold(case)
    slo_s = SLOWER * board.true_latency_s(board.space.point(board.space.fastest))
    default = _run(board, case, slo_s, None)
    board = _cold(case)
    logger = logging.getLogger("governor")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with EnergyGovernor(
            slo_s,
            percentile=PERCENTILE,
            device=board,
            policy=case.policy,
            thermal_limit=case.thermal_limit,
        ) as gov:
            governed = _run(board, case, slo_s, gov)
    finally:
        logger.setLevel(level)
    return Outcome(case, slo_s, board.optimum(slo_s)[2], default, governed)


def _cold(case: Case) -> EmulatedBoard:
    board = EmulatedBoard(case.board, case.workload, ambient_c=case.room_c)
    board.cool_down()
    return board


def _run(board: EmulatedBoard, case: Case, slo_s: float, gov: EnergyGovernor | None) -> Run:
    before_j, end_s = board.spent_j, board.clock.now() + 60.0 * case.minutes
    count = kept = 0
    while board.clock.now() < end_s:
        if gov is None:
            span = board.infer()
        else:
            with gov.inference():
                span = board.infer()
        count += 1
        kept += span.latency_s <= slo_s
    return Run(
        energy_j=(board.spent_j - before_j) / count,
        kept=kept / count,
        throttled_s=board.throttled_s,
        hottest_c=board.hottest_c,
    )


def show(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each case, and what it came to."""
    case = outcomes[0].case
    table = result_table(
        f"{case.minutes:g} min in a room of {case.room_c:g} °C, emulated: default → governed",
        "board", "workload", "energy an item", "change", "°C", "throttled", "kept",
    )  # fmt: skip
    for each in outcomes:
        default, governed = each.default, each.governed
        table.add_row(
            each.case.board,
            each.case.workload,
            f"{format_energy(default.energy_j)} → {format_energy(governed.energy_j)}",
            format_percent(each.change, signed=True),
            f"{default.hottest_c:.0f} → {governed.hottest_c:.0f}",
            f"{_minutes(default)} → {_minutes(governed)}",
            f"{100 * governed.kept:.1f} %",
            style=None if each.met else "bold",
        )
    console = result_console()
    console.print(table)
    mean = sum(each.change for each in outcomes) / len(outcomes)
    met = sum(each.met for each in outcomes)
    tied = [f"{each.case.board} {each.case.workload}" for each in outcomes if not each.winnable]
    already = f"The default governors are at the optimum: {', '.join(tied)}." if tied else ""
    for line in (
        f"Less energy, never throttled, and p{100 * PERCENTILE:g} kept: {met} of {len(outcomes)}.",
        *filter(None, [already]),
        f"Energy, on average {format_percent(mean, signed=True)}. °C: the die's highest.",
        f"Throttled: minutes. Kept: inferences within {SLOWER:g}x all-max, governed.",
        "Boards start as cold as the room; the search is counted in.",
    ):
        console.print(line, style="dim")


def _minutes(run: Run) -> str:
    return f"{run.throttled_s / 60:.1f}" if run.throttled_s else "0"


def document(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """For JSON."""
    return [
        {
            "emulated": True,
            **asdict(each),
            "change": each.change,
            "winnable": each.winnable,
            "met": each.met,
        }
        for each in outcomes
    ]
