"""The report: one HTML file that needs nothing beside it, of one run or of several searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from governor.records.lines import DecisionLine, WindowLine
from governor.report.by_hand import recipes
from governor.report.page import page, table, tile
from governor.report.panels import (
    Measured,
    clocks_timeline,
    heat_map,
    latency_timeline,
    order,
    plane,
    power_timeline,
    thinned,
    watts,
)
from governor.space import named
from governor.units import (
    format_duration,
    format_energy,
    format_knob_name,
    format_knob_value,
    format_percent,
)

NO_SLO = "none"
MOST_DECISIONS = 500
"""In the table of a run that lasts for weeks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """Settings whose figures are known without having been tried by this search.

    Attributes:
        what: whose figures they are, for a caption: ``the emulator's own physics``.
    """

    settings: Sequence[Measured]
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is told of one search.

    Attributes:
        badge: one word or two on where its figures come from, ``EMULATED``. ``real``: they were
            measured on hardware.
        slo: for people, such as ``p95 <= 50 ms``, or :data:`NO_SLO`.
        sources: what was measured, computed or emulated: what, and where it comes from.
        device: by its short name.
        latency: what each latency is: ``the mean``, or ``at the SLO's percentile``.
        levels: by knob, ascending.
        trials: in order. ``baseline``: before anything was set. ``chosen``: held in the end.
        others: further settings for the table, by name.
        charts: further figures, as HTML.
    """

    title: str
    badge: str
    real: bool
    sources: Sequence[tuple[str, str]]
    device: str
    slo: str
    slo_s: float | None
    latency: str = "the mean"
    levels: Mapping[str, Sequence[float]]
    trials: Sequence[Measured] = ()
    baseline: Measured | None = None
    chosen: Measured | None = None
    others: Sequence[tuple[str, Measured]] = ()
    landscape: Landscape | None = None
    windows: Sequence[WindowLine] = ()
    decisions: Sequence[DecisionLine] = ()
    total_rail: str = "total"
    remarks: Sequence[str] = ()
    charts: Sequence[str] = field(default=())


def write_report(path: Path, title: str, reports: Sequence[Report]) -> None:
    """Write one page with a section for each report.

    Raises:
        OSError: the file cannot be written.
    """
    sections = "".join(
        f'<section id="s{n}">{"".join(_section(report))}</section>'
        for n, report in enumerate(reports, 1)
    )
    links = ""
    if len(reports) > 1:
        each = "".join(f'<a href="#s{n}">{escape(r.title)}</a>' for n, r in enumerate(reports, 1))
        links = f"<h1>{escape(title)}</h1><nav>{each}</nav>"
    path.write_text(page(title, links + sections), encoding="utf-8")


def _section(report: Report) -> Iterator[str]:
    real = " real" if report.real else ""
    yield f'<span class="badge{real}">{escape(report.badge)}</span><h1>{escape(report.title)}</h1>'
    yield "".join(f"<p>{escape(remark)}</p>" for remark in report.remarks)
    yield f'<div class="tiles">{"".join(_tiles(report))}</div>'
    yield f'<div class="charts">{"".join(_charts(report))}</div>'
    yield "".join(_setting(report))
    if report.baseline is not None or report.chosen is not None or report.others:
        yield "<h2>Settings compared</h2>" + _settings(report)
    if report.trials:
        yield "<h2>Trials</h2>" + _trials(report)
    if report.decisions:
        yield (
            f"<details><summary>{_how_many(report)} decisions, and why</summary>"
            f"{_decisions(report)}</details>"
        )
    yield "<h2>What was measured, and what was not</h2>"
    yield table("", ("figures", "where they come from"), report.sources, text=1)


def _tiles(report: Report) -> Iterator[str]:
    chosen, baseline = report.chosen, report.baseline
    if chosen is not None and baseline is not None and baseline.known:
        change = chosen.energy_j / baseline.energy_j - 1.0
        yield tile(
            format_percent(change, signed=True),
            "energy an item, against the default governors",
            "good" if change < 0 else "",
        )
    if chosen is not None:
        yield tile(format_energy(chosen.energy_j), f"an item, {watts(chosen)}")
        if report.slo_s is not None:
            kept = chosen.latency_s <= report.slo_s
            yield tile(
                format_duration(chosen.latency_s),
                f"latency; the SLO, {report.slo}"
                + (
                    ""
                    if format_duration(report.slo_s) in report.slo
                    else f" = {format_duration(report.slo_s)}"
                )
                + f", is {'kept' if kept else 'MISSED'}",
                "good" if kept else "bad",
            )
    if report.trials:
        bound = report.slo_s
        missed = sum(bound is not None and each.latency_s > bound for each in report.trials)
        yield tile(str(len(report.trials)), f"settings tried, {missed} missed the SLO")
    elif report.landscape is not None:
        yield tile(str(len(report.landscape.settings)), "settings measured")


def _charts(report: Report) -> Iterator[str]:
    trials, chosen, bound = report.trials, report.chosen, report.slo_s
    landscape = () if report.landscape is None else report.landscape.settings
    if landscape or any(each.known for each in (*trials, report.baseline) if each is not None):
        yield plane(trials, landscape, report.baseline, chosen, bound, report.slo)
    if report.landscape is not None:
        what = report.landscape.what[0].upper() + report.landscape.what[1:]
        yield heat_map(landscape, report.levels, trials, chosen, bound, what)
    elif trials:
        yield heat_map(trials, report.levels, trials, chosen, bound, "What was tried")
    yield from report.charts
    if trials:
        yield order(trials, report.baseline, bound)
    if report.windows:
        windows = thinned(report.windows)
        yield latency_timeline(windows, report.slo)
        yield power_timeline(windows, report.total_rail)
        yield clocks_timeline(windows, report.levels)


def _setting(report: Report) -> Iterator[str]:
    """The chosen setting and how to set it without this project."""
    if report.chosen is None:
        return
    yield f"<h2>The chosen setting</h2><p><strong>{escape(named(report.chosen.point))}</strong></p>"
    if report.chosen.point is None:
        yield "<p>Nothing that was tried is better; there is nothing to set.</p>"
        return
    for recipe in recipes(report.device, report.chosen.point, report.levels):
        yield f"<h3>{escape(recipe.title)}</h3><p>{escape(recipe.words)}</p>"
        yield f"<pre>{escape(recipe.text)}</pre>"
    if not report.real:
        yield '<p class="faint">Measure on your own board before you rely on it.</p>'


def _settings(report: Report) -> str:
    pairs = [("default governors", report.baseline), *report.others, ("chosen", report.chosen)]
    known = [(name, each) for name, each in pairs if each is not None]
    base = report.baseline
    rows = [
        (
            name,
            format_duration(each.latency_s),
            watts(each),
            format_energy(each.energy_j),
            *(
                ()
                if base is None
                else ("",)
                if each is base
                else (format_percent(each.energy_j / base.energy_j - 1, signed=True),)
            ),
            named(each.point),
        )
        for name, each in known
    ]
    against = () if base is None else ("against default",)
    heads = ("setting", "latency", "power", "energy an item", *against, "operating point")
    slo = "" if report.slo == NO_SLO else f"; SLO {report.slo}"
    return table(f"Latency: {report.latency}{slo}", heads, rows)


def _trials(report: Report) -> str:
    names = [name for name, each in report.levels.items() if len(each) > 1]
    rows = [
        (
            str(number),
            *(
                "–" if each.point is None else format_knob_value(name, each.point[name])
                for name in names
                if each.point is None or name in each.point
            ),
            format_duration(each.latency_s) + _within(each.latency_se_s, format_duration),
            format_energy(each.energy_j) + _within(each.energy_se_j, format_energy)
            if each.known
            else "left at once",
            "missed" if report.slo_s is not None and each.latency_s > report.slo_s else "kept",
        )
        for number, each in enumerate(report.trials, 1)
    ]
    heads = ("trial", *map(format_knob_name, names), "latency", "energy an item", "SLO")
    caption = f"SLO {report.slo}"
    if any(each.latency_se_s for each in report.trials):
        caption = f"± is one standard error; {caption}"
    return table(f"In order; {caption}", heads, rows)


def _within(error: float, shown: Callable[[float], str]) -> str:
    """One standard error either way; of a figure that is exact, nothing."""
    return f" ± {shown(error)}" if error else ""


def _how_many(report: Report) -> str:
    count = len(report.decisions)
    return f"All {count}" if count <= MOST_DECISIONS else f"The last {MOST_DECISIONS} of {count}"


def _decisions(report: Report) -> str:
    shown = report.decisions[-MOST_DECISIONS:]
    rows = [(f"{line.time_s:.1f} s", line.phase, line.kind, line.reason) for line in shown]
    return table("", ("time", "phase", "decision", "why"), rows, text=3)
