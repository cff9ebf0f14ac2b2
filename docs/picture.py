"""Draw docs/demo.svg: the last screen and the summary of a `governor demo` run."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from governor import EnergyGovernor
from governor.cli.demo import Setup, play, show_summary
from governor.devices.emulated import EmulatedBoard
from governor.report.terminal import Scene, screen
from governor.slo import LatencySLO

SETUP = Setup(
    board="agx-orin",
    workload="yolov8n",
    latency_slo="50ms",
    policy="bayesian",
    seed=0,
    realtime=False,
)


def last_screen(console: Console) -> None:
    """The same run again, up to the moment at which it holds."""
    board = EmulatedBoard(SETUP.board, SETUP.workload, seed=SETUP.seed)
    decisions = []
    with EnergyGovernor(
        SETUP.latency_slo, device=board, seed=SETUP.seed, callback=decisions.append
    ) as gov:
        while not decisions or decisions[-1].kind != "hold":
            with gov.inference():
                board.infer()
        scene = Scene(
            title=f"EMULATION: {board.info.description}, {SETUP.workload}, virtual time",
            time_s=board.clock.now(),
            slo=LatencySLO.parse(SETUP.latency_slo),
            total_rail=board.info.total_rail,
            trials=gov.trials,
            decision=decisions[-1],
        )
        console.print(screen(gov.status(), scene))


def main() -> None:
    console = Console(
        record=True, width=80, file=io.StringIO(), force_terminal=True, highlight=False
    )
    outcome = play(SETUP, Console(file=io.StringIO()))
    last_screen(console)
    show_summary(console, outcome, SETUP)
    drawn = console.export_svg(title="governor demo")
    # The reader's own monospace font will do; nothing is to be fetched from elsewhere.
    Path(__file__).with_name("demo.svg").write_text(
        re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
