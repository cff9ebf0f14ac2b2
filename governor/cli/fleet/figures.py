"""The fleet's figure: how fast each wave settles, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from governor.cli.fleet.governing import BoardRun
from governor.cli.fleet.results import by_wave, group
from governor.report.drawing import COLOURS, FAINT, INK, Axes, empty_figure, prepare


def draw(path: Path, runs: Sequence[BoardRun]) -> None:
    """Draw it as a PNG."""
    total, waves = group(runs), by_wave(runs)
    figure = empty_figure(10.0, 4.6)
    trials, energy = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.77, bottom=0.13, wspace=0.16)
    figure.text(
        0.02, 0.935, "A fleet that shares what it learns", size=14, weight="bold", color=INK
    )
    figure.text(
        0.02,
        0.88,
        f"EMULATION of {total.boards:,} boards of differing silicon, rooms and workloads, switched "
        f"on in {len(waves)} waves; the kernel's governors: "
        f"{100 * (total.default_w / total.least_w - 1):.0f} % above the least there is",
        size=9.5,
        color=FAINT,
    )
    places = np.arange(1, len(waves) + 1)
    prepare(trials, "Trials until a setting is held, mean of the wave")
    _line(trials, places, [one.alone_trials for one in waves], "each board alone", COLOURS[1])
    _line(trials, places, [one.shared_trials for one in waves], "with the shared store", COLOURS[0])
    trials.set_ylim(bottom=0)
    prepare(energy, "Energy above the least there is, searches included (%)")
    for watts, label, colour in (
        ([one.alone_w for one in waves], "each board alone", COLOURS[1]),
        ([one.shared_w for one in waves], "with the shared store", COLOURS[0]),
    ):
        above = [100 * (w / one.least_w - 1) for w, one in zip(watts, waves, strict=True)]
        _line(energy, places, above, label, colour)
    energy.set_ylim(bottom=0)
    step = math.ceil(len(waves) / 5)
    for axes in (trials, energy):
        axes.set_xlabel("wave", color=INK, size=9.5)
        axes.set_xticks(sorted({1, *range(step, len(waves) + 1, step)}))
        axes.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path, dpi=130)


def _line(axes: Axes, x: object, y: Sequence[float], label: str, colour: str) -> None:
    axes.plot(x, y, "o-", color=colour, linewidth=1.8, markersize=4, label=label)
