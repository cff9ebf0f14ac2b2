"""The study's figures: energy over each clock, and the minima beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from governor.cli.study.nano_xavier import BOARDS, NETWORKS, PUBLISHED, Result, saving_of
from governor.report.drawing import COLOURS, FAINT, INK, Axes, empty_figure, prepare
from governor.space import FloatArray

_TITLES = {"nano": "Jetson Nano", "xavier-nx": "Jetson Xavier NX"}


def draw(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Draw all figures into ``folder``; returns their paths."""
    return [
        _over_clock(folder / "energy-over-gpu-clock.png", results, "gpu"),
        _over_clock(folder / "energy-over-cpu-clock.png", results, "cpu"),
        _minima(folder / "minima.png", results),
    ]


def _over_clock(path: Path, results: Sequence[Result], knob: str) -> Path:
    """Energy over one clock, the other at its best; relative to the default governors'."""
    figure = empty_figure(10.0, 4.6)
    panels = figure.subplots(1, len(BOARDS), sharey=True)
    figure.subplots_adjust(left=0.07, right=0.86, top=0.8, bottom=0.14, wspace=0.08)
    figure.text(
        0.02,
        0.935,
        f"Energy an item over the {knob.upper()} clock, against the default governors (= 100 %)",
        size=13,
        weight="bold",
        color=INK,
    )
    figure.text(
        0.02, 0.885, "EMULATION; the other clock at its best level; batch 4", size=9.5, color=FAINT
    )
    for axes, board in zip(panels, BOARDS, strict=True):
        prepare(axes, _TITLES[board])
        axes.set_xlabel(f"{knob.upper()} clock (MHz)", color=INK, size=9.5)
        for colour, network in zip(COLOURS, NETWORKS, strict=False):
            _curve(axes, _first(results, board, network), knob, colour)
        axes.axhline(100, color=FAINT, linewidth=1, linestyle=(0, (5, 4)))
        axes.set_ylim(70, 190)
        axes.set_yticks(range(80, 200, 20), [f"{tick} %" for tick in range(80, 200, 20)])
    panels[-1].plot([], [], "o", color=FAINT, markersize=6, label="least energy")
    panels[-1].legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, labelcolor=INK
    )
    figure.savefig(path, dpi=130)
    return path


def _first(results: Sequence[Result], board: str, network: str) -> Result:
    return next(r for r in results if (r.board, r.network) == (board, network))


def _curve(axes: Axes, result: Result, knob: str, colour: str) -> None:
    clocks = result.cpu_hz if knob == "cpu" else result.gpu_hz
    energy = 100.0 * result.along(knob) / result.default_j
    lowest = int(np.argmin(energy))
    axes.plot(clocks / 1e6, energy, color=colour, linewidth=1.7, label=result.network)
    axes.plot(clocks[lowest] / 1e6, energy[lowest], "o", color=colour, markersize=6)


def _minima(path: Path, results: Sequence[Result]) -> Path:
    """Savings of the study and of the emulation, pair by pair."""
    figure = empty_figure(10.0, 4.4)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.06, right=0.98, top=0.8, bottom=0.17)
    figure.text(
        0.02, 0.93, "Least energy below the default governors", size=13, weight="bold", color=INK
    )
    figure.text(
        0.02,
        0.875,
        "the study's measurements beside the EMULATION, mean over batch sizes; lines: their range",
        size=9.5,
        color=FAINT,
    )
    prepare(axes, "")
    pairs = list(PUBLISHED)
    places = np.arange(len(pairs))
    ours = np.array([100 * saving_of(results, *pair) for pair in pairs])
    low, high = _ranges(results, pairs)
    axes.bar(places - 0.2, [100 * PUBLISHED[p] for p in pairs], 0.38, color=FAINT, label="study")
    axes.bar(places + 0.2, ours, 0.38, color=COLOURS[0], label="emulation")
    axes.errorbar(  # beside the figure at the bar's foot
        places + 0.37, ours, yerr=[ours - low, high - ours], fmt="none", ecolor=INK, elinewidth=1
    )
    for place, pair, value in zip(places, pairs, ours, strict=True):
        axes.annotate(
            f"{100 * PUBLISHED[pair]:.0f} %", (place - 0.2, 100 * PUBLISHED[pair]),
            xytext=(0, 3), textcoords="offset points", ha="center", size=8.5, color=INK,
        )  # fmt: skip
        axes.annotate(
            f"{value:.0f} %", (place + 0.17, 0), xytext=(0, 5), textcoords="offset points",
            ha="center", size=8.5, color="white",
        )  # fmt: skip
    axes.set_xticks(places, [f"{network}\n{_TITLES[b].split(' ', 1)[1]}" for b, network in pairs])
    axes.set_yticks(range(0, 25, 5), [f"{tick} %" for tick in range(0, 25, 5)])
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    figure.savefig(path, dpi=130)
    return path


def _ranges(
    results: Sequence[Result], pairs: Sequence[tuple[str, str]]
) -> tuple[FloatArray, FloatArray]:
    savings = [[100 * r.saving for r in results if (r.board, r.network) == pair] for pair in pairs]
    return np.array([min(s) for s in savings]), np.array([max(s) for s in savings])
