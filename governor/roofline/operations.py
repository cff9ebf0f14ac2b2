"""From a network's operations, in order, to the layers that a device runs.

Every counter, whatever it reads, describes a network as operations on tensors; here they become
:class:`governor.roofline.work.Layer`. Unfused, each operation is a kernel that reads all of its
inputs and writes its output. Fused, as a compiler such as TensorRT does it:

* what depends on the weights alone is computed beforehand;
* an element-wise operation runs inside the kernel that makes its input, and a tensor that is
  only used within a kernel is not moved at all;
* a reduction along rows (softmax, layer norm) shares a kernel with its element-wise neighbours,
  but not with a product;
* concatenation and splitting are a matter of where the neighbours write and read.

Weights are read once a batch, however often they are used in it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from governor.roofline.work import Layer, Unit, Unknown

Role = Literal["activation", "weight", "constant"]
"""``weight``: moved once a batch (also gradients and optimizer state); ``constant``: made of
weights alone, so it need not be computed again."""

Fusion = Literal["none", "elements", "rows", "layout"]
"""``none``: a kernel of its own that others may join; ``layout``: concatenation, splitting."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What an operation reads or writes.

    Attributes:
        key: equal for the same values in the same place.
        bytes: moved.
        elements: moved.
        part: tells apart different parts of one tensor.
    """

    key: Hashable
    bytes: float
    elements: float
    role: Role = "activation"
    part: Hashable = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a network on one batch.

    Attributes:
        writes: the result first; further outputs only count when something reads them.
        known: whether there was a rule to count its FLOP by.
        sized: whether the shapes of all its tensors are known.
    """

    name: str
    operator: str
    flop: float
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    unit: Unit = "vector"
    precision: str = "fp32"
    fusion: Fusion = "none"
    known: bool = True
    sized: bool = True

    @property
    def foldable(self) -> bool:
        """It depends on the weights alone."""
        return all(tensor.role == "constant" for tensor in self.writes)


@dataclass(slots=True)
class _Kernel:
    """Operations that run as one, in order; ``start`` is the first one's place."""

    start: int
    operations: list[Operation] = field(default_factory=list["Operation"])

    @property
    def head(self) -> Operation:
        return self.operations[0]


def to_layers(
    operations: Sequence[Operation], results: Iterable[Hashable] = (), fused: bool = False
) -> tuple[Layer, ...]:
    """The layers that these operations make.

    Args:
        results: keys of what leaves the network.
        fused: see the module's text.
    """
    kept = set(results)
    if fused:
        kernels, elided = _fuse(operations)
    else:
        kernels, elided = [_Kernel(i, [op]) for i, op in enumerate(operations)], []
    for operation in elided:
        kept.update(tensor.key for tensor in operation.reads)
    readers: dict[Hashable, set[int]] = {}
    for number, kernel in enumerate(kernels):
        for operation in kernel.operations:
            for tensor in operation.reads:
                readers.setdefault(tensor.key, set()).add(number)
    weights_read: set[Tensor] = set()
    layers = [
        _layer(kernel, number, readers, kept, weights_read) for number, kernel in enumerate(kernels)
    ]
    return tuple(layer for layer in layers if layer.bytes or layer.flop)


def _layer(
    kernel: _Kernel,
    number: int,
    readers: dict[Hashable, set[int]],
    kept: set[Hashable],
    weights_read: set[Tensor],
) -> Layer:
    made: set[Hashable] = set()
    read: set[Tensor] = set()
    written: list[Tensor] = []
    for operation in kernel.operations:
        read.update(tensor for tensor in operation.reads if tensor.key not in made)
        for place, tensor in enumerate(operation.writes):
            made.add(tensor.key)
            users = readers.get(tensor.key, set[int]())
            inside = users == {number} and tensor.key not in kept and len(kernel.operations) > 1
            unused = not users and place > 0 and tensor.key not in kept
            if not inside and not unused:
                written.append(tensor)
    weights = {tensor for tensor in read if tensor.role != "activation"}
    weight_bytes = sum(tensor.bytes for tensor in weights - weights_read)
    weights_read |= weights
    weight_bytes += sum(tensor.bytes for tensor in written if tensor.role != "activation")
    largest = max(kernel.operations, key=lambda operation: operation.flop)
    every = [t for operation in kernel.operations for t in (*operation.reads, *operation.writes)]
    return Layer(
        name=kernel.head.name,
        operator="+".join(dict.fromkeys(operation.operator for operation in kernel.operations)),
        flop=sum(operation.flop for operation in kernel.operations),
        bytes_read=sum(tensor.bytes for tensor in read if tensor.role == "activation"),
        bytes_written=sum(tensor.bytes for tensor in written if tensor.role == "activation"),
        weight_bytes=weight_bytes,
        unit=largest.unit,
        precision=largest.precision,
        once=all(tensor.role != "activation" for tensor in every),
    )


def _fuse(operations: Sequence[Operation]) -> tuple[list[_Kernel], list[Operation]]:
    """The kernels, and the operations that vanish into where their neighbours read and write."""
    kernels: list[_Kernel] = []
    elided: list[Operation] = []
    made_by: dict[Hashable, _Kernel | None] = {}
    made_at: dict[Hashable, int] = {}
    for place, operation in enumerate(operations):
        if operation.foldable:
            continue
        if operation.fusion == "layout" and all(t.key in made_by for t in operation.reads):
            kernel = None
            elided.append(operation)
        else:
            kernel = _host(operation, made_by, made_at)
            if kernel is None:
                kernel = _Kernel(place)
                kernels.append(kernel)
            kernel.operations.append(operation)
        for tensor in operation.writes:
            made_by[tensor.key], made_at[tensor.key] = kernel, place
    return kernels, elided


def _host(
    operation: Operation, made_by: dict[Hashable, _Kernel | None], made_at: dict[Hashable, int]
) -> _Kernel | None:
    """The kernel that this operation can run inside, if there is one.

    It makes one of the inputs, and all other inputs are there before it starts.
    """
    if operation.fusion not in ("elements", "rows"):
        return None
    made = [tensor for tensor in operation.reads if tensor.key in made_by]
    for tensor in sorted(made, key=lambda tensor: -made_at[tensor.key]):
        kernel = made_by[tensor.key]
        if kernel is None:
            continue
        rows = kernel.head.fusion in ("rows", "elements")
        same_size = (
            operation.fusion == "elements" and tensor.elements == operation.writes[0].elements
        )
        ready = all(made_by[t.key] is kernel or made_at[t.key] < kernel.start for t in made)
        if ready and (rows or same_size):
            return kernel
    return None


def unknown_of(operations: Sequence[Operation]) -> tuple[Unknown, ...]:
    """The operators among these that there was no rule for, those that move most first."""

    def moved(chosen: Iterable[Operation]) -> float:
        return sum(t.bytes for operation in chosen for t in (*operation.reads, *operation.writes))

    total = moved(operations)
    by_operator: dict[str, list[Operation]] = {}
    for operation in operations:
        if not operation.known:
            by_operator.setdefault(operation.operator, []).append(operation)
    found = [
        Unknown(
            operator=operator,
            count=len(chosen),
            share=moved(chosen) / total if total and all(op.sized for op in chosen) else math.nan,
        )
        for operator, chosen in by_operator.items()
    ]
    return tuple(sorted(found, key=lambda unknown: (not math.isnan(unknown.share), -unknown.share)))
