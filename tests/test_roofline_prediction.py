"""The roofline of a network layer by layer: what must hold whatever the constants are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.roofline.balance import race_until_hz, roof
from governor.roofline.board import Board, Mode
from governor.roofline.boards import board_names, load_board
from governor.roofline.prediction import (
    Clocks,
    bandwidth,
    idle_power,
    layer_seconds,
    predict,
    standing_power,
)
from governor.roofline.tuning import at_caps, least_energy
from governor.roofline.work import Layer, Work

STACK = "tensorrt"
JETSONS = [name for name in board_names() if name != "rtx-3080"]


def layer(flop: float, moved: float, **fields: object) -> Layer:
    named = {"name": "one", "operator": "convolution", "unit": "matmul", "precision": "fp16"}
    return Layer(**{**named, "flop": flop, "bytes_read": moved, "bytes_written": 0.0, **fields})  # type: ignore[arg-type]


def network(*layers: Layer) -> Work:
    return Work(name="net", layers=layers, batch_size=1, precision="fp16")


layers = st.builds(
    layer,
    st.floats(1e6, 1e11),
    st.floats(1e5, 1e9),
    unit=st.sampled_from(["matmul", "vector"]),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    kernels=st.integers(1, 5),
)
networks = st.lists(layers, min_size=1, max_size=6).map(lambda found: network(*found))
boards = st.sampled_from(board_names()).map(load_board)

BUSY = network(layer(2e10, 2e8))


def row(board: Board, mode: Mode, **levels_hz: tuple[float, ...]) -> Clocks:
    """All clocks at the caps but the one given, which runs over its levels."""
    ((knob, levels),) = levels_hz.items()
    caps = {
        name: np.full(len(levels), getattr(mode, name)) for name in ("cpu_hz", "gpu_hz", "emc_hz")
    }
    return Clocks(**{**caps, knob: np.array(levels)}, cores=mode.cores, gpu_share=mode.gpu_share)


def sweeps(board: Board) -> list[Clocks]:
    mode = board.modes[0]
    return [
        row(board, mode, cpu_hz=board.cpu.levels_hz),
        row(board, mode, gpu_hz=board.gpu.levels_hz),
        row(board, mode, emc_hz=board.memory.levels_hz),
    ]


@given(boards, networks)
def test_time_never_grows_with_a_clock_while_power_allows(board: Board, work: Work) -> None:
    unlimited = replace(board, limit_w=1e9)
    for clocks in sweeps(board):
        time_s = predict(unlimited, board.stack(STACK), work, clocks).time_s
        assert np.all(np.diff(time_s) <= 1e-12 * time_s[:-1])


@given(boards, networks)
def test_power_never_exceeds_the_limit_of_the_module(board: Board, work: Work) -> None:
    for clocks in sweeps(board):
        found = predict(board, board.stack(STACK), work, clocks)
        assert np.all(found.power_w <= board.limit_w * (1 + 1e-9))


@given(boards, networks)
def test_energy_is_finite_and_more_than_what_standing_power_takes(board: Board, work: Work) -> None:
    clocks = Clocks.within(board.modes[0], board)
    found = predict(board, board.stack(STACK), work, clocks)
    assert np.all(found.energy_j > standing_power(board, clocks) * found.time_s)


def test_a_lower_limit_slows_down_and_holds_the_power_there() -> None:
    board = load_board("agx-orin")
    clocks = Clocks.at(board.mode("MAXN"))
    free = predict(replace(board, limit_w=1e9), board.stack(STACK), BUSY, clocks)
    limit = 0.8 * free.power_w[0]
    held = predict(replace(board, limit_w=limit), board.stack(STACK), BUSY, clocks)
    assert held.capped[0]
    assert held.power_w[0] == pytest.approx(limit)
    assert held.time_s[0] > free.time_s[0]


def test_a_limit_below_standing_power_allows_no_work() -> None:
    board = load_board("agx-orin")
    clocks = Clocks.at(board.mode("MAXN"))
    none = replace(board, limit_w=0.5 * standing_power(board, clocks)[0])
    assert np.isinf(predict(none, board.stack(STACK), BUSY, clocks).time_s[0])


@pytest.mark.parametrize("name", JETSONS)
def test_energy_over_the_gpu_clock_falls_and_then_rises_around_one_minimum(name: str) -> None:
    board = load_board(name)
    fine = tuple(np.linspace(board.gpu.levels_hz[0], board.gpu.levels_hz[-1], 200))
    clocks = row(board, board.modes[0], gpu_hz=fine)
    energy_j = predict(replace(board, limit_w=1e9), board.stack(STACK), BUSY, clocks).energy_j
    turns = np.flatnonzero(np.diff(np.sign(np.diff(energy_j))))
    assert len(turns) <= 1
    if len(turns):
        assert np.diff(energy_j)[0] < 0 < np.diff(energy_j)[-1]


@pytest.mark.parametrize("name", JETSONS)
def test_below_the_voltage_floor_a_slower_gpu_never_saves_energy(name: str) -> None:
    board = load_board(name)
    floor = board.gpu.voltage.floor_hz
    clocks = row(board, board.modes[0], gpu_hz=tuple(np.linspace(0.3 * floor, floor, 50)))
    energy_j = predict(board, board.stack(STACK), BUSY, clocks).energy_j
    assert np.all(np.diff(energy_j) < 0)


def test_memory_bound_work_speeds_up_with_the_gpu_clock_below_the_crossover_only() -> None:
    board = load_board("orin-nano")
    mode = board.modes[0]
    crossover = np.interp(2133e6, board.memory.levels_hz, board.memory.bytes_per_s)
    crossover /= board.gpu.bytes_per_clock
    below, above = 0.8 * crossover, 1.2 * crossover
    emc = np.full(4, 2133e6)
    gpu = np.array([0.9 * below, below, above, 1.1 * above])
    rates = bandwidth(board, gpu, emc)
    assert rates[1] / rates[0] == pytest.approx(1 / 0.9)
    assert rates[3] == rates[2]
    assert mode.emc_hz > 2133e6


def test_launches_bound_small_networks_so_only_the_cpu_clock_helps() -> None:
    board = load_board("agx-orin")
    work = network(*[layer(1e6, 1e4)] * 60)
    stack, mode = board.stack("pytorch"), board.modes[0]
    by_gpu = predict(board, stack, work, row(board, mode, gpu_hz=(0.8e9, 1.3005e9))).time_s
    by_cpu = predict(board, stack, work, row(board, mode, cpu_hz=(1.1e9, 2.2e9))).time_s
    assert by_gpu[0] / by_gpu[1] < 1.02
    assert by_cpu[0] / by_cpu[1] == pytest.approx(2, rel=0.02)


def test_layers_are_added_up_once_for_each_gpu_and_memory_clock() -> None:
    board = load_board("nano")
    clocks = Clocks.within(board.modes[0], board)
    assert len(clocks) == len(board.cpu.levels_hz) * len(board.gpu.levels_hz) * len(
        board.memory.levels_hz
    )
    stack = board.stack(STACK)
    whole = predict(board, stack, BUSY, clocks).gpu_s
    one_by_one = layer_seconds(board, stack, BUSY, clocks.gpu_hz, clocks.emc_hz).sum(axis=1)
    np.testing.assert_allclose(whole, one_by_one)


def test_half_of_a_gated_gpu_has_half_of_the_peak() -> None:
    board = load_board("agx-orin")
    mode = board.mode("MODE_30W")
    assert mode.gpu_share == 0.5
    stack = board.stack("cuda")
    one = layer(1e12, 1e3)
    whole = layer_seconds(board, stack, network(one), np.array([612e6]), np.array([3199e6]))
    half = layer_seconds(board, stack, network(one), np.array([612e6]), np.array([3199e6]), 0.5)
    assert half[0, 0] / whole[0, 0] == pytest.approx(2, rel=0.01)


def test_pytorch_runs_fp32_convolutions_in_tf32_but_not_its_matrix_products() -> None:
    board = load_board("agx-orin")
    conv = layer(1e12, 1e3, precision="fp32")
    gemm = layer(1e12, 1e3, precision="fp32", operator="addmm")
    stack = board.stack("pytorch")
    assert roof(board, stack, conv, board.modes[0]).precision == "tf32"
    assert roof(board, stack, gemm, board.modes[0]).precision == "fp32"
    assert roof(board, board.stack("tensorrt"), conv, board.modes[0]).precision == "fp32"


@given(boards, layers)
def test_the_rooflines_bend_at_the_balance_points(board: Board, one: Layer) -> None:
    found = roof(replace(board, limit_w=1e9), board.stack(STACK), one, board.modes[0])
    around = np.array([0.5, 1.0, 2.0]) * found.ridge
    rates = found.flop_rate(around)
    assert rates[0] == pytest.approx(0.5 * found.flop_per_s)
    assert rates[2] == pytest.approx(found.flop_per_s)
    best = found.flop_per_joule(np.array([1e15]))[0]
    assert found.flop_per_joule(np.array([found.half_efficiency]))[0] == pytest.approx(best / 2)


@given(st.sampled_from(JETSONS).map(load_board), networks)
def test_idling_at_a_price_never_lowers_the_clock_up_to_which_racing_wins(
    board: Board, work: Work
) -> None:
    mode, stack = board.modes[0], board.stack(STACK)
    unlimited = replace(board, limit_w=1e9)
    gated = race_until_hz(unlimited, stack, work, mode, gated=True)
    idling = race_until_hz(unlimited, stack, work, mode, gated=False)
    assert idle_power(board, mode.cores) > 0
    assert idling <= gated


@given(boards, networks)
def test_the_least_energy_is_no_more_than_that_of_any_mode_of_the_same_cores(
    board: Board, work: Work
) -> None:
    stack, top = board.stack(STACK), board.modes[0]
    least = least_energy(board, stack, work, top)
    assert least is not None
    assert least.energy_j <= at_caps(board, stack, work, top).energy_j


@given(networks, st.floats(1.0, 3.0))
def test_the_setting_within_an_slo_keeps_it_and_costs_no_less(work: Work, loose: float) -> None:
    board = load_board("agx-orin")
    stack, mode = board.stack(STACK), board.modes[0]
    slo_s = loose * at_caps(board, stack, work, mode).time_s
    within, free = (
        least_energy(board, stack, work, mode, slo_s),
        least_energy(board, stack, work, mode),
    )
    assert within is not None
    assert free is not None
    assert within.time_s <= slo_s
    assert within.energy_j >= free.energy_j


def test_an_slo_that_no_setting_keeps_has_no_setting() -> None:
    board = load_board("nano")
    assert least_energy(board, board.stack(STACK), BUSY, board.modes[0], 1e-6) is None
