"""``governor bench instrument``: what seeing an inference adds; no test here asserts a time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from governor.cli.bench import instrument
from governor.cli.bench.instrument import Outcome, Overhead
from governor.cli.main import main


@pytest.mark.parametrize("kind", ["torch module", "ONNX Runtime", "cv2.dnn"])
def test_each_kind_is_timed_bare_seen_and_marked(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instrument, "LISTEN_S", 0.0)
    monkeypatch.setattr(instrument, "_KINDS", {kind: instrument._KINDS[kind]})
    outcome = instrument.measure(rounds=1, batches=2)
    if kind in outcome.missing:
        pytest.skip(f"{kind}: {outcome.missing[kind]}")
    (one,) = outcome.overheads
    assert one.bare_s > 0
    assert math.isfinite(one.seen_s)
    assert math.isfinite(one.marked_s)
    assert (one.zeus_s is None) == (outcome.zeus is None)


def test_what_is_not_installed_is_named_and_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> instrument.Infer:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    monkeypatch.setattr(instrument, "_KINDS", {"cv2.dnn": ("opencv", missing)})
    outcome = instrument.measure(rounds=1, batches=1)
    assert outcome.overheads == []
    assert outcome.missing["cv2.dnn"] == "cv2 is not installed"
    assert "NVIDIA" in outcome.missing["TensorRT"]


def test_it_is_shown_on_80_columns_and_written_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Overhead(
        kind="torch, 100 layers *", bare_s=2e-6, seen_s=1e-6, marked_s=0.5e-6, zeus_s=None
    )
    monkeypatch.setattr(instrument, "measure", lambda: Outcome([one], {"x": "not here"}, None))
    assert main(["bench", "instrument", "--json", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert "1.50x" in shown
    assert "x: not measured; not here" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (written,) = json.loads((tmp_path / "out.json").read_text())["overheads"]
    assert written["seen_s"] == 1e-6
    assert written["ratio"] == 1.5
    assert written["zeus_s"] is None
