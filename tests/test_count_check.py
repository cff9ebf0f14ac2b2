"""What is counted here agrees with what others published, and the two counters with each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from governor.roofline.count_check import Comparison, compare_counts, markdown
from governor.roofline.counting import count_work
from governor.roofline.work import Work

pytest.importorskip("torch", reason="python -m pip install torch==2.13.0")
pytest.importorskip("onnx", reason="python -m pip install onnx")

DOCS = Path(__file__).parent.parent / "docs" / "work.md"


@cache
def _rows() -> tuple[Comparison, ...]:
    return tuple(compare_counts())


def _differences(source: str) -> dict[tuple[str, str], float]:
    return {(row.network, row.quantity): row.difference for row in _rows() if row.source == source}


@pytest.mark.parametrize("source", ["torchvision", "fvcore", "Ultralytics", "Darknet"])
def test_products_round_to_the_published_figures(source: str) -> None:
    differences = _differences(source)
    assert differences
    assert set(differences.values()) == {0.0}


def test_pagodas_convolutional_networks_agree_to_the_last_digit_at_all_batch_sizes() -> None:
    differences = _differences("Pagoda")
    for network in ("resnet-50", "mobilenet-v3", "yolov8n"):
        assert differences[network, "FLOP"] == differences[network, "bytes"] == 0.0
    assert all(row.batch_sizes == 11 for row in _rows() if row.source == "Pagoda")


def test_pagodas_sequence_networks_agree_but_for_what_is_explained() -> None:
    differences = _differences("Pagoda")
    assert abs(differences["bert-large", "FLOP"]) < 1e-8
    assert abs(differences["bert-large", "bytes"]) < 2e-6
    assert differences["lstm", "FLOP"] == 0.0
    assert 0 < differences["lstm", "bytes"] < 0.021


def test_every_difference_is_explained() -> None:
    assert all(row.why for row in _rows() if row.difference)


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert markdown(_rows()) in DOCS.read_text(encoding="utf-8")


# The same network at PyTorch's dispatcher and as its ONNX export ------------------------------


@cache
def _exported(name: str, fused: bool) -> Work:
    from governor.roofline.export import export_structure
    from governor.roofline.work_onnx import count_onnx
    from governor.workloads import load_workload

    workload = load_workload(name)
    model = export_structure(workload.build(), (workload.example(),))
    return count_onnx(model, batch_size=4, fused=fused)


@pytest.mark.parametrize("name", ["resnet-18", "lstm"])
def test_fused_both_counters_agree(name: str) -> None:
    exported, module = _exported(name, True), count_work(name, batch_size=4)
    assert exported.flop == pytest.approx(module.flop, rel=0.01)
    assert exported.bytes == pytest.approx(module.bytes, rel=0.01)
    assert exported.kernels == module.kernels


def test_of_attention_the_export_moves_the_scores_as_well() -> None:
    exported, module = _exported("bert-tiny", True), count_work("bert-tiny", batch_size=4)
    assert exported.flop == pytest.approx(module.flop, rel=0.01)
    scores = 4 * 4 * 2 * 128 * 128
    # In each of two layers they are written, read, written as shares, and read.
    assert exported.bytes - module.bytes == pytest.approx(2 * 4 * scores, rel=0.2)
