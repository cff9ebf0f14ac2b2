"""How many FLOP an element costs, by operator.

Where Pagoda (arXiv 2509.20189, ``estimates.py``) has a figure for an operator, it is used: a
transcendental function is a short polynomial, so a sigmoid is 4 and an error function 8. The
others follow from their formulas with the same costs. Products are counted by their formulas
(a multiply and an add are two), their biases as part of them; moving data costs no FLOP.
"""

from __future__ import annotations

import math

from governor.roofline.operations import Fusion

ELEMENTS = {
    "abs": 1, "add": 1, "ceil": 1, "clamp": 2, "cos": 4, "div": 1, "elu": 5, "erf": 8, "exp": 4,
    "floor": 1, "gelu": 12, "hardsigmoid": 4, "hardswish": 5, "leaky_relu": 2, "log": 4,
    "maximum": 1, "minimum": 1, "mish": 13, "mul": 1, "neg": 1, "pow": 4, "prelu": 2,
    "quantize": 3, "dequantize": 2, "reciprocal": 1, "relu": 1, "rsqrt": 2, "sigmoid": 4,
    "silu": 5, "sin": 4, "softplus": 9, "sqrt": 1, "sub": 1, "tanh": 5, "where": 1,
    "batch_norm": 2, "dropout": 2,
}  # fmt: skip
"""FLOP an output element of what works on each element alone."""

ROWS = {
    "softmax": 7, "log_softmax": 7, "layer_norm": 8, "group_norm": 8, "instance_norm": 8,
    "rms_norm": 5, "batch_norm_training": 8, "reduction": 1, "cumsum": 1, "norm": 2, "lrn": 13,
    "logsumexp": 6, "dynamic_quantize": 5,
}  # fmt: skip
"""FLOP an input element of what needs a whole row (or channel) of them."""

INTERPOLATION = {"nearest": 0, "linear": 3, "bilinear": 8, "bicubic": 35, "trilinear": 16}
"""FLOP an output element of resizing."""

MOVES: dict[str, Fusion] = {
    "arange": "elements", "cat": "layout", "clone": "elements", "copy": "elements",
    "embedding": "none", "expand": "elements", "eye": "elements", "fill": "elements",
    "flip": "none", "full": "elements", "gather": "none", "index": "none", "index_put": "none",
    "pad": "none", "repeat": "none", "roll": "none", "scatter": "none", "slice": "layout",
    "slice_copy": "none", "split": "layout", "stack": "layout", "to_copy": "elements",
    "transpose": "elements", "triangle": "elements", "space_to_depth": "none", "one_hot": "none",
}  # fmt: skip
"""What only moves data, and how it fuses."""

_GATES = {"lstm": (4, 30), "gru": (3, 21), "rnn": (1, 6)}
"""Gates of a recurrent cell, and FLOP an element of its state beside the products: for an
LSTM three sigmoids, two hyperbolic tangents, four additions into gates, four to mix states."""


def recurrent_flop(
    kind: str, steps: int, batch_size: int, inputs: int, hidden: int, directions: int = 1
) -> float:
    """FLOP of one recurrent layer; ``kind`` is ``lstm``, ``gru`` or ``rnn``."""
    gates, extra = _GATES[kind]
    products = 2 * gates * hidden * (inputs + hidden)
    return float(steps * batch_size * directions * (products + extra * hidden))


def attention_flop(rows: float, queries: int, keys: int, width: int, value_width: int) -> float:
    """FLOP of softmax(Q K^T) V: ``rows`` is batch times heads, ``width`` that of one head."""
    products = 2.0 * rows * queries * keys * (width + value_width)
    return products + rows * queries * keys * (ROWS["softmax"] + 1)


def sort_flop(elements: float, row: int) -> float:
    """Comparisons of sorting, or of taking the largest of, rows of so many elements."""
    return elements * math.log2(max(row, 2))
