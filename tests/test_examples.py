"""The examples run as they are, as a user would run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(example: str, *arguments: str) -> str:
    """What the example prints, warnings being errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / example, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", ["quickstart.py", "batch_size.py", "custom_policy.py"])
def test_it_finds_a_point_and_holds_it(example: str) -> None:
    assert "hold" in run(example)


def test_an_application_is_swept_by_its_own_loop_and_a_second_run_measures_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sweep.csv"
    first = run("sweep_own_loop.py", str(path))
    repeats = path.with_suffix(".repeats.csv").read_text()
    assert "EMULATED, batch 4" in first
    assert run("sweep_own_loop.py", str(path)) == first
    assert path.with_suffix(".repeats.csv").read_text() == repeats


def test_clocks_and_batch_size_are_found_together_where_frames_wait_for_their_batch() -> None:
    _, row, verdict = run("batch_queue.py", "agx-orin").splitlines()
    default, batch, clocks, joint, governed = map(float, row.split()[2:7])
    assert joint < min(batch, clocks) < default
    assert joint < governed < default
    assert "batch size" in verdict


def test_under_a_tariff_the_work_is_done_with_less_energy_while_that_is_dear() -> None:
    _, header, *rows = run("tariff_day.py").splitlines()
    bands, cells = header.split(), [row.split()[-5:] for row in rows]
    energy, edp, tariff = (
        [dict(zip(bands, map(float, row), strict=True)) for row in cells[first : first + 3]]
        for first in (0, 3, 6)
    )
    cents, millijoules, milliseconds = range(3)
    assert energy[cents]["day"] < tariff[cents]["day"] < edp[cents]["day"]
    assert tariff[millijoules]["evening"] < tariff[millijoules]["midday"]
    assert tariff[milliseconds]["midday"] < tariff[milliseconds]["evening"]
    assert edp[milliseconds]["midday"] == pytest.approx(edp[milliseconds]["evening"], rel=0.01)


def test_real_frames_through_a_real_network_are_governed_in_the_shadow_of_an_emulated_board(
    torch: ModuleType, cv2: ModuleType, tmp_path: Path
) -> None:
    outcome_path = tmp_path / "outcome.json"
    # A bound that any machine keeps, however busy: this is about the parts working together.
    printed = run(
        "real_detector.py",
        *("--latency-slo", "2s", "--policy", "coordinate", "--trials", "3", "--hold", "1"),
        *("--window", "1.5", "--json", str(outcome_path)),
    )
    outcome = json.loads(outcome_path.read_text())
    assert "EMULATED" in printed
    assert outcome["emulated"]
    assert outcome["phase"] == "hold"
    assert outcome["slo_feasible"]
    assert 1 <= outcome["trials"] <= 3
    assert outcome["boxes"] >= outcome["inferences"] > 0
    assert 0 < outcome["latency_s"] <= 2.0
    assert outcome["held_energy_j"] > 0


@pytest.fixture
def tiny_yolo(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    import tiny_yolo

    return tiny_yolo


def test_the_detector_puts_a_box_at_every_place_of_both_scales(
    torch: ModuleType, tiny_yolo: ModuleType
) -> None:
    with torch.inference_mode():
        found = tiny_yolo.TinyYolo().eval()(torch.rand(2, 3, 64, 96))
    places = (64 // 8) * (96 // 8) + (64 // 16) * (96 // 16)
    assert found.shape == (2, places, 4 + tiny_yolo.CLASSES)
    assert (found[..., 2:4] > found[..., :2]).all()
    assert ((found[..., 4:] >= 0) & (found[..., 4:] <= 1)).all()


def test_of_boxes_that_cover_each_other_the_best_is_kept(
    torch: ModuleType, tiny_yolo: ModuleType
) -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], dtype=torch.float32)
    scores = torch.zeros(3, tiny_yolo.CLASSES)
    scores[:, 0] = torch.tensor([0.5, 0.9, 0.4])
    kept = tiny_yolo.detect(torch.cat((boxes, scores), dim=1))
    assert kept[:, :4].tolist() == [[1, 1, 11, 11], [50, 50, 60, 60]]
