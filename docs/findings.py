"""Draws docs/roofline-findings.svg: how much energy tuning is predicted to save, and prints it.

Run it with: python docs/findings.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from governor.report.drawing import COLOURS, FAINT, INK, empty_figure, prepare, svg
from governor.roofline.boards import load_board
from governor.roofline.counting import count_work
from governor.roofline.forecast import forecast
from governor.roofline.prediction import Clocks, predict

HERE = Path(__file__).parent
NETWORKS = ("resnet-50", "mobilenet-v3", "yolov8n", "lstm", "bert-large")
BATCH = 16
SLOWER = np.linspace(1.0, 1.5, 101)
LIMITS = (1.02, 1.05, 1.1)


def main() -> None:
    board = load_board("agx-orin")
    stack, maxn = board.stack("pytorch"), board.mode("MAXN")
    figure = empty_figure(10.0, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.06, right=0.86, top=0.78, bottom=0.16, wspace=0.1)
    figure.text(0.02, 0.93, "Energy saved by tuning the clocks", size=15, weight="bold", color=INK)
    figure.text(
        0.02,
        0.875,
        "Least energy at clocks that take at most so much longer than MAXN. AGX Orin, PyTorch "
        f"FP32, batch {BATCH}. Predicted, nothing was measured.",
        size=9.5,
        color=FAINT,
    )
    for axes, training in zip(panels, (False, True), strict=True):
        prepare(axes, f"{'Training step' if training else 'Inference'}: energy below MAXN's (%)")
        axes.set_xlabel("longer than MAXN by at most (%)", color=INK)
        axes.set_xlim(0, 50)
        axes.axhline(15, color=FAINT, linewidth=1, linestyle=(0, (5, 4)))
        for index, name in enumerate(NETWORKS):
            work = count_work(name, batch_size=1, training=training, fused=False).scaled(BATCH)
            at_caps = predict(board, stack, work, Clocks.at(maxn))
            found = predict(board, stack, work, Clocks.within(maxn, board))
            time, energy = found.time_s / at_caps.time_s, found.energy_j / at_caps.energy_j
            least = np.array([energy[time <= limit * (1 + 1e-9)].min() for limit in SLOWER])
            saved = 100 * (1 - least)
            axes.plot(100 * (SLOWER - 1), saved, color=COLOURS[index], linewidth=1.9, label=name)
            maxn_j, *modes_j = (
                one.energy_j for one in forecast(board, "pytorch", work, board.modes).at_modes
            )
            cells = [f"{100 * (mode_j / maxn_j - 1):+5.0f} %" for mode_j in modes_j]
            cells += [f"{saved[np.searchsorted(SLOWER, limit)]:5.0f} %" for limit in LIMITS]
            print(f"{name:13} {'training' if training else 'inference':10}", *cells)
    panels[0].text(49, 16, "the study: up to 15 %", size=8, color=FAINT, ha="right")
    panels[1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    (HERE / "roofline-findings.svg").write_text(svg(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
