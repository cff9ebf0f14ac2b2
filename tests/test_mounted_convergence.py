"""Every mounted board governed in real time, by the real backend, keeper and default policy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import convergence_rig
import pytest

from governor.devices.emulated import board_names
from governor.devices.emulated.mount import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")

NEAR = 0.02
"""Of the energy at the emulator's own optimum under the SLO: what each board is held within."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All boards at once: they mostly sleep."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    for board in board_names():
        command = [sys.executable, convergence_rig.__file__, board]
        folder = tmp_path_factory.mktemp(board)
        started[board] = subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE)
    outputs = {board: process.communicate()[0] for board, process in started.items()}
    return {board: json.loads(output) for board, output in outputs.items()}


@pytest.mark.parametrize("board", board_names())
def test_a_board_is_held_near_its_optimum_and_keeps_the_slo(
    board: str, runs: dict[str, dict[str, Any]]
) -> None:
    run = runs[board]
    assert run["phase"] == "hold"
    assert run["latency_s"] <= run["slo_s"]
    assert run["held_j"] <= (1.0 + NEAR) * run["least_j"]
    assert run["restored"]
