"""The layered roofline against published figures, and the findings of the studies it builds on."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from governor.cli.main import main
from governor.devices.trace import read_traces
from governor.errors import InputError
from governor.roofline.board_file import with_constants
from governor.roofline.boards import load_board
from governor.roofline.counting import count_work
from governor.roofline.forecast import Forecast, forecast
from governor.roofline.published import (
    Compared,
    Published,
    compare,
    fit,
    load_set,
    set_names,
    summarise,
)
from governor.roofline.tuning import at_caps, least_energy

pytestmark = pytest.mark.usefixtures("torch")

NETWORKS = ("resnet-50", "mobilenet-v3", "yolov8n", "lstm", "bert-large")
TRAINED = ("mobilenet-v3", "lstm")
"""To count a training step takes seconds; docs/roofline.md has all five."""
NEARLY_SAME = 1.05


@pytest.fixture(scope="module")
def sets() -> dict[str, Published]:
    return {name: load_set(name) for name in set_names()}


@pytest.fixture(scope="module")
def tested(sets: dict[str, Published]) -> dict[str, list[Compared]]:
    """The half that nothing was fitted on."""
    return {
        name: [one for one in compare(published) if not one.point.fitted]
        for name, published in sets.items()
    }


def test_a_set_alternates_between_the_half_that_is_fitted_and_the_one_that_is_tested(
    sets: dict[str, Published],
) -> None:
    for published in sets.values():
        halves = [point.fitted for point in published.points]
        assert halves == [number % 2 == 0 for number in range(len(halves))]
        assert published.source


def test_all_25_points_of_agx_orin_are_compared(sets: dict[str, Published]) -> None:
    points = sets["pagoda"].points
    assert len(points) == 25
    # The source's outlier has no energy here: docs/roofline.md.
    assert sum(point.energy_j is not None for point in points) == 24


@pytest.mark.parametrize("name", ["pagoda", "orin-nano-grid", "orin-nano-tokens", "tx2"])
def test_latency_on_the_tested_half_is_within_10_percent_on_average(
    name: str, tested: dict[str, list[Compared]]
) -> None:
    error = summarise(tested[name]).time_error
    assert error is not None
    assert error <= 0.10


@pytest.mark.parametrize(
    "name", ["pagoda", "orin-nano-tokens", "tx2", "mlperf-agx-orin", "mlperf-xavier-nx"]
)
def test_energy_on_the_tested_half_is_within_12_percent_on_average(
    name: str, tested: dict[str, list[Compared]]
) -> None:
    error = summarise(tested[name]).energy_error
    assert error is not None
    assert error <= 0.12


def test_over_all_tested_points_latency_and_energy_keep_their_goals(
    tested: dict[str, list[Compared]],
) -> None:
    found = summarise([one for compared in tested.values() for one in compared])
    assert found.latencies > 100
    assert found.time_error is not None
    assert found.energy_error is not None
    assert found.time_error <= 0.10
    assert found.energy_error <= 0.12


def test_a_fit_recovers_constants_that_were_moved(sets: dict[str, Published]) -> None:
    tokens = sets["orin-nano-tokens"]
    moved = {key: 1.3 * float(tokens.board.constants[key].value) for key in tokens.free}
    away = with_constants(tokens.board, moved)
    published = Published(
        name="tokens", title="", board=away, stack=tokens.stack, source="", free=tokens.free,
        points=tokens.points,
    )  # fmt: skip
    before = summarise(compare(published))
    after = summarise(compare(published, with_constants(away, fit([published]))))
    assert before.energy_error is not None
    assert after.energy_error is not None
    assert after.energy_error < 0.5 * before.energy_error


def test_an_unknown_set_names_those_there_are() -> None:
    with pytest.raises(InputError, match="no published set 'mine'; choose one of pagoda"):
        load_set("mine")


def test_the_command_shows_every_set_and_its_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="python -m pip install matplotlib")
    plot, figures = tmp_path / "published.html", tmp_path / "published.json"
    assert main(["roofline", "--published", "--plot", str(plot), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    for name in set_names():
        assert name in out
    assert "Mean absolute error" in out
    assert plot.read_text().startswith("<!doctype html>")
    assert figures.read_text().count('"published_s"') > 200


def test_bert_measured_by_others_at_all_max_is_predicted_within_10_percent(traces: Path) -> None:
    board, bert = load_board("agx-orin"), count_work("bert-large", batch_size=1, fused=False)
    sweeps = [
        sweep
        for sweep in read_traces([traces / "dreamlab-agx-orin.csv"])
        if sweep.workload == "bert"
    ]
    assert len(sweeps) == 5
    for sweep in sweeps:
        row = sweep.space.fastest
        maxn = at_caps(board, board.stack("pytorch"), bert.scaled(sweep.batch_size), board.modes[0])
        assert maxn.time_s == pytest.approx(sweep.latency_s[row], rel=0.1)
        assert maxn.energy_j == pytest.approx(sweep.energy_j[row], rel=0.1)


@pytest.fixture(scope="module")
def forecasts(torch: ModuleType) -> list[Forecast]:
    """The second study's five networks on its board, inference and training, two batch sizes."""
    board = load_board("agx-orin")
    return [
        forecast(board, "pytorch", work.scaled(size), board.modes)
        for name, training in [*product(NETWORKS, [False]), *product(TRAINED, [True])]
        for work in [count_work(name, batch_size=1, training=training, fused=False)]
        for size in (1, 16)
    ]


def test_maxn_is_never_the_most_energy_efficient_mode(forecasts: list[Forecast]) -> None:
    for one in forecasts:
        maxn, *others = one.at_modes
        assert maxn.name == "MAXN"
        assert min(mode.energy_j for mode in others) < maxn.energy_j


def test_what_is_efficient_in_time_is_efficient_in_energy_in_every_mode(
    forecasts: list[Forecast],
) -> None:
    for one in forecasts:
        for roof in one.roofs:
            assert roof.half_efficiency <= roof.ridge


def test_tuning_saves_energy_at_nearly_the_same_time_for_inference_and_training(
    forecasts: list[Forecast],
) -> None:
    savings = {False: [], True: []}
    for one in forecasts:
        maxn = one.at_modes[0]
        tuned = least_energy(
            one.board, one.board.stack(one.stack), one.work, one.base, NEARLY_SAME * maxn.time_s
        )
        assert tuned is not None
        savings[one.work.training].append(1 - tuned.energy_j / maxn.energy_j)
    for found in savings.values():
        assert min(found) > 0
        # The study says up to 15 %; the model promises more (docs/roofline.md).
        assert 0.15 < max(found) < 0.4
        assert np.mean(found) > 0.1
