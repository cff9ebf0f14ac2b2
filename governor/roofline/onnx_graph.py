"""Read an ONNX file as a list of nodes whose tensors all have their shapes.

Node by node, with ``onnx.shape_inference``; what depends on shapes alone (the long chains of
Shape, Gather and Concat that exporters write) is computed on the way, so that the shapes behind
it are known too. The weights' values are never looked at and need not be there.
"""

# pyright: reportUnknownMemberType=false
# onnx annotates its own code only in part.

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.inliner
import onnx.shape_inference
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto
from onnx.reference import ReferenceEvaluator

from governor.errors import InputError

Shape = tuple[int | None, ...]
"""``None``: a size that only the data decides."""

_FOLDED = 4096
"""Elements up to which a value is computed while reading: shapes, not weights."""

_HALF_BYTE = {TensorProto.INT4, TensorProto.UINT4}
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")

# An operator of ONNX Runtime's own, and the standard one whose result has the same shape.
_STAND_INS = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul", "QGemm": "Gemm"}
_SHAPED_AS_FIRST = {
    "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "QLinearLeakyRelu", "QLinearSigmoid",
    "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear", "SkipLayerNormalization",
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "MultiHeadAttention",
    "RotaryEmbedding",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor between nodes.

    Attributes:
        shape: None where not even the number of dimensions is known.
        element: its type, a number of ``onnx.TensorProto.DataType``; 0 if unknown.
        constant: made of the file's own weights and constants alone.
        data: the elements of a small constant, where known.
    """

    name: str
    shape: Shape | None
    element: int
    constant: bool = False
    data: npt.NDArray[Any] | None = None

    @property
    def sized(self) -> bool:
        """Whether every dimension is known."""
        return self.shape is not None and None not in self.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape; dimensions that are not known are 1."""
        return tuple(size or 0 if size is not None else 1 for size in self.shape or ())

    @property
    def elements(self) -> int:
        """How many; a lower bound where a dimension is not known."""
        return math.prod(self.sizes)

    @property
    def floating(self) -> bool:
        """Whether its elements are floating-point numbers of 16 bits or more."""
        return self.element in (
            TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, 0,
        )  # fmt: skip

    @property
    def eight_bit(self) -> bool:
        """Whether its elements are quantised to 8 bits or fewer."""
        return self.element in (TensorProto.INT8, TensorProto.UINT8) or self.element in _HALF_BYTE

    @property
    def element_bytes(self) -> float:
        """Bytes of one element."""
        if self.element in _HALF_BYTE:
            return 0.5
        if self.element in (0, TensorProto.STRING):
            return 4.0
        return float(onnx.helper.tensor_dtype_to_np_dtype(self.element).itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator with its tensors; an input that is left out is ``None``."""

    name: str
    operator: str
    attributes: Mapping[str, Any]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """An ONNX file's nodes in order.

    Attributes:
        batch_size: items in a batch.
        fixed_batch: the file allows no other batch size.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    results: tuple[str, ...]
    batch_size: int
    fixed_batch: bool


def read_graph(
    source: str | Path | ModelProto,
    batch_size: int | None = None,
    item_shape: Sequence[int] | None = None,
) -> Graph:
    """The graph of an ONNX file.

    Args:
        batch_size: in place of a dynamic first dimension; a fixed one stays as it is.
        item_shape: of one item of the first input, in place of its dynamic dimensions.

    Raises:
        InputError: no ONNX file, or one with dynamic dimensions that nothing here decides.
    """
    model = source if isinstance(source, ModelProto) else _load(Path(source))
    name = "model" if isinstance(source, ModelProto) else str(source)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if not model.graph.node:
        raise InputError(f"{name}: holds no operators; export the model again")
    inputs, size, fixed = _inputs(model.graph, name, batch_size, item_shape)
    reader = _Reader(model)
    reader.add(inputs)
    reader.read(model.graph)
    return Graph(
        name=model.graph.name or name,
        nodes=tuple(reader.nodes),
        inputs=inputs,
        results=tuple(output.name for output in model.graph.output),
        batch_size=size,
        fixed_batch=fixed,
    )


def _load(path: Path) -> ModelProto:
    try:
        # Weights in files of their own are not needed, and may be large.
        return onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of an ONNX file"
        ) from error
    except (DecodeError, ValueError) as error:
        raise InputError(
            f"{path}: is not an ONNX file ({error}); export the model again"
        ) from error


def _inputs(
    graph: GraphProto, name: str, batch_size: int | None, item_shape: Sequence[int] | None
) -> tuple[tuple[Value, ...], int, bool]:
    """The inputs with every dimension decided; the batch size; whether the file fixes it."""
    weights = {weight.name for weight in graph.initializer}
    weights |= {weight.values.name for weight in graph.sparse_initializer}
    given = [value for value in graph.input if value.name not in weights]
    decided: dict[str, int] = {}
    found: list[Value] = []
    size, fixed = batch_size or 1, False
    for place, value in enumerate(given):
        tensor = value.type.tensor_type
        shape: list[int] = []
        for axis, dimension in enumerate(tensor.shape.dim):
            known = dimension.dim_value if dimension.HasField("dim_value") else 0
            if known <= 0:
                item = item_shape[axis - 1 : axis] if item_shape and axis and not place else ()
                known = decided.get(dimension.dim_param, 0)
                known = known or (size if axis == 0 else item[0] if item else 0)
                if not known:
                    raise InputError(
                        f"{name}: dimension {axis} ({dimension.dim_param or 'unnamed'}) of input "
                        f"{value.name} is dynamic; give the shape of one item"
                    )
                if dimension.dim_param:
                    decided[dimension.dim_param] = known
            elif place == axis == 0:
                size, fixed = known, True
            shape.append(known)
        if not tensor.HasField("shape"):
            raise InputError(
                f"{name}: input {value.name} has no shape; export the model with one, "
                "or set it with onnx.tools.update_model_dims"
            )
        found.append(Value(value.name, tuple(shape), tensor.elem_type))
    return tuple(found), size, fixed


class _Reader:
    """Goes through the nodes in order and learns each tensor's shape."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[Node] = []
        self._values: dict[str, Value] = {}
        self._opsets = list(model.opset_import)
        self._versions = {opset.domain: opset.version for opset in self._opsets}
        self._ir_version = model.ir_version
        self._declared: dict[str, Value] = {}

    def add(self, values: Iterable[Value]) -> None:
        self._values.update({value.name: value for value in values})

    def read(self, graph: GraphProto) -> None:
        """All nodes of ``graph``, and of the branches that they take."""
        self.add(_initializer(weight) for weight in graph.initializer)
        self.add(
            Value(w.values.name, tuple(w.dims), w.values.data_type, True)
            for w in graph.sparse_initializer
        )
        self._declared.update(
            (info.name, _typed(info.name, info.type)) for info in graph.value_info
        )
        for node in graph.node:
            if node.op_type == "If" and node.domain in ("", "ai.onnx"):
                self._branch(node)
            else:
                self._read_node(node)

    def _branch(self, node: NodeProto) -> None:
        """The branch that is taken; where only the data decides, the longer one."""
        attributes = _attributes(node)
        branches: tuple[GraphProto, GraphProto] = (
            attributes["then_branch"],
            attributes["else_branch"],
        )
        condition = self._values.get(node.input[0])
        if condition is not None and condition.data is not None:
            taken = branches[0] if bool(condition.data.all()) else branches[1]
        else:
            taken = max(branches, key=lambda branch: len(branch.node))
        self.read(taken)
        for output, result in zip(node.output, taken.output, strict=True):
            value = self._values.get(result.name, Value(result.name, None, 0))
            self.add([replace(value, name=output)])
            same = NodeProto(op_type="Identity", input=[result.name], output=[output])
            self._read_node(same)

    def _read_node(self, node: NodeProto) -> None:
        inputs = tuple(
            self._values.get(name, Value(name, None, 0)) if name else None for name in node.input
        )
        attributes = _attributes(node)
        given = [value for value in inputs if value is not None]
        constant = all(value.constant for value in given) and node.op_type not in _RANDOM
        outputs = tuple(
            replace(value, constant=constant or value.data is not None)
            for value in self._outputs(node, inputs, attributes, constant)
        )
        self.add(outputs)
        name = node.name or (node.output[0] if node.output else node.op_type)
        self.nodes.append(Node(name, node.op_type, attributes, inputs, outputs))

    def _outputs(
        self,
        node: NodeProto,
        inputs: tuple[Value | None, ...],
        attributes: Mapping[str, Any],
        constant: bool,
    ) -> list[Value]:
        names = [name for name in node.output if name]
        first = inputs[0] if inputs else None
        if node.op_type == "Constant":
            return [_constant(names[0], attributes)]
        if node.op_type in ("Shape", "Size") and first is not None and first.sized:
            return [_shape_of(node.op_type, names[0], first, attributes)]
        values = self._inferred(node, names, inputs)
        known = all(value is None or value.data is not None for value in inputs)
        if constant and known and all(v.sized and v.elements <= _FOLDED for v in values):
            values = self._computed(node, names, inputs) or values
        return values

    def _inferred(
        self, node: NodeProto, names: list[str], inputs: tuple[Value | None, ...]
    ) -> list[Value]:
        """Shapes by the operator's own rule, or as the file declares them."""
        domain = "" if node.domain in ("", "ai.onnx") else node.domain
        stand_in = NodeProto()
        stand_in.CopyFrom(node)
        if domain and node.op_type in _STAND_INS:
            stand_in.op_type, stand_in.domain, domain = _STAND_INS[node.op_type], "", ""
        found: Mapping[str, TypeProto] = {}
        try:
            schema = onnx.defs.get_schema(stand_in.op_type, self._versions.get(domain, 18), domain)
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                stand_in,
                {v.name: _type(v) for v in inputs if v is not None and v.shape is not None},
                {
                    v.name: onnx.numpy_helper.from_array(v.data, v.name)
                    for v in inputs
                    if v is not None and v.data is not None
                },
                opset_imports=self._opsets,
                ir_version=self._ir_version,
            )
        except (
            KeyError,
            RuntimeError,
            onnx.checker.ValidationError,
            onnx.defs.SchemaError,
            onnx.shape_inference.InferenceError,
        ):
            # An operator that onnx does not know, or whose inputs' shapes are not known.
            pass
        return [
            _typed(name, found[name]) if name in found else self._guessed(node, name, inputs)
            for name in names
        ]

    def _guessed(self, node: NodeProto, name: str, inputs: tuple[Value | None, ...]) -> Value:
        """The shape of an operator without a rule: by what the file or its kind says."""
        if name in self._declared:
            return self._declared[name]
        given = [value for value in inputs if value is not None and value.shape is not None]
        if given and name == node.output[0]:
            if node.op_type in _SHAPED_AS_FIRST:
                return Value(name, given[0].shape, given[0].element)
            if node.op_type in ("QLinearAdd", "QLinearMul"):
                largest = max(given, key=lambda value: value.elements)
                return Value(name, largest.shape, largest.element)
            if node.op_type == "QLinearGlobalAveragePool":
                shape = (*given[0].sizes[:2], *(1 for _ in given[0].sizes[2:]))
                return Value(name, shape, given[0].element)
            if node.op_type == "QLinearConcat":
                axis = int(_attributes(node).get("axis", 1))
                parts = given[2::3]
                shape = list(parts[0].sizes)
                shape[axis] = sum(part.sizes[axis] for part in parts)
                return Value(name, tuple(shape), parts[0].element)
        return Value(name, None, 0)

    def _computed(
        self, node: NodeProto, names: list[str], inputs: tuple[Value | None, ...]
    ) -> list[Value]:
        """The node's results, from its inputs' values; nothing where that is not possible."""
        given = [value for value in inputs if value is not None]
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_value_info(v.name, _type(v)) for v in given],
            [onnx.helper.make_empty_tensor_value_info(name) for name in names],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=self._opsets, ir_version=self._ir_version
        )
        try:
            results = ReferenceEvaluator(model).run(None, {v.name: v.data for v in given})
        except Exception:
            # The evaluator runs foreign operators; whatever it cannot do stays uncomputed.
            return []
        arrays = [np.asarray(result) for result in results]
        return [_of_array(name, array) for name, array in zip(names, arrays, strict=True)]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: _attribute(attribute) for attribute in node.attribute}


def _attribute(attribute: AttributeProto) -> Any:
    value: Any = onnx.helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _initializer(weight: TensorProto) -> Value:
    external = weight.data_location == TensorProto.EXTERNAL
    value = Value(weight.name, tuple(weight.dims), weight.data_type, constant=True)
    if external or value.elements > _FOLDED:
        return value
    return replace(value, data=onnx.numpy_helper.to_array(weight))


def _constant(name: str, attributes: Mapping[str, Any]) -> Value:
    """Of a Constant node, which has one of several attributes."""
    (value,) = attributes.values()
    if isinstance(value, TensorProto):
        return replace(_initializer(value), name=name)
    if isinstance(value, list | int | float):
        kind = np.float32 if np.asarray(value).dtype.kind == "f" else np.int64
        return _of_array(name, np.asarray(value, kind))
    return Value(name, None, 0)


def _shape_of(operator: str, name: str, value: Value, attributes: Mapping[str, Any]) -> Value:
    if operator == "Size":
        return _of_array(name, np.asarray(value.elements, np.int64))
    sizes = value.sizes[attributes.get("start", 0) : attributes.get("end")]
    return replace(_of_array(name, np.asarray(sizes, np.int64)), constant=True)


def _of_array(name: str, array: npt.NDArray[Any]) -> Value:
    try:
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    except (KeyError, ValueError):
        element = 0
    return Value(name, array.shape, element, True, array)


def _typed(name: str, kind: TypeProto) -> Value:
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return Value(name, None, tensor.elem_type)
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Value(name, shape, tensor.elem_type)


def _type(value: Value) -> TypeProto:
    return onnx.helper.make_tensor_type_proto(value.element, value.shape)
