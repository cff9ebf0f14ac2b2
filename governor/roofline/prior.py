"""What is known of the roofline's coefficients before any trial: the board, and the work.

The board's constants and the counted layers predict time and energy at each setting. The
aggregate roofline is fitted to that as if it had been measured, with the error that the
constants' own uncertainty puts on each prediction: what the prediction does not tell stays as
uncertain as it is without it. Where only the board is known, the work could be any of
:data:`TYPICAL`, and their spread is part of the error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np

from governor.roofline.board import Board, Constant
from governor.roofline.board_file import format_board, parse_board
from governor.roofline.fit import WEAK, Observations, Prior, fit, tangent
from governor.roofline.knobs import model_inputs
from governor.roofline.prediction import Clocks, predict
from governor.roofline.work import Layer, Work
from governor.space import FloatArray, Space

DEFAULT_STACK = "pytorch"

# One standard deviation of a constant, relative, by what it rests on.
_ERROR = {"published": 0.05, "derived": 0.25, "assumed": 0.5, "measured": 0.05, "emulated": 0.05}
_COUNTED_BYTES = 0.8
"""Of counted bytes: caches save some, and tiles of products are read again, by a factor."""
_CERTAIN = ("levels_mhz", "cores", "limit_w", "tf32_convolutions")

_MISFIT = np.array([0.03, 0.05])
"""Relative: how far the aggregate roofline lies from the layers' sum, in time and in energy."""

_MOST_SETTINGS = 120
"""Of a large space so many settings tell its shape."""

_TOLD = len(WEAK.mean) - 2
"""All coefficients but the two scales: those are for the trial at all-max to tell."""


def _typical(flop: float, intensity: float, kernels: int) -> Work:
    """Work of ``kernels`` equal products."""
    moved = flop / intensity / kernels
    layer = Layer(
        name="product", operator="convolution", flop=flop / kernels, bytes_read=moved / 2,
        bytes_written=moved / 2, unit="matmul",
    )  # fmt: skip
    return Work(name="typical", layers=(layer,) * kernels, batch_size=1, precision="fp32")


TYPICAL = tuple(
    _typical(flop, intensity, 150) for flop in (1e9, 8e9, 64e9) for intensity in (5.0, 20.0, 60.0)
)
"""From a small network, bound by launches, to a large one: MobileNet to BERT-large, as Pagoda
counts them (arXiv 2509.20189), each at the intensities of LSTM, CNN and transformer."""


def prior_for(
    board: Board, space: Space, work: Work | None = None, stack: str = DEFAULT_STACK
) -> Prior:
    """The prior of the coefficients in ``space``.

    Args:
        board: that the space is of; a clock that is no knob is taken to be at its highest.
        work: of one batch of the smallest size; None: not known.
        stack: the framework, a key of ``board.stacks``.

    Raises:
        InputError: the board knows no such framework.
    """
    board = replace(board, limit_w=math.inf)
    rows = _some_rows(space)
    inputs = model_inputs(space)[rows]
    works = TYPICAL if work is None else (work,)

    def logs(board: Board) -> FloatArray:
        return np.array([_logs(board, stack, one, space, rows) for one in works])

    each = logs(board)
    centre = each.mean(axis=0)
    parts = [(each - centre) / math.sqrt(len(each))]
    shift = np.zeros_like(centre)
    for less, more in _doubts(board, stack):
        pair = np.stack((logs(less), logs(more))).mean(axis=1) - centre
        shift += pair.sum(axis=0) / 2
        parts.append(pair / math.sqrt(2))
    covariance = np.einsum("koi,koj->oij", *[np.concatenate(parts)] * 2)
    covariance = covariance + _MISFIT[:, None, None] ** 2 * np.eye(len(rows))
    mean = fit(Observations(inputs, centre + shift, covariance))
    _, slopes = tangent(mean, inputs)
    told = sum(s.T @ np.linalg.solve(c, s) for s, c in zip(slopes, covariance, strict=True))
    left = np.linalg.inv(told + np.eye(len(mean)))
    sd = np.sqrt(np.diag(left)) * WEAK.sd
    return Prior(
        mean=np.append(mean[:_TOLD], WEAK.mean[_TOLD:]), sd=np.append(sd[:_TOLD], WEAK.sd[_TOLD:])
    )


def _some_rows(space: Space) -> FloatArray:
    """Rows spread over the space, the fastest first."""
    count = min(len(space), _MOST_SETTINGS)
    rows = np.random.default_rng(0).choice(len(space), count, replace=False)
    return np.append(space.fastest, rows[rows != space.fastest])


def _logs(
    board: Board, stack: str, work: Work, space: Space, rows: FloatArray
) -> FloatArray:
    """Log time of a batch and log energy of an item over those of the first row, ``(2, n)``."""
    settings = space.settings[rows]

    def column(name: str, top: float) -> FloatArray:
        if name in space.names:
            return settings[:, space.names.index(name)]
        return np.full(len(rows), top)

    cpu_hz = column("cpu_hz", board.cpu.levels_hz[-1])
    gpu_hz = column("gpu_hz", board.gpu.levels_hz[-1])
    emc_hz = column("emc_hz", board.memory.levels_hz[-1])
    cores = column("cpu_cores", board.cpu.cores)
    batch = column("batch_size", work.batch_size)
    logs = np.empty((2, len(rows)))
    for kind in np.unique(np.stack((cores, batch), axis=1), axis=0):
        at = (cores == kind[0]) & (batch == kind[1])
        clocks = Clocks(cpu_hz=cpu_hz[at], gpu_hz=gpu_hz[at], emc_hz=emc_hz[at], cores=int(kind[0]))
        scaled = work if kind[1] == work.batch_size else work.scaled(int(kind[1]))
        predicted = predict(board, board.stack(stack), scaled, clocks)
        logs[:, at] = np.log(np.stack((predicted.time_s, predicted.energy_j / kind[1])))
    return logs - logs[:, :1]


def _doubts(board: Board, stack: str) -> Iterator[tuple[Board, Board]]:
    """For each uncertain constant, the board with it one standard deviation less, and more."""
    for key, constant in board.constants.items():
        table, _, name = key.rpartition(".")
        if name in _CERTAIN or table.startswith("modes") or constant.status == "published":
            continue
        if table.startswith("stacks") and table != f"stacks.{stack}":
            continue
        error = _COUNTED_BYTES if name == "bandwidth" else _ERROR[constant.status]
        yield _with(board, key, math.exp(-error)), _with(board, key, math.exp(error))


def _with(board: Board, key: str, factor: float) -> Board:
    """The board with one of its constants times a factor; of a voltage curve, its rise."""
    value: Any = board.constants[key].value
    if not isinstance(value, list):
        value = min(factor * value, 1.0) if value <= 1 and key.startswith("stacks") else factor*value
    elif isinstance(value[0], list):
        value = [[hz, 1 + factor * (v - 1)] for hz, v in value]
    else:
        value = [factor * one for one in value]
    constants = {**board.constants, key: replace(board.constants[key], value=value)}
    changed = parse_board(format_board(board.title, constants), board.name, board.name)
    return replace(changed, limit_w=board.limit_w)
