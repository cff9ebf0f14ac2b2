"""What a network asks of the hardware: floating-point operations and bytes, layer by layer.

Counted from the network alone (:func:`governor.roofline.counting.count_work`), never measured.
A multiply and an add are two FLOP; FLOP and bytes are per batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from governor.errors import InputError

Unit = Literal["matmul", "vector"]
"""``matmul``: products that tensor cores take; ``vector``: all else, on CUDA cores."""

PRECISIONS = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
"""Bytes of an element, by precision (TF32 is FP32 in memory)."""


def check_precision(precision: str) -> str:
    """``precision`` itself.

    Raises:
        InputError: it is none of ``PRECISIONS``.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    return precision


def check_batch_size(batch_size: int) -> int:
    """``batch_size`` itself.

    Raises:
        InputError: it is no whole number above 0.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"batch size {batch_size!r} is not a whole number of 1 or more")
    return batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operation, or several that run as one kernel; everything is per batch.

    Attributes:
        name: where it is in the network, e.g. a module path such as ``layer1.0.conv2``.
        operator: what it does, e.g. ``convolution`` or ``convolution+relu`` when fused.
        flop: floating-point operations (integer ones where ``precision`` is ``int8``).
        bytes_read, bytes_written: of activations, which grow with the batch.
        weight_bytes: moved once a batch however large it is: weights and other constants read,
            and in training also their gradients and the optimizer's state, read and written.
        unit: which arithmetic units do nearly all of its FLOP.
        precision: of its arithmetic, a key of ``PRECISIONS``.
        kernels: launches.
        once: its FLOP do not grow with the batch either (an optimizer's update).
    """

    name: str
    operator: str
    flop: float
    bytes_read: float
    bytes_written: float
    weight_bytes: float = 0.0
    unit: Unit = "vector"
    precision: str = "fp32"
    kernels: int = 1
    once: bool = False

    @property
    def bytes(self) -> float:
        """All bytes moved, weights included."""
        return self.bytes_read + self.bytes_written + self.weight_bytes

    @property
    def intensity(self) -> float:
        """FLOP a byte; 0 where nothing is moved."""
        return self.flop / self.bytes if self.bytes else 0.0

    def scaled(self, factor: float) -> Layer:
        """The same layer for a batch ``factor`` times as large."""
        return replace(
            self,
            flop=self.flop * (1.0 if self.once else factor),
            bytes_read=self.bytes_read * factor,
            bytes_written=self.bytes_written * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """An operator that the counter has no rule for.

    Its bytes are counted, from the tensors it reads and writes; of its FLOP only one an output
    element is, so they are a lower bound.

    Attributes:
        count: how often it occurs.
        share: of all bytes that the network moves, an estimate of how much is not known; NaN
            where not even its tensors' shapes are.
    """

    operator: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of one inference or one training step of a batch.

    Attributes:
        name: of the network.
        layers: in order of execution.
        batch_size: items in a batch.
        precision: asked for; quantised files may differ by layer.
        training: forward, backward and the optimizer's step, not inference.
        fused: element-wise work runs inside the kernel that feeds it.
        unknown: operators without a rule.
    """

    name: str
    layers: tuple[Layer, ...]
    batch_size: int
    precision: str
    training: bool = False
    fused: bool = False
    unknown: tuple[Unknown, ...] = ()

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        check_precision(self.precision)

    @cached_property
    def flop(self) -> float:
        """FLOP a batch."""
        return _total(layer.flop for layer in self.layers)

    @cached_property
    def bytes(self) -> float:
        """Bytes moved a batch, weights included."""
        return _total(layer.bytes for layer in self.layers)

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes moved once a batch however large it is."""
        return _total(layer.weight_bytes for layer in self.layers)

    @cached_property
    def kernels(self) -> int:
        """Kernel launches a batch."""
        return sum(layer.kernels for layer in self.layers)

    @property
    def intensity(self) -> float:
        """FLOP a byte; 0 where nothing is moved."""
        return self.flop / self.bytes if self.bytes else 0.0

    def scaled(self, batch_size: int) -> Work:
        """The same work for another batch size.

        Exact where every activation has the batch as a dimension, as in all built-in
        workloads. Another precision has other tensors: count again.

        Raises:
            InputError: ``batch_size`` is no whole number above 0.
        """
        factor = check_batch_size(batch_size) / self.batch_size
        layers = tuple(layer.scaled(factor) for layer in self.layers)
        return replace(self, layers=layers, batch_size=batch_size)


def _total(values: Iterable[float]) -> float:
    return float(sum(values))
