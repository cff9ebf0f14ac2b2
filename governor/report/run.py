"""The report of one governed run: a single HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from governor.report.drawing import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    Axes,
    Figure,
    empty_figure,
    inline,
    page,
    prepare,
)
from governor.space import OperatingPoint
from governor.trial import Trial
from governor.units import (
    format_duration,
    format_energy,
    format_knob_name,
    format_knob_value,
    format_percent,
    format_power,
)

FORMATS = (".html",)
"""The endings that :func:`write_run` can write."""

_KEPT, _MISSED, _HELD = COLOURS[0], COLOURS[1], COLOURS[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A named setting and what it came to; no point: the system's own governors.

    ``latency_s`` is at the SLO's percentile, ``energy_j`` an item.
    """

    name: str
    point: OperatingPoint | None
    latency_s: float
    power_w: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the report shows.

    Attributes:
        title: board and workload.
        origin: where the figures come from, such as "emulated; ...": shown at the top.
        slo: the SLO as people read it.
        slo_s: its bound in seconds.
        trials: in order.
        default: under the system's own governors.
        held: what was held in the end.
        others: further settings for the table.
        remarks: sentences below the title.
    """

    title: str
    origin: str
    slo: str
    slo_s: float
    trials: Sequence[Trial]
    default: Setting
    held: Setting
    others: Sequence[Setting]
    remarks: Sequence[str]


def write_run(path: Path, run: Run) -> None:
    """Write the report.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in run.remarks)
    body = (
        f"<h1>{escape(run.title)}</h1><p><strong>{escape(run.origin)}</strong></p>"
        f"<ul>{remarks}</ul>{inline(_draw(run))}{_settings(run)}{_trials(run)}"
    )
    path.write_text(page(run.title, body), encoding="utf-8")


def _draw(run: Run) -> Figure:
    figure = empty_figure(9.0, 8.4)
    plane, order = figure.subplots(2, 1, height_ratios=(1.7, 1), gridspec_kw={"hspace": 0.38})
    figure.subplots_adjust(left=0.085, right=0.95, top=0.95, bottom=0.075)
    _draw_plane(plane, run)
    _draw_order(order, run)
    return figure


def _draw_plane(axes: Axes, run: Run) -> None:
    prepare(axes, "Energy an item (mJ) against latency (ms); trials are numbered in their order")
    known = [(number, trial) for number, trial in enumerate(run.trials, 1) if _known(trial)]
    for number, trial in known:
        x, y = 1e3 * trial.latency_s, 1e3 * trial.energy_j
        axes.errorbar(
            x,
            y,
            xerr=1e3 * trial.latency_se_s,
            yerr=1e3 * trial.energy_se_j,
            fmt="o",
            markersize=6,
            color=_colour(trial, run),
            elinewidth=1,
        )
        axes.annotate(
            str(number), (x, y), xytext=(6, 5), textcoords="offset points", size=9, color=INK
        )
    for setting, colour, marker in ((run.default, FAINT, "s"), (run.held, _HELD, "*")):
        x, y = 1e3 * setting.latency_s, 1e3 * setting.energy_j
        axes.plot(x, y, marker, markersize=13, color=colour, zorder=4)
        axes.annotate(
            setting.name,
            (x, y),
            xytext=(9, -13),
            textcoords="offset points",
            size=9.5,
            color=colour,
            weight="bold",
        )
    latencies = [1e3 * trial.latency_s for _, trial in known]
    latencies += [1e3 * run.default.latency_s, 1e3 * run.held.latency_s]
    right = 1.12 * max(latencies)
    axes.set_xlim(0.9 * min(latencies), right)
    if 1e3 * run.slo_s < right:
        axes.axvline(1e3 * run.slo_s, color=_MISSED, linewidth=1.2, linestyle=(0, (5, 4)))
        axes.axvspan(1e3 * run.slo_s, right, color=_MISSED, alpha=0.06, linewidth=0)
        axes.annotate(
            f"SLO {run.slo}",
            (1e3 * run.slo_s, 0.96),
            xycoords=("data", "axes fraction"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            size=9,
            color=_MISSED,
        )
    else:
        axes.set_xlabel(f"latency (ms); the SLO, {run.slo}, lies to the right", color=INK)


def _draw_order(axes: Axes, run: Run) -> None:
    prepare(axes, "Energy an item (mJ), trial by trial; the step is the best that kept the SLO")
    axes.locator_params(axis="x", integer=True, nbins=13)
    numbers = np.arange(1, len(run.trials) + 1)
    energy = np.array([1e3 * trial.energy_j if _known(trial) else np.nan for trial in run.trials])
    kept = np.array([trial.latency_s <= run.slo_s for trial in run.trials])
    best = np.fmin.accumulate(np.where(kept, energy, np.nan))
    axes.step(numbers, best, where="post", color=_HELD, linewidth=2)
    axes.scatter(numbers, energy, c=[_colour(trial, run) for trial in run.trials], s=36, zorder=3)
    for number in numbers[np.isnan(energy)]:
        axes.annotate(
            "left at once",
            (number, 0.06),
            xycoords=("data", "axes fraction"),
            ha="center",
            size=8,
            color=_MISSED,
        )
    axes.axhline(1e3 * run.default.energy_j, color=FAINT, linewidth=1, linestyle=(0, (5, 4)))
    axes.annotate(
        run.default.name,
        (1, 1e3 * run.default.energy_j),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        size=9,
        color=FAINT,
    )
    axes.set_xlim(0.5, len(run.trials) + 0.5)
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def _known(trial: Trial) -> bool:
    """Whether its energy says anything: a point left at once has hardly a sensor reading."""
    return trial.energy_se_j < 0.2 * trial.energy_j


def _colour(trial: Trial, run: Run) -> str:
    return _MISSED if trial.latency_s > run.slo_s else _KEPT


def _settings(run: Run) -> str:
    rows = [
        _row(
            setting.name,
            format_duration(setting.latency_s),
            format_power(setting.power_w),
            format_energy(setting.energy_j),
            format_percent(setting.energy_j / run.default.energy_j - 1, signed=True),
            str(setting.point or "the system's own governors"),
        )
        for setting in (run.default, *run.others, run.held)
    ]
    return _table(
        "Settings compared",
        ("setting", "latency", "power", "energy an item", "against default", "operating point"),
        rows,
    )


def _trials(run: Run) -> str:
    points = [trial.point or OperatingPoint({}) for trial in run.trials]
    names = list(points[0]) if points else []
    rows = [
        _row(
            str(number),
            *(format_knob_value(name, point[name]) for name in names),
            f"{format_duration(trial.latency_s)} ± {format_duration(trial.latency_se_s)}",
            f"{format_energy(trial.energy_j)} ± {format_energy(trial.energy_se_j)}"
            if _known(trial)
            else "left at once",
            "missed" if trial.latency_s > run.slo_s else "kept",
        )
        for number, (trial, point) in enumerate(zip(run.trials, points, strict=True), 1)
    ]
    heads = ("trial", *map(format_knob_name, names), "latency", "energy an item", "SLO")
    return _table(f"Trials in order; ± is one standard error; SLO {run.slo}", heads, rows)


def _row(first: str, *cells: str) -> str:
    columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><th>{escape(first)}</th>{columns}</tr>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
