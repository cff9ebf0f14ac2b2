"""The board files of the roofline: what they hold, and what is refused in one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from governor.errors import InputError
from governor.roofline.board import Leakage, Status
from governor.roofline.board_file import format_board, parse_board
from governor.roofline.boards import (
    board_names,
    board_text,
    load_board,
)
from governor.roofline.prediction import Clocks, standing_power

BOARDS = board_names()


@pytest.mark.parametrize("name", BOARDS)
def test_every_constant_says_where_it_is_from_and_what_it_rests_on(name: str) -> None:
    constants = load_board(name).constants
    assert len(constants) > 50
    for constant in constants.values():
        assert constant.source
        assert constant.status in get_args(Status)


@pytest.mark.parametrize("name", BOARDS)
def test_no_stock_board_claims_that_something_was_measured(name: str) -> None:
    assert {one.status for one in load_board(name).constants.values()}.isdisjoint({"measured"})


@pytest.mark.parametrize("name", BOARDS)
def test_the_first_mode_of_a_board_is_the_least_limited(name: str) -> None:
    first, *others = load_board(name).modes
    for mode in others:
        assert mode.gpu_hz <= first.gpu_hz
        assert mode.emc_hz <= first.emc_hz


def test_units_of_data_sheets_become_si_units() -> None:
    board = load_board("agx-orin")
    assert board.gpu.levels_hz[-1] == 1300.5e6
    assert board.gpu.tensor_flop_per_clock["tf32"] * board.gpu.levels_hz[-1] == pytest.approx(
        21.3e12, rel=0.01
    )
    assert 0.8 * 204.8e9 < board.memory.bytes_per_s[-1] < 204.8e9
    assert 1e-13 < board.energy.j_per_flop["fp16"] < 1e-11


@pytest.mark.parametrize("name", BOARDS)
def test_voltage_stays_at_its_floor_and_never_falls_with_the_clock(name: str) -> None:
    gpu = load_board(name).gpu
    squared = gpu.voltage.squared(np.array(gpu.levels_hz))
    assert np.all(np.diff(squared) >= 0)
    assert np.all(squared[np.array(gpu.levels_hz) <= gpu.voltage.floor_hz] == 1)
    assert squared[-1] > 1


def test_a_unit_without_a_precision_runs_it_in_the_next_wider_one() -> None:
    nano, orin = load_board("nano").gpu, load_board("orin-nano").gpu
    assert nano.flop_per_clock("int8", "tensor") == nano.flop_per_clock("fp16", "cuda")
    assert nano.flop_per_clock("tf32", "tensor") == nano.flop_per_clock("fp32", "cuda")
    assert orin.flop_per_clock("int8", "tensor") > orin.flop_per_clock("fp16", "tensor")


def test_a_board_file_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(board_text("nano").replace("Jetson Nano", "My board"))
    board = load_board(path)
    assert (board.name, board.title) == ("mine", "My board")
    assert asdict(board.gpu) == asdict(load_board("nano").gpu)


def test_a_measured_constant_keeps_its_interval() -> None:
    text = board_text("nano").replace(
        'bytes_per_clock = { value = 24, status = "assumed",',
        'bytes_per_clock = { value = 24, low = 23, high = 25.5, status = "measured",',
    )
    constant = parse_board(text, "nano", "nano.toml").constants["gpu.bytes_per_clock"]
    assert (constant.status, constant.low, constant.high) == ("measured", 23, 25.5)


def test_an_interval_may_have_no_end_and_of_a_list_it_is_a_list() -> None:
    board = load_board("nano")
    key = "memory.gb_per_s"
    values = board.constants[key].value
    low, high = [each / 2 for each in values], [each * 2 for each in values[:-1]] + [np.inf]
    measured = replace(board.constants[key], low=low, high=high)
    text = format_board(board.title, {**board.constants, key: measured})
    assert parse_board(text, "nano", "nano.toml").constants[key] == measured
    wrong = format_board(board.title, {**board.constants, key: replace(measured, low=low[1:])})
    with pytest.raises(InputError, match="low or high that is not of the form of its value"):
        parse_board(wrong, "nano", "nano.toml")


def test_leakage_is_optional_and_grows_with_voltage_and_temperature() -> None:
    text = board_text("nano")
    board = parse_board(text, "nano", "nano.toml")
    assert board.leakage == Leakage()
    rests = 'status = "measured", source = "a test" }'
    leaky = parse_board(
        f"{text}\n[leakage]\ncpu_w = {{ value = 0.1, {rests}\ngpu_w = {{ value = 0.2, {rests}\n"
        f"reference_c = {{ value = 50, {rests}\nper_degree = {{ value = 0.02, {rests}\n",
        "nano",
        "nano.toml",
    )
    clocks = Clocks.at(board.mode("MAXN"))
    v2 = (board.cpu.voltage.squared(clocks.cpu_hz), board.gpu.voltage.squared(clocks.gpu_hz))
    leaks_w = standing_power(leaky, clocks) - standing_power(board, clocks)
    assert leaks_w == pytest.approx(0.1 * v2[0] + 0.2 * v2[1])
    warmer_w = standing_power(leaky, clocks, 70) - standing_power(board, clocks, 70)
    assert warmer_w == pytest.approx(np.exp(0.4) * leaks_w)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_written_to_a_file_is_read_as_it_was(name: str) -> None:
    board = load_board(name)
    text = format_board(board.title, board.constants)
    assert asdict(parse_board(text, name, "again.toml")) == asdict(board)


def test_a_mode_is_found_in_any_case_and_an_unknown_one_names_those_there_are() -> None:
    board = load_board("nano")
    assert board.mode("maxn").cores == 4
    with pytest.raises(InputError, match="no power mode 'turbo'; choose one of MAXN, 5W"):
        board.mode("turbo")


def test_an_unknown_board_names_those_there_are() -> None:
    says = r"unknown board 'orin' \(did you mean 'orin-nx'\?\); choose one of nano, tx2"
    with pytest.raises(InputError, match=says):
        load_board("orin")


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the board file .*none.toml"):
        load_board(tmp_path / "none.toml")


ASSUMED = 'status = "assumed", source = "no figure found"'


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("busy_w_per_ghz = { value = 0.5,", "busy_w_per_ghz = { value = -1,", "more than 0"),
        ("busy_w_per_ghz = { value = 0.5,", 'busy_w_per_ghz = { value = "x",', "not a number"),
        ("busy_w_per_ghz = { value = 0.5,", "busy_w_per_ghz = { value = nan,", "not a number"),
        ("busy_w_per_ghz", "buzzy_w_per_ghz", "cpu.busy_w_per_ghz is missing"),
        (f"0.5, {ASSUMED}", '0.5, source = "x"', "must be written as { value"),
        (f"0.5, {ASSUMED}", '0.5, status = "guessed", source = "x"', "published, derived"),
        (f"{{ value = 0.5, {ASSUMED} }}", "0.5", "must be written as { value"),
        ("[energy]", f"[energy]\nextra = {{ value = 1, {ASSUMED} }}", "energy.extra is no const"),
        ("  204, 408,", "  408, 204,", "memory.levels_mhz must ascend"),
        ("  204, 408,", "  204,", "has 7 values for 6 levels"),
        ("cores = { value = 4", "cores = { value = 3.5", "not a whole number"),
        ("conv = { value = 0.5", "conv = { value = 1.5", "and at most 1"),
        ("gpu_mhz = { value = 614.4", "gpu_mhz = { value = 640", "none of the clock's levels"),
        ("  [537.6, 1],", "  [537.6, 0.9],", "begin where the floor ends, with 1"),
        ("fp16 = { value = 7", "fp12 = { value = 7", "pj_per_flop.fp12 is no precision"),
        ("[cpu]", "[cpu", "is no TOML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(line: str, instead: str, said: str) -> None:
    text = board_text("nano")
    assert line in text
    with pytest.raises(InputError) as error:
        parse_board(text.replace(line, instead, 1), "mine", "mine.toml")
    assert str(error.value).startswith("mine.toml")
    assert said in str(error.value)
