"""The frequency study, done again: what is swept, what is found, what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from governor.cli.main import main
from governor.cli.study import nano_xavier
from governor.cli.study.nano_xavier import (
    BOARDS,
    NETWORKS,
    PUBLISHED,
    Result,
    Task,
    findings,
    measure,
    tasks,
)
from governor.devices.emulated import EmulatedBoard
from governor.devices.trace import read_traces


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, measure(Task("nano", "bert-tiny", str(folder), inferences=3, repeats=1, seed=0))


def test_every_cpu_and_gpu_clock_is_swept_at_every_batch_size(
    swept: tuple[Path, list[Result]],
) -> None:
    folder, results = swept
    assert [result.batch_size for result in results] == [4, 8, 16, 32, 64]
    assert all(result.energy_j.shape == (15, 12) for result in results)
    assert len(read_traces([folder / "nano-bert-tiny.csv"])) == 5


def test_what_the_sensors_said_is_near_what_the_emulation_spent(
    swept: tuple[Path, list[Result]],
) -> None:
    result = swept[1][2]
    board = EmulatedBoard("nano", nano_xavier.workload("bert-tiny"), batch_size=16)
    emc_hz = board.space.knobs[2].levels[-1]
    for cpu, gpu in ((0, 5), (7, 7), (14, 11)):
        point = board.space.point(board.space.fastest)
        truth = board.true_energy_j(
            type(point)(
                {"cpu_hz": result.cpu_hz[cpu], "gpu_hz": result.gpu_hz[gpu], "emc_hz": emc_hz}
            )
        )
        assert result.energy_j[cpu, gpu] == pytest.approx(truth, rel=0.05)


def test_an_image_is_prepared_by_the_cpu_and_a_sentence_hardly() -> None:
    image, sentence = (nano_xavier.workload(name).host_cycles for name in ("alexnet", "bert-tiny"))
    assert image > 1e6
    assert sentence < 1e4


def test_a_detectors_boxes_are_decoded_by_the_cpu() -> None:
    cycles = nano_xavier.workload("yolov4-tiny").host_cycles
    assert cycles == nano_xavier.HOST_CYCLES * (3 * 416 * 416 + 2535 * 85)


def test_the_study_is_all_networks_on_both_boards(tmp_path: Path) -> None:
    todo = tasks(tmp_path, 20, 2, 0)
    assert {(one.board, one.network) for one in todo} == {(b, n) for b in BOARDS for n in NETWORKS}
    assert PUBLISHED.keys() <= {(one.board, one.network) for one in todo}


def results(saving: float) -> list[Result]:
    """Made up: an energy valley over the GPU clock, a slope over the CPU clock."""
    valley = np.array([3.0, 1.0, 1.4])
    energy = np.add.outer(np.array([0.0, 0.1]), valley) / 1.0
    one = Result(
        "nano",
        "alexnet",
        4,
        cpu_hz=np.array([1e9, 2e9]),
        gpu_hz=np.array([1e8, 5e8, 9e8]),
        energy_j=energy,
        latency_s=np.ones((2, 3)),
        default_j=1.0 / (1.0 - saving),
        default_s=0.9,
        spread=0.01,
    )
    scale = {"nano": 1.0, "xavier-nx": 1.0 / 3.0}
    return [
        replace(
            one,
            board=board,
            network=network,
            energy_j=energy * scale[board],
            default_j=one.default_j * scale[board],
        )
        for board in BOARDS
        for network in NETWORKS
    ]


def test_findings_that_hold_are_said_to_hold() -> None:
    found = list(findings(results(saving=0.14)))
    assert [one.holds for one in found[:4]] == [True, True, True, True]
    by_pair = dict(zip(PUBLISHED, found[4:], strict=True))
    for pair, published in PUBLISHED.items():
        assert by_pair[pair].holds == (abs(0.14 - published) <= 0.04)


def test_findings_that_do_not_hold_are_said_not_to() -> None:
    monotonic = [
        replace(one, energy_j=np.sort(one.energy_j, axis=1), spread=0.06) for one in results(0.15)
    ]
    found = list(findings(monotonic))
    assert not found[0].holds
    assert not found[3].holds


def test_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="python -m pip install matplotlib")
    from governor.cli.study.figures import draw

    paths = draw(tmp_path, results(0.15))
    assert [path.stat().st_size > 10_000 for path in paths] == [True, True, True]


def test_an_unknown_study_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "pluto"]) == 2
    assert "choose one of nano-xavier" in capsys.readouterr().err
