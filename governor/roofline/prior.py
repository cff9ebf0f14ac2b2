"""What is known of the roofline's coefficients before any trial: from the board, and the work.

The board's constants and the counted layers predict time and energy at each setting, and so
does the board with each of its uncertain constants a standard deviation less, and more. The
aggregate roofline is fitted to the mean of these predictions as if it had been measured, with
their spread as its error: what they do not tell stays as uncertain as it is without them. Where
only the board is known, the work could be any of :data:`TYPICAL`, which spreads them further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from governor.roofline.board import KINDS, Board, Constant
from governor.roofline.board_file import with_constants
from governor.roofline.boards import load_board
from governor.roofline.counting import count_work
from governor.roofline.fit import WEAK, Observations, Prior, fit, tangent
from governor.roofline.knobs import model_inputs
from governor.roofline.prediction import Clocks, predict
from governor.roofline.work import Layer, Work
from governor.space import FloatArray, IntArray, Space

EAGER = "pytorch"
_STACKS = {".onnx": "onnxruntime", ".json": "tensorrt"}

# One standard deviation of a constant, relative, by what it rests on; a published one is taken
# as it is. For derived and assumed ones: half of what a factor of two either way would be.
_ERROR = {"published": 0.0, "measured": 0.05, "emulated": 0.05, "derived": 0.25, "assumed": 0.5}
_TRAFFIC = ("reread_per_kflop", "conv_bandwidth", "gemm_bandwidth", "vector_bandwidth")
_TRAFFIC_ERROR = 0.8
"""Of the bytes that are really moved: BERT-large on AGX Orin takes 4 times as long at a fifth of
the memory's clock, not the 1.8 times of the board's constants (Dream-Lab's measurements)."""
_CERTAIN = ("levels_mhz", "cores", "limit_w", "tf32_convolutions", "reference_c", "per_degree")

_MISFIT = np.array([0.03, 0.05])
"""Relative: how far the aggregate roofline lies from the layers' sum, in time and in energy."""

_MOST_SETTINGS = 60
"""So many settings of a large space tell its shape."""

_SCALES = 2
"""The last coefficients are the scales of time and energy: those the trial at all-max tells."""


def _typical(flop: float, intensity: float) -> Work:
    moved = flop / intensity
    layer = Layer(
        name="products",
        operator="convolution",
        flop=flop,
        bytes_read=moved / 2,
        bytes_written=moved / 2,
        unit="matmul",
        kernels=150,
    )
    return Work(name="typical", layers=(layer,), batch_size=1, precision="fp32")


TYPICAL = tuple(_typical(flop, each) for flop in (1e9, 8e9, 64e9) for each in (5.0, 20.0, 60.0))
"""From a small network, bound by launches, to a large one: MobileNetV3 to BERT-large, at the
FLOP a byte of LSTM, CNN and transformer (the ranges of Pagoda's counts, arXiv 2509.20189)."""


def seeding(model: Work | str | Path | None, board: str | Path) -> Callable[[Space], Prior]:
    """What gives the prior for a space.

    Args:
        model: what one inference does, or the name or file of a model that :func:`count_work`
            takes; None: not known. Work that is fused runs as a compiler runs it, other work,
            and a PyTorch module, in PyTorch's eager mode.
        board: a stock board's name, or the path of a board file.

    Raises:
        InputError: no such board or model.
        MissingExtraError: the model cannot be counted without an optional package.
    """
    loaded = load_board(board)
    if isinstance(model, Work):
        work, stack = model, "tensorrt" if model.fused else EAGER
    else:
        work, stack = None if model is None else counted(model), _stack_of(model or "")

    @lru_cache(maxsize=4)
    def prior_in(space: Space) -> Prior:
        return prior_for(loaded, space, work, stack)

    return prior_in


@lru_cache(maxsize=4)
def counted(model: str | Path) -> Work:
    """The work of a model as its framework runs it, counted once however often it is asked for."""
    return count_work(model, fused=_stack_of(model) != EAGER)


def _stack_of(model: str | Path) -> str:
    return _STACKS.get(Path(model).suffix, EAGER)


def prior_for(board: Board, space: Space, work: Work | None = None, stack: str = EAGER) -> Prior:
    """The prior of the coefficients in ``space``.

    Args:
        board: whose settings these are; a clock that is no knob is taken to be at its highest.
        work: of one batch, where the batch size is no knob; None: not known.
        stack: the framework, a key of ``board.stacks``.

    Raises:
        InputError: nothing is known of that framework on this board.
    """
    board.stack(stack)
    # Where the module's limit binds is too uncertain to build on, and no roofline has it.
    board = replace(board, limit_w=math.inf)
    works = TYPICAL if work is None else (work,)
    rows = _some_rows(space)

    def logs(board: Board) -> FloatArray:
        return np.stack([_logs(board, stack, one, space, rows) for one in works])

    each = logs(board)
    centre = each.mean(axis=0)
    spread = [(each - centre) / math.sqrt(len(each))]
    shift = np.zeros_like(centre)
    for less, more in _doubts(board, stack):
        pair = np.stack((logs(less), logs(more))).mean(axis=1) - centre
        shift += pair.mean(axis=0)
        spread.append(pair / math.sqrt(2))
    moves = np.concatenate(spread)
    covariance = np.einsum("koi,koj->oij", moves, moves)
    covariance += np.square(_MISFIT)[:, None, None] * np.eye(len(rows))
    return _posterior(model_inputs(space)[rows], centre + shift, covariance)


def _posterior(inputs: FloatArray, logs: FloatArray, covariance: FloatArray) -> Prior:
    """The weak prior, once it has seen these predictions; shapes as in ``Observations``."""
    mean = fit(Observations(inputs, logs, covariance))
    _, slopes = tangent(mean, inputs)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), slopes).reshape(-1, len(mean))
    told: FloatArray = whitened.T @ whitened + np.eye(len(mean))
    sd = np.sqrt(np.diagonal(np.linalg.inv(told))) * WEAK.sd
    mean[-_SCALES:], sd[-_SCALES:] = WEAK.mean[-_SCALES:], WEAK.sd[-_SCALES:]
    return Prior(mean, sd)


def _some_rows(space: Space) -> IntArray:
    """Rows all over the space, the fastest first."""
    count = min(len(space), _MOST_SETTINGS)
    rows = np.random.default_rng(0).choice(len(space), count, replace=False)
    return np.append(space.fastest, rows[rows != space.fastest]).astype(np.intp)


def _logs(board: Board, stack: str, work: Work, space: Space, rows: IntArray) -> FloatArray:
    """Log time of a batch and log energy of an item over the first row's, shape ``(2, n)``."""

    def column(name: str, otherwise: float) -> FloatArray:
        if name in space.names:
            return space.settings[rows, space.names.index(name)]
        return np.full(len(rows), otherwise)

    cpu_hz = column("cpu_hz", board.cpu.levels_hz[-1])
    gpu_hz = column("gpu_hz", board.gpu.levels_hz[-1])
    emc_hz = column("emc_hz", board.memory.levels_hz[-1])
    cores = column("cpu_cores", board.cpu.cores)
    batch = column("batch_size", work.batch_size)
    logs = np.empty((2, len(rows)))
    for online, items in {*zip(cores.tolist(), batch.tolist(), strict=True)}:
        at = (cores == online) & (batch == items)
        clocks = Clocks(cpu_hz=cpu_hz[at], gpu_hz=gpu_hz[at], emc_hz=emc_hz[at], cores=int(online))
        scaled = work if items == work.batch_size else work.scaled(int(items))
        predicted = predict(board, board.stack(stack), scaled, clocks)
        logs[:, at] = np.log((predicted.time_s, predicted.energy_j / items))
    return logs - logs[:, :1]


def _doubts(board: Board, stack: str) -> Iterator[tuple[Board, Board]]:
    """For each uncertain constant, the board with it one standard deviation less, and more."""
    for key, constant in board.constants.items():
        table, _, name = key.rpartition(".")
        foreign = table.startswith("stacks.") and table != f"stacks.{stack}"
        if foreign or table.startswith("modes.") or name in _CERTAIN:
            continue
        error = _TRAFFIC_ERROR if name in _TRAFFIC else _error(constant)
        if error:
            yield _with(board, key, math.exp(-error)), _with(board, key, math.exp(error))


def _error(constant: Constant) -> float:
    """Relative; of one that was measured within a wide interval, a third of half of that."""
    value, low, high = constant.value, constant.low, constant.high
    error = _ERROR[constant.status]
    if isinstance(value, list) or not value or low is None or high is None:
        return error
    return max(error, min((high - low) / 2 / value / 3, _ERROR["assumed"]))


def _with(board: Board, key: str, factor: float) -> Board:
    """The board with one of its constants times a factor; of a voltage curve, its rise."""
    value: Any = board.constants[key].value
    if not isinstance(value, list):
        share = key.startswith("stacks.") and key.rpartition(".")[2] in KINDS
        value = min(factor * value, 1.0) if share else factor * value
    elif isinstance(value[0], list):
        value = [[mhz, 1 + factor * (v - 1)] for mhz, v in cast("list[list[float]]", value)]
    else:
        value = [factor * one for one in cast("list[float]", value)]
    return replace(with_constants(board, {key: value}), limit_w=board.limit_w)
