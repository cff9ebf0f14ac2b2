"""All that is predicted of one network on one board: its modes, its tuned clocks, its rooflines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from governor.errors import InputError
from governor.roofline.balance import Roof, race_until_hz, roof
from governor.roofline.board import Board, Mode
from governor.roofline.prediction import Clocks, kind_of, layer_limits, predict
from governor.roofline.tuning import Setting, at_caps, least_energy
from governor.roofline.work import Layer, Work, check_precision

MOST = 1e21
"""FLOP, or bytes, of an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the time goes to at the first mode's caps, as shares of it.

    Attributes:
        compute, memory: layers that arithmetic or memory limits.
        launch: what is left: waiting for the CPU's launches, and the start of each kernel.
    """

    compute: float
    memory: float
    launch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is predicted, per batch.

    Attributes:
        stack: the framework that runs it.
        modes: that were asked for, the least limited first.
        at_modes: each at its caps.
        least: of least energy within the first mode.
        within_slo: the same among those that keep the SLO; None where none does or none is set.
        roofs: of the kind of layer with most FLOP, at each mode's caps.
        main_layer: the layer with the most FLOP.
        race_gated_hz, race_idling_hz: see :func:`governor.roofline.balance.race_until_hz`.
    """

    board: Board
    stack: str
    work: Work
    modes: tuple[Mode, ...]
    at_modes: tuple[Setting, ...]
    least: Setting
    slo_s: float | None
    within_slo: Setting | None
    roofs: tuple[Roof, ...]
    main_layer: Layer
    limits: Limits
    race_gated_hz: float
    race_idling_hz: float

    @property
    def base(self) -> Mode:
        """The mode whose cores and power gating the tuned clocks keep."""
        return self.modes[0]

    @property
    def main_kind(self) -> str:
        """What the rooflines are of, for people."""
        names = {"conv": "convolutions", "gemm": "matrix products", "vector": "vector work"}
        return names[kind_of(self.main_layer)]


def forecast(
    board: Board, stack: str, work: Work, modes: Sequence[Mode], slo_s: float | None = None
) -> Forecast:
    """Predict all of it.

    Args:
        stack: the framework, one of the board's.
        modes: at least one; the tuned clocks are looked for within the first.
        slo_s: a batch may take no longer.

    Raises:
        InputError: the board does not know the framework, or the network does nothing.
    """
    framework = board.stack(stack)
    if not work.layers or not work.flop:
        raise InputError(f"{work.name} does no arithmetic, so there is nothing to predict")
    least = least_energy(board, framework, work, modes[0])
    if least is None:
        raise InputError(
            f"{board.name} may draw {board.limit_w:g} W, less than it takes standing; "
            "raise limit_w in its file"
        )
    main = _main_layer(work)
    return Forecast(
        board=board,
        stack=stack,
        work=work,
        modes=tuple(modes),
        at_modes=tuple(at_caps(board, framework, work, mode) for mode in modes),
        least=least,
        slo_s=slo_s,
        within_slo=None if slo_s is None else least_energy(board, framework, work, modes[0], slo_s),
        roofs=tuple(roof(board, framework, main, mode) for mode in modes),
        main_layer=main,
        limits=_limits(board, stack, work, modes[0]),
        race_gated_hz=race_until_hz(board, framework, work, modes[0], gated=True),
        race_idling_hz=race_until_hz(board, framework, work, modes[0], gated=False),
    )


def given_work(flop: float, moved: float, precision: str, *, training: bool = False) -> Work:
    """One item's work given by its counts alone: a single kernel of matrix products.

    Raises:
        InputError: a count that is not positive, or an unknown precision.
    """
    for name, value in (("--work", flop), ("--bytes", moved)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive and finite, got {value:g}")
        if value > MOST:
            raise InputError(f"{name} {value:g} is more than any machine does in hours; lower it")
    layer = Layer(
        name="given",
        operator="product",
        flop=flop,
        bytes_read=moved,
        bytes_written=0.0,
        unit="matmul",
        precision=check_precision(precision),
    )
    return Work(
        name="given counts", layers=(layer,), batch_size=1, precision=precision, training=training
    )


def _main_layer(work: Work) -> Layer:
    """The largest layer of the kind and precision that does most of the FLOP."""
    flop: defaultdict[tuple[str, str], float] = defaultdict(float)
    for layer in work.layers:
        flop[kind_of(layer), layer.precision] += layer.flop
    most = max(flop, key=lambda key: flop[key])
    alike = (layer for layer in work.layers if (kind_of(layer), layer.precision) == most)
    return max(alike, key=lambda layer: layer.flop)


def _limits(board: Board, stack: str, work: Work, mode: Mode) -> Limits:
    clocks = Clocks.at(mode)
    time_s = float(predict(board, board.stack(stack), work, clocks).time_s[0])
    computing, moving = layer_limits(board, board.stack(stack), work, mode)
    compute_s = float(computing[computing >= moving].sum())
    memory_s = float(moving[moving > computing].sum())
    share = min(1.0, time_s / max(compute_s + memory_s, 1e-30))
    compute, memory = share * compute_s / time_s, share * memory_s / time_s
    return Limits(compute=compute, memory=memory, launch=max(0.0, 1 - compute - memory))
