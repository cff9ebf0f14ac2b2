"""Pictures for people: policies against each other, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from governor.comparison import Curve, Reference
from governor.report.drawing import (
    COLOURS,
    FAINT,
    INK,
    Axes,
    Figure,
    empty_figure,
    inline,
    prepare,
    svg,
)
from governor.report.page import page, table
from governor.space import FloatArray

FORMATS = (".png", ".svg", ".html")
"""The endings that :func:`draw_comparison` can draw."""

_FLOOR_PERCENT = 0.1
"""The logarithmic axis starts here: less above the optimum than anyone can measure."""


def draw_comparison(
    path: Path, curves: Sequence[Curve], references: Mapping[str, Reference], subject: str
) -> None:
    """Draw energy above the optimum, and trials that missed the SLO, against trials.

    Args:
        path: ends in one of :data:`FORMATS`; HTML carries the figures as a table too.
        references: by their names for people.
        subject: what was replayed, one line.
    """
    figure = _comparison(curves, references, subject)
    if path.suffix.lower() == ".png":
        figure.savefig(path, dpi=160)
    elif path.suffix.lower() == ".svg":
        path.write_text(svg(figure), encoding="utf-8")
    else:
        path.write_text(_page(figure, curves, subject), encoding="utf-8")


def _comparison(
    curves: Sequence[Curve], references: Mapping[str, Reference], subject: str
) -> Figure:
    figure = empty_figure(9.0, 7.6)
    energy, missed = figure.subplots(
        2, 1, sharex=True, height_ratios=(2.1, 1), gridspec_kw={"hspace": 0.28}
    )
    figure.subplots_adjust(left=0.085, right=0.77, top=0.86, bottom=0.105)
    figure.text(
        0.02,
        0.955,
        "How near to the least energy, after how many trials",
        size=15,
        weight="bold",
        color=INK,
    )
    figure.text(0.02, 0.922, subject, size=9.5, color=FAINT)
    figure.text(
        0.02,
        0.02,
        f"Lines: mean over the searches of each policy ({curves[0].summary.runs}). Band: 95 % "
        f"confidence of the mean of {curves[0].policy}. All is judged by the sweeps' own figures.",
        size=8,
        color=FAINT,
    )
    _draw_energy(energy, curves, references)
    _draw_missed(missed, curves)
    return figure


def _draw_energy(axes: Axes, curves: Sequence[Curve], references: Mapping[str, Reference]) -> None:
    prepare(axes, "Energy above the optimum (%, logarithmic)")
    axes.locator_params(axis="x", integer=True, nbins=13)
    axes.set_yscale("log")
    ends: list[tuple[float, str, str]] = []
    for index, curve in enumerate(curves):
        mean, spread = 100 * curve.excess_mean, 196 * curve.excess_se
        _line(axes, index, _floored(mean))
        if index == 0:  # bands of all would hide each other
            axes.fill_between(
                np.arange(1.0, len(mean) + 1),
                _floored(mean - spread),
                _floored(mean + spread),
                color=_colour(index),
                alpha=0.15,
                linewidth=0,
            )
        ends.append(
            (float(_floored(mean)[-1]), f"{curve.policy}  {mean[-1]:.1f} %", _colour(index))
        )
    for name, reference in references.items():
        level = 100 * reference.excess_mean
        shown = max(level, _FLOOR_PERCENT)
        axes.axhline(shown, color=INK, linewidth=1, linestyle=(0, (5, 4)))
        ends.append((shown, f"{name}  {level:.1f} %", INK))
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    means = [value for curve in curves for value in _floored(100 * curve.excess_mean)]
    values = [*means, *(value for value, _, _ in ends)]
    axes.set_ylim(max(_FLOOR_PERCENT, min(0.5, 0.7 * min(values))), 1.3 * max(*values, 1))
    _label_ends(axes, ends, math.log)


def _draw_missed(axes: Axes, curves: Sequence[Curve]) -> None:
    prepare(axes, "Trials so far that missed the SLO (%)")
    axes.locator_params(axis="x", integer=True, nbins=13)
    axes.set_xlabel("trials, the all-max corner included", color=INK)
    ends: list[tuple[float, str, str]] = []
    for index, curve in enumerate(curves):
        percent = 100 * curve.violation_rate
        _line(axes, index, percent)
        ends.append((percent[-1], f"{curve.policy}  {percent[-1]:.0f} %", _colour(index)))
    axes.set_ylim(bottom=0)
    axes.set_xlim(1, max(2, len(curves[0].excess_mean)))
    _label_ends(axes, ends, float)


def _line(axes: Axes, index: int, values: FloatArray) -> None:
    """One policy's line; the first policy is the one that the picture is about."""
    axes.plot(
        np.arange(1, len(values) + 1),
        values,
        color=_colour(index),
        # A colour's second turn is told from its first by the dashes.
        linestyle="solid" if index < len(COLOURS) else (0, (4, 1.5)),
        linewidth=2.8 if index == 0 else 1.7,
        zorder=4 if index == 0 else 3,
        solid_capstyle="round",
    )


def _label_ends(
    axes: Axes, ends: Sequence[tuple[float, str, str]], scaled: Callable[[float], float]
) -> None:
    """Name each line at its right end, moved apart where the names would touch."""
    low, high = (float(scaled(limit)) for limit in axes.get_ylim())
    gap = 14.0 / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    order = sorted(ends, key=lambda end: end[0])
    heights = [(float(scaled(value)) - low) / (high - low) for value, _, _ in order]
    for (_, text, colour), height in zip(order, _apart(heights, gap), strict=True):
        axes.annotate(
            text,
            (1, height),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=9.5,
            color=colour,
            weight="bold",
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights, moved as little as it takes to be ``gap`` apart.

    Neighbours that touch join into a block about their common mean, and so on.
    """
    blocks: list[tuple[float, int]] = []
    for height in heights:
        centre, size = height, 1
        while blocks and centre - blocks[-1][0] < gap * (size + blocks[-1][1]) / 2:
            other, count = blocks.pop()
            centre, size = (centre * size + other * count) / (size + count), size + count
        blocks.append((centre, size))
    return [
        centre + gap * (place - (size - 1) / 2) for centre, size in blocks for place in range(size)
    ]


def _floored(percent: FloatArray) -> FloatArray:
    return np.maximum(percent, _FLOOR_PERCENT)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _page(figure: Figure, curves: Sequence[Curve], subject: str) -> str:
    """One self-contained page: the picture, and under it the figures it shows."""
    rows = [
        (
            str(trial + 1),
            *(
                f"{100 * curve.excess_mean[trial]:.2f} ({100 * curve.excess_p95[trial]:.1f})"
                for curve in curves
            ),
        )
        for trial in range(len(curves[0].excess_mean))
    ]
    caption = f"Energy above the optimum after each trial: mean (p95), in %; {subject}"
    heads = ("trials", *(curve.policy for curve in curves))
    return page("Policies compared", inline(figure) + table(caption, heads, rows))
