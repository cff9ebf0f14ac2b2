"""What a Jetson says of itself: the facts that a measurement on it must be told with."""

from __future__ import annotations

from pathlib import Path

from governor.devices.nvpmodel import present_mode
from governor.lease.jetson_board import Board, is_emulated, l4t, model

JETPACKS = {"32": "4", "34": "5 (developer preview)", "35": "5", "36": "6", "38": "7", "39": "7"}
"""JetPack by the first number of the Jetson Linux release, as jetson-stats maps them."""


def facts(root: Path, board: Board) -> dict[str, str]:
    """By name, such as ``JetPack`` and ``power mode``; one that is not known is absent."""
    release = l4t(root)
    found = {
        "board": board.name,
        "title": board.title + (" (emulated)" if is_emulated(root) else ""),
        "model": model(root),
        "chip": board.soc,
        "Jetson Linux": release or "unknown: etc/nv_tegra_release cannot be read",
        "JetPack": JETPACKS.get(release.partition(".")[0], ""),
        "power mode": str(present_mode(root) or "unknown: var/lib/nvpmodel/status cannot be read"),
    }
    return {name: fact for name, fact in found.items() if fact}
