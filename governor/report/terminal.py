"""What a governor does, on a terminal: a live screen, and one plain line a decision in a pipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from governor.decision import Decision, Phase
from governor.slo import LatencySLO
from governor.status import Status
from governor.trial import Trial
from governor.units import (
    format_duration,
    format_energy,
    format_percent,
    format_power,
)

PHASES: tuple[Phase, ...] = ("baseline", "profile", "search", "hold")
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_GAUGE_CELLS = 24
_CHART_ROWS = 6
_CHART_TRIALS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the screen shows beside the governor's status.

    Attributes:
        title: what is governed, one line; says so where it is emulated.
        time_s: seconds since the start, on the device's clock.
        total_rail: the rail whose watts are shown.
        decision: the latest.
    """

    title: str
    time_s: float
    slo: LatencySLO
    total_rail: str
    trials: Sequence[Trial]
    decision: Decision | None


def screen(status: Status, scene: Scene) -> Group:
    """At most 80 columns and 20 rows; nothing is told by colour alone."""
    return Group(
        Text(scene.title, style="bold", no_wrap=True, overflow="ellipsis"),
        Text(),
        _phases(status, scene),
        Text(),
        _now(status, scene),
        Text(),
        energy_chart(scene.trials, status.slo_s),
        Text(),
        Text(_reason(scene.decision), style="dim", no_wrap=True, overflow="ellipsis"),
    )


def line(decision: Decision, began_s: float) -> str:
    """A decision as one line for a pipe or a log; ``began_s``: the device's time at the start."""
    passed_s = decision.time_s - began_s
    return f"{passed_s:8.1f} s  {decision.phase:<9}{decision.kind:<11}{decision.reason}"


def _reason(decision: Decision | None) -> str:
    return "" if decision is None else f"{decision.kind}: {decision.reason}"


def _phases(status: Status, scene: Scene) -> Table:
    steps = Text()
    for phase in PHASES if status.phase in PHASES else (*PHASES, status.phase):
        if steps:
            steps.append(" > ", style="dim")
        if phase == status.phase:
            steps.append(f"[{phase.upper()}]", style="bold cyan")
        else:
            steps.append(phase, style="dim")
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    row.add_row(steps, Text(f"{scene.time_s:.1f} s"))
    return row


def _now(status: Status, scene: Scene) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", width=15)
    rows.add_column()
    set_now = "the system's own governors" if status.point is None else str(status.point)
    rows.add_row("set", Text(set_now, style="bold"))
    rows.add_row(f"latency p{100 * scene.slo.percentile:g}", _latency(status, scene.slo))
    rows.add_row("power", format_power(status.power_w.get(scene.total_rail, math.nan)))
    rows.add_row("energy a frame", _energy(status))
    return rows


def _latency(status: Status, slo: LatencySLO) -> Text:
    if math.isnan(status.latency_s):
        return Text(f"-  of {slo.bound}", style="dim")
    kept = status.latency_s <= status.slo_s
    shown = Text(f"{format_duration(status.latency_s):<9}")
    if math.isfinite(status.slo_s):
        share = status.latency_s / status.slo_s
        filled = min(round(share * _GAUGE_CELLS), _GAUGE_CELLS)
        shown.append("█" * filled, style="green" if kept else "red")
        shown.append("░" * (_GAUGE_CELLS - filled), style="dim")
        shown.append(f" {share:.0%} of {format_duration(status.slo_s)}")
    if not kept:
        shown.append("  SLO MISSED", style="bold red")
    return shown


def _energy(status: Status) -> Text:
    shown = Text(f"{format_energy(status.energy_j):<9}")
    change = status.energy_j / status.baseline_energy_j - 1.0
    if math.isfinite(change) and change:
        shown.append(
            f"{format_percent(change, signed=True)} against the default governors",
            style="green" if change < 0 else "yellow",
        )
    return shown


def energy_chart(trials: Sequence[Trial], slo_s: float) -> Group:
    """Energy per item of the latest trials as bars; one that missed the SLO is hollow.

    The scale is that of the trials that kept it; a dearer one ends at the top.
    """
    recent = trials[-_CHART_TRIALS:]
    first = len(trials) - len(recent) + 1
    known = [trial for trial in recent if math.isfinite(trial.energy_j)]
    kept = [trial for trial in known if trial.latency_s <= slo_s] or known
    energies_j = [trial.energy_j for trial in kept]
    top, bottom = (max(energies_j), 0.75 * min(energies_j)) if kept else (1.0, 0.0)
    rows = [_chart_row(row, recent, slo_s, top, bottom) for row in reversed(range(_CHART_ROWS))]
    numbers = "".join(f"{number:<4}" for number in range(first, first + len(recent)))
    return Group(
        Text("energy a frame, trial by trial (░ missed the SLO)", style="dim"),
        *rows,
        Text(f"{'trial':>10}   {numbers}", style="dim"),
    )


def _chart_row(row: int, trials: Sequence[Trial], slo_s: float, top: float, bottom: float) -> Text:
    label = {_CHART_ROWS - 1: top, 0: bottom}.get(row) if trials else None
    shown = Text(f"{'' if label is None else format_energy(label):>10} │ ", style="dim")
    for trial in trials:
        missed = trial.latency_s > slo_s
        bar = _cell(trial.energy_j, row, top, bottom, hollow=missed)
        shown.append(f"{bar * 3} ", style="red" if missed else "green")
    return shown


def _cell(value: float, row: int, top: float, bottom: float, hollow: bool) -> str:
    """One character of a bar that grows upwards from ``bottom``; unknown values show a ?."""
    if not math.isfinite(value):
        return "?" if row == 0 else " "
    share = (value - bottom) / (top - bottom) if top > bottom else 1.0
    eighths = round(share * 8 * _CHART_ROWS) - 8 * row
    if hollow:
        return "░" if eighths >= 4 else " "
    return _EIGHTHS[min(max(eighths, 0), 8)]
