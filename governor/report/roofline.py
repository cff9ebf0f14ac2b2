"""Pictures of the roofline: a network on a board, and predictions against published figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    prepare,
    svg,
)
from governor.report.page import page, table
from governor.roofline.forecast import Forecast
from governor.roofline.prediction import Clocks, kind_of, layer_joules, layer_seconds, predict
from governor.roofline.published import Compared, Published
from governor.roofline.tuning import Setting
from governor.space import FloatArray
from governor.units import format_duration

FORMATS = (".png", ".svg", ".html")
"""The endings that the pictures here can have."""

PREDICTED = "Predicted from counted work and the board's constants; nothing was measured."

_KINDS: Mapping[str, tuple[str, str]] = {
    "conv": ("convolutions", COLOURS[0]),
    "gemm": ("matrix products", COLOURS[1]),
    "vector": ("other layers", COLOURS[2]),
}
_VISIBLE = 5e-4
"""Layers with a smaller share of the whole are left out: they would stretch the axes."""

_TUNED, _WITHIN = COLOURS[2], COLOURS[3]
_LEGEND_COLUMNS = 3
_NAME_WIDTH, _NAME_HEIGHT = 90.0, 11.0
"""Points that a setting's name takes."""


def draw_forecasts(path: Path, forecasts: Sequence[Forecast]) -> None:
    """Draw the first batch size's rooflines and energies; HTML shows all batch sizes.

    Args:
        path: ends in one of :data:`FORMATS`.
    """
    if path.suffix.lower() == ".html":
        figures = [inline(_forecast(one)) for one in forecasts]
        title = f"{forecasts[0].work.name} on {forecasts[0].board.title}"
        path.write_text(page(title, "".join(figures)), encoding="utf-8")
    else:
        _save(path, _forecast(forecasts[0]))


def draw_published(path: Path, sets: Sequence[tuple[Published, Sequence[Compared]]]) -> None:
    """Draw predicted against published time and energy; HTML carries the points as a table.

    Args:
        path: ends in one of :data:`FORMATS`.
    """
    figure = _published(sets)
    if path.suffix.lower() == ".html":
        title = "Predicted against published"
        path.write_text(page(title, inline(figure) + _points(sets)), encoding="utf-8")
    else:
        _save(path, figure)


def _save(path: Path, figure: Figure) -> None:
    if path.suffix.lower() == ".png":
        figure.savefig(path, dpi=88, pil_kwargs={"optimize": True})
    else:
        path.write_text(svg(figure), encoding="utf-8")


def _forecast(forecast: Forecast) -> Figure:
    figure = empty_figure(11.0, 8.6)
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.97, top=0.855, bottom=0.105, hspace=0.36, wspace=0.2)
    work = forecast.work
    what = "training step" if work.training else "inference"
    _headline(
        figure,
        f"{work.name} on {forecast.board.title}",
        f"{forecast.stack}, {work.precision}, {what}, batch {work.batch_size}. {PREDICTED}",
    )
    _draw_rooflines(panels[0][0], forecast, energy=False)
    _draw_rooflines(panels[0][1], forecast, energy=True)
    _draw_over_clock(panels[1][0], forecast)
    _draw_plane(panels[1][1], forecast)
    figure.text(
        0.02,
        0.02,
        f"Roofs: {forecast.roofs[0].precision.upper()} peak and full bandwidth of each mode. Dots: "
        f"layers at the caps of {forecast.base.name}, their area the share of time (left) or "
        "energy (right).",
        size=8,
        color=FAINT,
    )
    return figure


def _headline(figure: Figure, title: str, subject: str) -> None:
    figure.text(0.02, 0.957, title, size=15, weight="bold", color=INK)
    figure.text(0.02, 0.925, subject, size=9.5, color=FAINT)


def _draw_rooflines(axes: Axes, forecast: Forecast, *, energy: bool) -> None:
    prepare(axes, "Energy roofline: GFLOP/J" if energy else "Time roofline: TFLOP/s")
    axes.set_xlabel("intensity, FLOP a byte", color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    kinds, intensity, reached, share = _layers(forecast, energy=energy)
    scale = 1e9 if energy else 1e12
    low = min(0.3, float(intensity.min()) / 1.5)
    span = np.geomspace(low, max(1000.0, 1.5 * float(intensity.max())), 300)
    for index, (mode, roof) in enumerate(zip(forecast.modes, forecast.roofs, strict=True)):
        shade = 0.75 * index / max(len(forecast.modes) - 1, 1)
        # The power limit holds for a whole inference, not for each layer of it.
        free = replace(roof, limit_w=math.inf)
        rate = free.flop_per_joule(span) if energy else free.flop_rate(span)
        axes.plot(span, rate / scale, color=(shade,) * 3, linewidth=1.6, zorder=2, label=mode.name)
    for kind, (name, colour) in _KINDS.items():
        chosen = np.array([one == kind for one in kinds], dtype=np.bool_)
        if chosen.any():
            axes.scatter(
                intensity[chosen],
                reached[chosen] / scale,
                s=12 + 1500 * share[chosen],
                color=colour,
                alpha=0.45,
                linewidth=0,
                zorder=3,
                label=name,
            )
    legend = axes.legend(frameon=False, fontsize=7.5, loc="lower right", labelcolor=INK)
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([30])


def _layers(
    forecast: Forecast, *, energy: bool
) -> tuple[list[str], FloatArray, FloatArray, FloatArray]:
    """Kind, FLOP a byte, FLOP a second (or joule) and share of the whole, of visible layers."""
    board, stack, work = forecast.board, forecast.board.stack(forecast.stack), forecast.work
    clocks = Clocks.at(forecast.base)
    if energy:
        cost = layer_joules(board, stack, work, forecast.base)
    else:
        cost = layer_seconds(board, stack, work, clocks.gpu_hz, clocks.emc_hz, clocks.gpu_share)[0]
    share = cost / cost.sum()
    arithmetic = np.array([layer.flop > 0 and layer.bytes > 0 for layer in work.layers])
    keep = arithmetic & (share >= min(_VISIBLE, float(share[arithmetic].max())))
    flop = np.array([layer.flop for layer in work.layers])[keep]
    kinds = [kind_of(layer) for layer, kept in zip(work.layers, keep, strict=True) if kept]
    intensity = np.array([layer.intensity for layer in work.layers])[keep]
    return kinds, intensity, flop / cost[keep], share[keep]


def _draw_over_clock(axes: Axes, forecast: Forecast) -> None:
    """Energy over the GPU clock, one line a memory clock, at the tuned CPU clock."""
    prepare(axes, "Energy an item (J) over the GPU clock, by memory clock")
    axes.set_xlabel("GPU clock, MHz", color=INK)
    board, base, items = forecast.board, forecast.base, forecast.work.batch_size
    gpu_hz = np.array([hz for hz in board.gpu.levels_hz if hz <= base.gpu_hz])
    levels = [hz for hz in board.memory.levels_hz if hz <= base.emc_hz]
    least = forecast.least
    curves: list[tuple[float, FloatArray]] = []
    for emc_hz in reversed(levels):
        clocks = Clocks(
            cpu_hz=np.full_like(gpu_hz, least.cpu_hz),
            gpu_hz=gpu_hz,
            emc_hz=np.full_like(gpu_hz, emc_hz),
            cores=base.cores,
            gpu_share=base.gpu_share,
        )
        energy = predict(board, board.stack(forecast.stack), forecast.work, clocks).energy_j / items
        curves.append((emc_hz, energy))
    # Slow memory can cost many times as much: such curves would press the others flat.
    top = 1.8 * max(float(energy[-1]) for _, energy in curves[:2])
    shown = [one for one in curves if one[1].min() < top][: len(COLOURS)]
    for index, (emc_hz, energy) in enumerate(shown):
        axes.plot(
            gpu_hz / 1e6,
            energy,
            color=COLOURS[index],
            linewidth=1.8,
            marker="o" if len(gpu_hz) < 30 else None,
            markersize=3.5,
            label=f"EMC {emc_hz / 1e6:.0f} MHz",
        )
    axes.axvline(board.gpu.voltage.floor_hz / 1e6, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    _name_upright(axes, board.gpu.voltage.floor_hz / 1e6, "end of the voltage floor", FAINT)
    axes.set_ylim(0, top)
    # Energies lie far above the axis, which starts at 0: there is room below them.
    axes.legend(
        loc="lower center", ncols=_LEGEND_COLUMNS, fontsize=7.5, labelcolor=INK, framealpha=0.9,
        edgecolor="none", columnspacing=1.2,
    )  # fmt: skip


def _name_upright(axes: Axes, x: float, name: str, colour: str) -> None:
    """Name a vertical line near its top, to its right; nothing where the axes do not show it."""
    axes.annotate(
        name,
        (x, 0.99),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4, -1),
        textcoords="offset points",
        annotation_clip=True,
        va="top",
        size=7.5,
        color=colour,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
    )


def _draw_plane(axes: Axes, forecast: Forecast) -> None:
    """Every setting in the plane of time and energy, with the modes and the tuned clocks."""
    prepare(axes, "Energy an item (J) over time a batch (ms), every setting")
    axes.set_xlabel("time, ms", color=INK)
    board, items = forecast.board, forecast.work.batch_size
    found = predict(
        board,
        board.stack(forecast.stack),
        forecast.work,
        Clocks.within(forecast.base, board),
    )
    axes.scatter(
        1e3 * found.time_s, found.energy_j / items, s=3, color="#B5B5B5", linewidth=0, zorder=2
    )
    least, within = forecast.least, forecast.within_slo
    marked = [(one, INK, "s") for one in forecast.at_modes]
    if within is not None and within.time_s == least.time_s:
        marked.append((replace(least, name="least energy, within the SLO"), _TUNED, "D"))
    else:
        marked.append((least, _TUNED, "D"))
        marked += [(within, _WITHIN, "D")] if within is not None else []
    if forecast.slo_s is not None:
        axes.axvline(1e3 * forecast.slo_s, color=_WITHIN, linewidth=1, linestyle=(0, (4, 3)))
        _name_upright(axes, 1e3 * forecast.slo_s, f"SLO {format_duration(forecast.slo_s)}", _WITHIN)
    slowest = max(one.time_s for one, _, _ in marked)
    dearest = max(one.energy_j for one, _, _ in marked) / items
    fastest, cheapest = float(found.time_s.min()), float(found.energy_j.min()) / items
    axes.set_xlim(0.85e3 * fastest, 1.45e3 * slowest)
    axes.set_ylim(0.85 * cheapest, dearest + 0.35 * (dearest - cheapest) + 0.02 * dearest)
    _mark(axes, marked, items)


def _mark(axes: Axes, marked: Sequence[tuple[Setting, str, str]], items: int) -> None:
    """Settings and their names: beside each, or lower where another's would cover it."""
    placed: list[FloatArray] = []
    points = 72 / axes.figure.dpi
    for setting, colour, marker in sorted(marked, key=lambda one: -one[0].energy_j):
        at = (1e3 * setting.time_s, setting.energy_j / items)
        axes.scatter(*at, s=34, color=colour, marker=marker, zorder=4)
        beside = points * axes.transData.transform(at) + (7, -3)
        name = beside.copy()
        for other in placed:
            if abs(name[0] - other[0]) < _NAME_WIDTH and name[1] > other[1] - _NAME_HEIGHT:
                name[1] = other[1] - _NAME_HEIGHT
        placed.append(name)
        axes.annotate(
            setting.name,
            at,
            xytext=(7, -3 + name[1] - beside[1]),
            textcoords="offset points",
            size=8,
            color=colour,
            weight="bold",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5)}
            if name[1] < beside[1]
            else None,
            zorder=4,
        )


def _published(sets: Sequence[tuple[Published, Sequence[Compared]]]) -> Figure:
    figure = empty_figure(11.0, 6.3)
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.83, bottom=0.24, wspace=0.16)
    _headline(
        figure,
        "Predicted against published",
        "Every published point. The boards' constants were fitted on the open ones; "
        "the full ones were only tested.",
    )
    for axes, energy in zip(panels, (False, True), strict=True):
        _draw_parity(axes, sets, energy=energy)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, fontsize=8, ncols=3, loc="lower center", labelcolor=INK
    )
    return figure


def _draw_parity(
    axes: Axes, sets: Sequence[tuple[Published, Sequence[Compared]]], *, energy: bool
) -> None:
    unit = "J a batch" if energy else "ms a batch"
    prepare(axes, f"{'Energy' if energy else 'Latency'}, {unit}; the band is 10 % either way")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.set_xlabel("published", color=INK)
    axes.set_ylabel("predicted", color=INK)
    values: list[float] = []
    for index, (published, compared) in enumerate(sets):
        colour = COLOURS[index % len(COLOURS)]
        label = f"{published.name} ({published.board.name}, {published.stack})"
        for fitted in (True, False):
            pairs = [
                pair
                for one in compared
                if one.point.fitted is fitted and (pair := _pair(one, energy=energy))
            ]
            if not pairs:
                continue
            values += [value for pair in pairs for value in pair]
            axes.scatter(
                *zip(*pairs, strict=True),
                s=22,
                facecolor="none" if fitted else colour,
                edgecolor=colour,
                marker="o" if index < len(COLOURS) else "s",
                linewidth=1,
                zorder=3,
                label=None if fitted else label,
            )
    ends = np.array([min(values) / 1.5, max(values) * 1.5])
    axes.plot(ends, ends, color=FAINT, linewidth=1, zorder=2)
    axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color=GRID, zorder=1)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)


def _pair(one: Compared, *, energy: bool) -> tuple[float, float] | None:
    if not energy:
        return 1e3 * one.point.time_s, 1e3 * one.time_s
    return None if one.point.energy_j is None else (one.point.energy_j, one.energy_j)


def _points(sets: Sequence[tuple[Published, Sequence[Compared]]]) -> str:
    heads = ("point", "half", "published ms", "predicted", "error %")
    heads += ("published J", "predicted", "error %")
    rows: list[tuple[str, ...]] = []
    for published, compared in sets:
        for one in compared:
            point, error = one.point, one.energy_error
            energy = ("", "", "")
            if point.energy_j is not None and error is not None:
                energy = (f"{point.energy_j:.4g}", f"{one.energy_j:.4g}", f"{100 * error:+.1f}")
            rows.append(
                (
                    f"{published.name}: {point.label}",
                    "fitted" if point.fitted else "tested",
                    f"{1e3 * point.time_s:.4g}",
                    f"{1e3 * one.time_s:.4g}",
                    f"{100 * one.time_error:+.1f}",
                    *energy,
                )
            )
    return table("Each point: latency and energy of a batch.", heads, rows)
