"""Count the work of an ONNX file, operator by operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from governor.errors import MissingExtraError
from governor.roofline.arithmetic import (
    ELEMENTS,
    INTERPOLATION,
    MOVES,
    ROWS,
    attention_flop,
    recurrent_flop,
    sort_flop,
)
from governor.roofline.operations import (
    Fusion,
    Operation,
    Tensor,
    to_layers,
    unknown_of,
)
from governor.roofline.work import PRECISIONS, Unit, Work

try:
    from onnx import ModelProto, TensorProto

    from governor.roofline.onnx_graph import Graph, Node, Value
    from governor.roofline.onnx_graph import read_graph as read_onnx
except ModuleNotFoundError as error:
    raise MissingExtraError("onnx", "onnx") from error

if TYPE_CHECKING:
    from collections.abc import Hashable

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
"""The same elements under another shape: nothing is moved."""

_ELEMENTS = {
    "Abs": "abs", "Acos": "cos", "Acosh": "log", "Add": "add", "And": "where", "Asin": "sin",
    "Asinh": "log", "Atan": "sin", "Atanh": "log", "BiasGelu": "gelu", "BitShift": "add",
    "BitwiseAnd": "add", "BitwiseNot": "add", "BitwiseOr": "add", "BitwiseXor": "add",
    "Ceil": "ceil", "Celu": "elu", "Clip": "clamp", "Cos": "cos", "Cosh": "exp", "Div": "div",
    "Elu": "elu", "Equal": "where", "Erf": "erf", "Exp": "exp", "FastGelu": "gelu",
    "Floor": "floor", "Gelu": "gelu", "Greater": "where", "GreaterOrEqual": "where",
    "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish", "IsInf": "where", "IsNaN": "where",
    "LeakyRelu": "leaky_relu", "Less": "where", "LessOrEqual": "where", "Log": "log",
    "Max": "maximum", "Mean": "add", "Min": "minimum", "Mish": "mish", "Mod": "div", "Mul": "mul",
    "Neg": "neg", "Not": "where", "Or": "where", "PRelu": "prelu", "Pow": "pow",
    "QLinearAdd": "add", "QLinearLeakyRelu": "leaky_relu", "QLinearMul": "mul",
    "QLinearSigmoid": "sigmoid", "QuantizeLinear": "quantize", "DequantizeLinear": "dequantize",
    "QuickGelu": "silu", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "floor",
    "Selu": "elu", "Shrink": "clamp", "Sigmoid": "sigmoid", "Sign": "where", "Sin": "sin",
    "Sinh": "exp", "Softplus": "softplus", "Softsign": "div", "Sqrt": "sqrt", "Sub": "sub",
    "Sum": "add", "Swish": "silu", "Tan": "sin", "Tanh": "tanh", "ThresholdedRelu": "relu",
    "Where": "where", "Xor": "where", "BatchNormalization": "batch_norm",
}  # fmt: skip
_ROWS = {
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Hardmax": "reduction",
    "QLinearSoftmax": "softmax", "LayerNormalization": "layer_norm",
    "SkipLayerNormalization": "layer_norm", "SimplifiedLayerNormalization": "rms_norm",
    "SkipSimplifiedLayerNormalization": "rms_norm", "RMSNormalization": "rms_norm",
    "GroupNormalization": "group_norm", "InstanceNormalization": "instance_norm",
    "MeanVarianceNormalization": "instance_norm", "LpNormalization": "norm", "LRN": "lrn",
    "CumSum": "cumsum", "GlobalAveragePool": "reduction", "GlobalMaxPool": "reduction",
    "QLinearGlobalAveragePool": "reduction", "GlobalLpPool": "norm", "ArgMax": "reduction",
    "ArgMin": "reduction", "ReduceSum": "reduction", "ReduceMean": "reduction",
    "ReduceMax": "reduction", "ReduceMin": "reduction", "ReduceProd": "reduction",
    "ReduceL1": "norm", "ReduceL2": "norm", "ReduceSumSquare": "norm", "ReduceLogSum": "reduction",
    "ReduceLogSumExp": "logsumexp", "DynamicQuantizeLinear": "dynamic_quantize",
}  # fmt: skip
_MOVES = {
    "Cast": "to_copy", "CastLike": "to_copy", "CenterCropPad": "pad", "Compress": "index",
    "Concat": "cat", "ConstantOfShape": "fill", "DepthToSpace": "space_to_depth",
    "Expand": "expand", "EyeLike": "eye", "Gather": "gather", "GatherElements": "gather",
    "GatherND": "gather", "NonZero": "index", "OneHot": "one_hot", "Pad": "pad",
    "QLinearConcat": "cat", "Range": "arange", "ReverseSequence": "flip",
    "ScatterElements": "scatter", "ScatterND": "scatter", "Slice": "slice",
    "SpaceToDepth": "space_to_depth", "Split": "split", "Tile": "repeat",
    "Transpose": "transpose", "Trilu": "triangle",
}  # fmt: skip
_TABLES = ("Gather", "GatherElements", "GatherND", "Compress")
"""Operators that read only as much of their first input as they write."""

_WEIGHT_PLACE = {"QLinearConv": 3, "QLinearMatMul": 3}
_EIGHT_BIT = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an operator computes."""

    operator: str
    flop: float
    unit: Unit = "vector"
    fusion: Fusion = "none"
    known: bool = True


def count_onnx(
    source: str | Path | ModelProto,
    *,
    batch_size: int | None = None,
    item_shape: Sequence[int] | None = None,
    precision: str | None = None,
    fused: bool = True,
) -> Work:
    """The work of one inference of an ONNX file.

    A file that fixes its batch is counted at that and scaled. A quantised one is counted as it
    is: fused, a product between QuantizeLinear and DequantizeLinear reads and multiplies 8-bit
    integers.

    Raises:
        InputError: see :func:`governor.roofline.onnx_graph.read_graph`.
    """
    graph = read_onnx(source, batch_size, item_shape)
    given = precision or _own_precision(graph)
    operations, results = _operations(graph, given, fused)
    work = Work(
        name=Path(source).stem if isinstance(source, str | Path) else graph.name,
        layers=to_layers(operations, results, fused),
        batch_size=graph.batch_size,
        precision=given,
        fused=fused,
        unknown=unknown_of(operations),
    )
    return work if batch_size is None else work.scaled(batch_size)


def _own_precision(graph: Graph) -> str:
    """That of the first product with weights, or of the inputs."""
    names = {int(TensorProto.FLOAT16): "fp16", int(TensorProto.BFLOAT16): "bf16"}
    for node in graph.nodes:
        for value in node.inputs[1:2] if node.operator in _PRODUCTS else ():
            if value is not None and value.floating:
                return names.get(value.element, "fp32")
    return next((names[v.element] for v in graph.inputs if v.element in names), "fp32")


def _operations(
    graph: Graph, precision: str, fused: bool
) -> tuple[list[Operation], list[Hashable]]:
    """What is left to do for each batch: what depends on the weights alone is done before."""
    tensors: dict[str, Tensor] = {}
    eight_bit: set[Hashable] = set()

    def tensor(value: Value) -> Tensor:
        if value.name not in tensors:
            size = PRECISIONS[precision] if value.floating else value.element_bytes
            tensors[value.name] = Tensor(
                value.name,
                value.elements * size,
                value.elements,
                "constant" if value.constant else "activation",
            )
            if value.eight_bit:
                eight_bit.add(value.name)
        return tensors[value.name]

    operations: list[Operation] = []
    for node in graph.nodes:
        inputs = [value for value in node.inputs if value is not None]
        alias = node.operator in VIEWS or (fused and node.operator == "DequantizeLinear")
        if alias and inputs:
            tensors[node.outputs[0].name] = tensor(inputs[0])
            continue
        if all(value.constant for value in node.outputs) or not node.outputs:
            continue
        # Small integers are shapes, axes and indices; they are arguments, not data.
        read = [tensor(v) for v in inputs if v.data is None or v.floating or v.eight_bit]
        written = tuple(tensor(value) for value in node.outputs)
        if node.operator in _TABLES and read:
            rows = written[0]
            read[0] = Tensor(read[0].key, rows.bytes, rows.elements, rows.role, node.name)
        rule = _rule(node)
        place = _WEIGHT_PLACE.get(node.operator, 1)
        factors = [tensor(v).key for v in (node.inputs[0], *node.inputs[place : place + 1]) if v]
        integer = node.operator in _EIGHT_BIT or all(key in eight_bit for key in factors)
        operations.append(
            Operation(
                name=node.name,
                operator=rule.operator,
                flop=rule.flop,
                reads=tuple(read),
                writes=written,
                unit=rule.unit,
                precision="int8" if node.operator in _PRODUCTS and integer else precision,
                fusion=rule.fusion,
                known=rule.known,
                sized=all(value.sized for value in (*inputs, *node.outputs)),
            )
        )
    return operations, [tensors[name].key for name in graph.results if name in tensors]


def _rule(node: Node) -> _Rule:
    """What this node computes."""
    elements = float(node.outputs[0].elements)
    first = node.inputs[0] if node.inputs else None
    entered = float(first.elements) if first is not None else 0.0
    if node.operator in _PRODUCTS:
        formula, name = _PRODUCTS[node.operator]
        sized = all(v is None or v.shape is not None for v in node.inputs[:2])
        if sized and node.outputs[0].shape is not None:
            unit: Unit = "vector" if _is_depthwise(node) else "matmul"
            return _Rule(name, float(formula(node)), unit)
        return _Rule(node.operator, elements, known=False)
    if node.operator in _ELEMENTS:
        name = _ELEMENTS[node.operator]
        return _Rule(name, ELEMENTS[name] * elements, fusion="elements")
    if node.operator in _ROWS:
        name = _ROWS[node.operator]
        return _Rule(name, ROWS[name] * entered, fusion="rows")
    if node.operator in _MOVES:
        name = _MOVES[node.operator]
        return _Rule(name, 0.0, fusion=MOVES[name])
    if node.operator in ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"):
        window = math.prod(node.attributes.get("kernel_shape", ()))
        return _Rule("pool", elements * (window - (node.operator == "MaxPool")))
    if node.operator in ("Resize", "Upsample", "GridSample"):
        return _Rule("resize", INTERPOLATION[_interpolation(node)] * elements)
    if node.operator in ("RoiAlign", "MaxRoiPool"):
        samples = max(int(node.attributes.get("sampling_ratio", 0)), 1) ** 2
        return _Rule("roi", INTERPOLATION["bilinear"] * samples * elements)
    if node.operator == "TopK" and first is not None:
        axis = int(node.attributes.get("axis", -1))
        row = first.sizes[axis] if first.sizes else 1
        return _Rule("topk", sort_flop(entered, row))
    return _Rule(node.operator, elements, known=False)


def _is_depthwise(node: Node) -> bool:
    """One filter a channel, which tensor cores have no use for."""
    if "Conv" not in node.operator:
        return False
    groups = int(node.attributes.get("group", 1))
    weight = node.inputs[_WEIGHT_PLACE.get(node.operator, 1)]
    return groups > 1 and weight is not None and weight.sizes[1] == 1


def _interpolation(node: Node) -> str:
    mode = str(node.attributes.get("mode", "nearest"))
    spatial = max(len(node.outputs[0].sizes) - 2, 1)
    if mode in ("linear", "bilinear"):
        return {1: "linear", 2: "bilinear"}.get(spatial, "trilinear")
    return "bicubic" if "cubic" in mode else "nearest"


# Products: two FLOP for each multiplication and addition ----------------------------------


def _sizes(node: Node, place: int) -> tuple[int, ...]:
    value = node.inputs[place] if place < len(node.inputs) else None
    return value.sizes if value is not None else ()


def _convolution(node: Node) -> float:
    weight = _sizes(node, _WEIGHT_PLACE.get(node.operator, 1))
    return 2.0 * node.outputs[0].elements * math.prod(weight[1:])


def _transposed_convolution(node: Node) -> float:
    return 2.0 * math.prod(_sizes(node, 0)) * math.prod(_sizes(node, 1)[1:])


def _gemm(node: Node) -> float:
    rows, columns = _sizes(node, 0)[-2:]
    inner = rows if node.attributes.get("transA", 0) else columns
    return 2.0 * node.outputs[0].elements * inner


def _matmul(node: Node) -> float:
    return 2.0 * node.outputs[0].elements * _sizes(node, 0)[-1]


def _einsum(node: Node) -> float:
    """Every combination of indices is multiplied and added once a further factor."""
    terms = str(node.attributes["equation"]).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for place, term in enumerate(terms):
        shape = _sizes(node, place)
        named = term.replace("...", "." * (len(shape) - len(term.replace("...", ""))))
        for number, (letter, size) in enumerate(zip(named, shape, strict=True)):
            sizes[letter if letter != "." else f".{number - len(named)}"] = size
    return 2.0 * max(len(terms) - 1, 1) * math.prod(sizes.values())


def _recurrent(node: Node) -> float:
    layout = int(node.attributes.get("layout", 0))
    shape = _sizes(node, 0)
    batch_size, steps = shape[:2] if layout else (shape[1], shape[0])
    kind = next(kind for kind in ("lstm", "gru", "rnn") if kind in node.operator.lower())
    hidden = int(node.attributes["hidden_size"])
    directions = 2 if node.attributes.get("direction") == "bidirectional" else 1
    return recurrent_flop(kind, steps, batch_size, shape[2], hidden, directions)


def _attention(node: Node) -> float:
    """ONNX's Attention, or ONNX Runtime's multi-head one: separate query, key and value."""
    query, key, value = (_sizes(node, place) for place in (0, 1, 2))
    if len(query) == 4:
        rows, width, value_width = query[0] * query[1], query[3], value[3]
        return attention_flop(rows, query[2], key[2], width, value_width)
    heads = int(node.attributes.get("q_num_heads", node.attributes.get("num_heads", 1)))
    rows = query[0] * heads
    return attention_flop(rows, query[1], key[-2], query[2] // heads, (value or key)[-1] // heads)


_PRODUCTS: dict[str, tuple[Callable[[Node], float], str]] = {
    **dict.fromkeys(
        ("Conv", "FusedConv", "ConvInteger", "QLinearConv", "DeformConv"),
        (_convolution, "convolution"),
    ),
    "ConvTranspose": (_transposed_convolution, "convolution"),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), (_gemm, "linear")),
    **dict.fromkeys(
        ("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat",
         "DynamicQuantizeMatMul"),
        (_matmul, "matmul"),
    ),
    "Einsum": (_einsum, "matmul"),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (_recurrent, "recurrent")),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), (_attention, "attention")),
}  # fmt: skip
