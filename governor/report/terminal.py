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
from governor.space import named
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
        phase_line(status.phase, f"{scene.time_s:.1f} s"),
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


def phase_line(phase: str, right: str) -> Table:
    """The phases, the present one marked, and something at the right end."""
    steps = Text()
    for step in PHASES if phase in PHASES else (*PHASES, phase):
        if steps:
            steps.append(" > ", style="dim")
        if step == phase:
            steps.append(f"[{step.upper()}]", style="bold cyan")
        else:
            steps.append(step, style="dim")
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    row.add_row(steps, Text(right))
    return row


def facts() -> Table:
    """Rows of a name and what there is to say."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", width=15)
    rows.add_column()
    return rows


def _now(status: Status, scene: Scene) -> Table:
    rows = facts()
    set_now = named(status.point)
    rows.add_row("set", Text(set_now, style="bold"))
    rows.add_row(
        f"latency p{100 * scene.slo.percentile:g}",
        latency_gauge(status.latency_s, status.slo_s, str(scene.slo.bound)),
    )
    rows.add_row("power", format_power(status.power_w.get(scene.total_rail, math.nan)))
    rows.add_row("energy an item", energy_change(status.energy_j, status.baseline_energy_j))
    return rows


def latency_gauge(latency_s: float, slo_s: float, bound: str = "the SLO") -> Text:
    """A latency as a bar that is full at the SLO; ``bound``: the SLO as it was written."""
    if math.isnan(latency_s):
        return Text(f"-  of {bound}", style="dim")
    kept = latency_s <= slo_s
    shown = Text(f"{format_duration(latency_s):<9}")
    if math.isfinite(slo_s):
        shown.append_text(bar(latency_s / slo_s, _GAUGE_CELLS, "green" if kept else "red"))
        shown.append(f" {latency_s / slo_s:.0%} of {format_duration(slo_s)}")
    if not kept:
        shown.append("  SLO MISSED", style="bold red")
    return shown


def bar(share: float, cells: int, style: str) -> Text:
    """A share of 1 as so many cells, the rest of them hollow."""
    filled = min(max(round(share * cells), 0), cells) if math.isfinite(share) else 0
    return Text("█" * filled, style=style) + Text("░" * (cells - filled), style="dim")


def energy_change(energy_j: float, baseline_energy_j: float) -> Text:
    """Energy an item, and its change against the default governors."""
    shown = Text(f"{format_energy(energy_j):<9}")
    change = energy_j / baseline_energy_j - 1.0 if baseline_energy_j > 0 else math.nan
    if math.isfinite(change) and change:
        shown.append(
            f"{format_percent(change, signed=True)} against the default governors",
            style="green" if change < 0 else "yellow",
        )
    return shown


def sparkline(values: Sequence[float], cells: int) -> str:
    """The latest values as one character each, on a scale from 0; a gap where one is unknown."""
    recent = values[-cells:]
    top = max((value for value in recent if math.isfinite(value)), default=0.0)
    return "".join(
        _EIGHTHS[min(max(round(8 * value / top), 1), 8)]
        if math.isfinite(value) and top > 0
        else " "
        for value in recent
    )


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
        Text("energy an item, trial by trial (░ missed the SLO)", style="dim"),
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
