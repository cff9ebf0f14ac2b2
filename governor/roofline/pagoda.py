"""Count an ONNX file by the rules of Pagoda (arXiv 2509.20189, ``estimates.py``).

For comparing with what that study published, and with what was fitted to it. Its rules differ
from this project's own in that every operator is a kernel that moves all of its tensors; that
operators it has no rule for (resizing, splitting, embedding, layer norm's parts) count nothing;
that an element-wise operation reads two inputs of its output's size; that the second factor of
any product counts as weights, even in attention; that what begins with a constant (a bias that
is added to a product, rather than the other way round) counts nothing; and that a recurrent
layer counts a multiply and an add as one, and does not grow with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from governor.roofline.onnx_graph import Graph, Node
from governor.roofline.work import Layer, Unit, Work

_ITEM = 4
"""Bytes of an element, whatever it is."""

_ACTIVATIONS = {
    "Relu": 1, "Sigmoid": 4, "HardSigmoid": 4, "Tanh": 5, "HardSwish": 5, "Swish": 5,
    "Softmax": 7, "Erf": 8,
}  # fmt: skip


def count_pagoda(graph: Graph) -> Work:
    """The work of one inference, in single precision, unfused."""
    layers = [
        layer
        for node in graph.nodes
        if node.operator in _RULES and not _begins_with_constant(node)
        for layer in (_RULES[node.operator](node),)
        if layer.flop or layer.bytes
    ]
    return Work(
        name=graph.name,
        layers=tuple(layers),
        batch_size=graph.batch_size,
        precision="fp32",
    )


def _begins_with_constant(node: Node) -> bool:
    return not node.inputs or node.inputs[0] is None or node.inputs[0].constant


def _layer(
    node: Node,
    flop: float,
    read: float,
    written: float,
    weights: float = 0.0,
    unit: Unit = "vector",
    once: bool = False,
) -> Layer:
    """``read``, ``written`` and ``weights`` in elements."""
    return Layer(
        name=node.name,
        operator=node.operator.lower(),
        flop=float(flop),
        bytes_read=float(_ITEM * read),
        bytes_written=float(_ITEM * written),
        weight_bytes=float(_ITEM * weights),
        unit=unit,
        once=once,
    )


def _entered(node: Node, place: int = 0) -> int:
    value = node.inputs[place] if place < len(node.inputs) else None
    return value.elements if value is not None else 0


def _sizes(node: Node, place: int) -> tuple[int, ...]:
    value = node.inputs[place] if place < len(node.inputs) else None
    return value.sizes if value is not None else ()


def _made(node: Node) -> int:
    return node.outputs[0].elements


def _convolution(node: Node) -> Layer:
    weight = _sizes(node, 1)
    flop = 2 * _made(node) * math.prod(weight[1:]) + _made(node)
    return _layer(node, flop, _entered(node), _made(node), math.prod(weight), "matmul")


def _gemm(node: Node) -> Layer:
    weight = math.prod(_sizes(node, 1))
    batch = _sizes(node, 0)[0]
    return _layer(node, 2 * batch * weight, _entered(node), _made(node), weight, "matmul")


def _matmul(node: Node) -> Layer:
    inner, columns = _sizes(node, 0)[-1], node.outputs[0].sizes[-1]
    flop = 2 * _made(node) * inner
    return _layer(node, flop, _entered(node), _made(node), inner * columns, "matmul")


def _activation(node: Node) -> Layer:
    made = _made(node)
    return _layer(node, _ACTIVATIONS[node.operator] * made, made, made)


def _normalisation(node: Node) -> Layer:
    made = _made(node)
    return _layer(node, 2 * made, made, made, 2 * node.outputs[0].sizes[1])


def _arithmetic(node: Node) -> Layer:
    return _layer(node, _made(node), 2 * _made(node), _made(node))


def _pool(node: Node) -> Layer:
    window = math.prod(node.attributes.get("kernel_shape", (1, 1)))
    flop = _made(node) * (window - (node.operator == "MaxPool"))
    return _layer(node, flop, _entered(node), _made(node))


def _global_pool(node: Node) -> Layer:
    return _layer(node, _entered(node), _entered(node), _made(node))


def _copy(node: Node) -> Layer:
    return _layer(node, 0, _entered(node), _made(node))


def _join(node: Node) -> Layer:
    read = sum(value.elements for value in node.inputs if value is not None)
    return _layer(node, 0, read, _made(node))


def _fill(node: Node) -> Layer:
    return _layer(node, 0, 0, _made(node))


def _recurrent(node: Node) -> Layer:
    """Of one item, whatever the batch."""
    steps, _, inputs = _sizes(node, 0)
    hidden = int(node.attributes["hidden_size"])
    weights = 4 * hidden * (inputs + hidden)
    # Four additions, three sigmoids of 4, a tanh of 5 and three products, a state and step.
    flop = steps * (weights + (4 + 3 * 4 + 5 + 3) * hidden)
    moved = weights + steps * (inputs + hidden) + 2 * hidden
    return _layer(node, flop, 0, 0, moved, "matmul", once=True)


_RULES: dict[str, Callable[[Node], Layer]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "BatchNormalization": _normalisation,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    "GlobalAveragePool": _global_pool,
    **dict.fromkeys(("Transpose", "Flatten", "Identity"), _copy),
    "Concat": _join,
    "ConstantOfShape": _fill,
    "LSTM": _recurrent,
}
