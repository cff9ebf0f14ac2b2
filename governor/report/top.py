"""What ``governor top`` shows: one governor at a moment, on a screen or as one line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.table import Table
from rich.text import Text

from governor.report.terminal import bar, energy_change, facts, latency_gauge, phase_line, sparkline
from governor.space import OperatingPoint, named
from governor.units import (
    format_duration,
    format_energy,
    format_percent,
    format_power,
)

_CHART_CELLS = 56
_RAIL_CELLS = 20
MOST_RAILS = 6


@dataclass(slots=True, kw_only=True)
class View:
    """One governor at a moment; NaN or None: not known.

    Attributes:
        title: what is governed, and where that is told; says so where it is emulated.
        time: since the start, or of day; for people.
        latency_s: at ``percentile``. ``slo_s``: its bound.
        latencies_s, total_w: one value a window or a reading, oldest first.
        energy_j, baseline_energy_j: joules an item, now and before anything was set.
        saved_j: since the start, less what the search cost.
        trials, missed: tried so far, and of those that missed the SLO.
        note: the latest decision, or what is wrong.
        over: the run has ended.
    """

    title: str
    time: str
    phase: str
    point: Mapping[str, float] | None
    percentile: float
    slo_s: float = math.nan
    slo_feasible: bool | None = None
    latency_s: float = math.nan
    inferences: int = 0
    violations: int = 0
    energy_j: float = math.nan
    baseline_energy_j: float = math.nan
    saved_j: float = math.nan
    trials: int = 0
    missed: int = 0
    total_rail: str = "total"
    power_w: Mapping[str, float] = field(default_factory=dict[str, float])
    temperature_c: Mapping[str, float] = field(default_factory=dict[str, float])
    throttled: int = 0
    latencies_s: Sequence[float] = ()
    total_w: Sequence[float] = ()
    note: str = ""
    over: bool = False

    @property
    def setting(self) -> str:
        """The operating point for people."""
        return named(None if self.point is None else OperatingPoint(self.point))


def screen(view: View) -> Group:
    """At most 80 columns and 23 rows; nothing is told by colour alone."""
    rows = facts()
    rows.add_row("set", Text(view.setting, style="bold"))
    rows.add_row(f"latency p{100 * view.percentile:g}", latency_gauge(view.latency_s, view.slo_s))
    rows.add_row("", Text(sparkline(view.latencies_s, _CHART_CELLS), style="cyan"))
    rows.add_row("inferences", _inferences(view))
    rows.add_row("energy an item", energy_change(view.energy_j, view.baseline_energy_j))
    rows.add_row("saved so far", _saved(view))
    rows.add_row("trials", _trials(view))
    rows.add_row("temperature", _temperatures(view))
    return Group(
        Text(view.title, style="bold", no_wrap=True, overflow="ellipsis"),
        phase_line(view.phase, view.time),
        Text(),
        rows,
        Text(),
        _power(view),
        Text(),
        Text(view.note, style="dim", no_wrap=True, overflow="ellipsis"),
    )


def line(view: View) -> str:
    """The same as one line for a pipe or a log."""
    bound = f" of {format_duration(view.slo_s)}" if math.isfinite(view.slo_s) else ""
    change = view.energy_j / view.baseline_energy_j - 1.0 if view.baseline_energy_j > 0 else 0.0
    changed = (
        f" ({format_percent(change, signed=True)})" if change and math.isfinite(change) else ""
    )
    missed = " MISSED" if view.latency_s > view.slo_s else ""
    parts = [
        f"{view.time}  {view.phase}",
        f"p{100 * view.percentile:g} {format_duration(view.latency_s)}{bound}{missed}",
        format_power(view.power_w.get(view.total_rail, math.nan)),
        f"{format_energy(view.energy_j)} an item{changed}",
        view.setting,
    ]
    return "; ".join(parts) + ("; over" if view.over else "")


def _inferences(view: View) -> Text:
    shown = Text(f"{view.inferences}")
    if view.inferences and math.isfinite(view.slo_s):
        share = view.violations / view.inferences
        shown.append(f", {view.violations} slower than the SLO ({share:.1%})", style="dim")
    return shown


def _trials(view: View) -> Text:
    shown = Text(f"{view.trials}, {view.missed} missed the SLO")
    if view.slo_feasible is False:
        shown.append("  NOTHING KEEPS THE SLO", style="bold red")
    return shown


def _saved(view: View) -> str:
    return format_energy(view.saved_j) if math.isfinite(view.saved_j) else "-"


def _temperatures(view: View) -> str:
    hottest = sorted(view.temperature_c.items(), key=lambda each: -each[1])[:4]
    shown = ", ".join(f"{zone} {celsius:.0f} °C" for zone, celsius in hottest) or "-"
    return shown + (f"; throttled {view.throttled} times" if view.throttled else "")


def _power(view: View) -> Table:
    """Watts by rail; rails may lie within each other, so nothing is added up."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", width=15, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", width=7)
    table.add_column()
    rails = sorted(view.power_w.items(), key=lambda each: (each[0] != view.total_rail, -each[1]))
    most = max((watts for _, watts in rails), default=0.0)
    for rail, watts in rails[:MOST_RAILS]:
        shown = bar(watts / most if most > 0 else 0.0, _RAIL_CELLS, "green")
        if rail == view.total_rail:
            shown.append(f"  {sparkline(view.total_w, 30)}", style="cyan")
        table.add_row(rail, format_power(watts), shown)
    if not rails:
        table.add_row("power", "-", "")
    return table
