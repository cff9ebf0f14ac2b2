"""Count the work of a TensorRT engine from what its inspector says.

The file is what ``trtexec --profilingVerbosity=detailed --exportLayerInfo=FILE.json`` or
``IEngineInspector.get_engine_information(LayerInformationFormat.JSON)`` writes, as NVIDIA's
documentation shows it for TensorRT 8 to 11. An engine's layers are its kernels after fusion,
and each tensor's format says its size, so bytes are as exact as the file. FLOP come from the
parameters of convolutions and products; what the file does not say (the products inside a fused
attention, the window of a recurrent layer) is named as unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError

from governor.errors import InputError
from governor.roofline.operations import Operation, Tensor, to_layers, unknown_of
from governor.roofline.work import Unit, Work

_REMEDY = (
    "build the engine with detailed profiling verbosity and export it with "
    "trtexec --profilingVerbosity=detailed --exportLayerInfo=FILE.json"
)

# Words of a format's description, in the order to look for them, and the bytes of an element.
_FORMATS = (
    ("int8", 1, "int8"), ("fp8", 1, "fp8"), ("int4", 0.5, "int8"), ("bf16", 2, "bf16"),
    ("bfloat16", 2, "bf16"), ("fp16", 2, "fp16"), ("half", 2, "fp16"), ("int64", 8, "fp32"),
    ("int32", 4, "fp32"), ("bool", 1, "fp32"), ("fp32", 4, "fp32"), ("float", 4, "fp32"),
)  # fmt: skip

_PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatrixMultiply", "Gemm")
_ELEMENTS = {
    "PointWise": 1, "ElementWise": 1, "Scale": 2, "Activation": 4, "Unary": 4, "Select": 1,
    "SoftMax": 7, "Normalization": 8, "Reduce": 1, "Pooling": 1,
}  # fmt: skip
"""FLOP an element of the layer's larger side, at least; pooling by its window."""
_MOVES = (
    "Reformat", "Shuffle", "Slice", "Concatenation", "Gather", "NoOp", "Constant", "Identity",
    "Cast", "Quantize", "Dequantize", "Resize", "Padding", "Scatter", "Shape", "Fill",
)  # fmt: skip


class _Tensor(BaseModel):
    name: str = Field(alias="Name")
    dimensions: list[int] = Field(alias="Dimensions")
    format: str = Field(
        "", validation_alias=AliasChoices("Format/Datatype", "Format/DataType", "Format")
    )
    datatype: str = Field("", validation_alias=AliasChoices("DataType", "Datatype"))


class _Weights(BaseModel):
    type: str = Field("Float", alias="Type")
    count: int = Field(0, alias="Count", ge=0)


def _sizes(value: Any) -> Any:
    """Window sizes, where a file writes one number for a list of one."""
    return [value] if isinstance(value, int) else value


class _Layer(BaseModel):
    """What of a layer's description is used; TensorRT's versions write more, and less."""

    name: str = Field(alias="Name")
    layer_type: str = Field(alias="LayerType")
    inputs: list[_Tensor] = Field(alias="Inputs")
    outputs: list[_Tensor] = Field(alias="Outputs")
    parameter_type: str = Field("", alias="ParameterType")
    kernel: Annotated[list[int], BeforeValidator(_sizes)] = Field([], alias="Kernel")
    window: Annotated[list[int], BeforeValidator(_sizes)] = Field([], alias="WindowSize")
    groups: int = Field(1, alias="Groups", ge=1)
    weights: _Weights | None = Field(None, alias="Weights")
    bias: _Weights | None = Field(None, alias="Bias")

    @property
    def kind(self) -> str:
        """What it computes: its parameters' kind, or its own."""
        return self.parameter_type or self.layer_type


def count_engine(path: str | Path, *, batch_size: int | None = None) -> Work:
    """The work of one inference of an engine.

    Args:
        batch_size: the engine's own by default; for another its work is scaled.

    Raises:
        InputError: not an inspector's file, or one without the layers' details or shapes.
    """
    layers = _read(Path(path))
    made = {tensor.name for layer in layers for tensor in layer.outputs}
    entered = [t for layer in layers for t in layer.inputs if t.name not in made]
    own = next((t.dimensions[0] for t in entered if t.dimensions), 1)
    operations = [_operation(layer) for layer in layers]
    precisions = [op.precision for op in operations if op.unit == "matmul"]
    work = Work(
        name=Path(path).stem,
        layers=to_layers(operations),
        batch_size=own,
        precision=max(set(precisions), key=precisions.count, default="fp32"),
        fused=True,
        unknown=unknown_of(operations),
    )
    return work if batch_size is None else work.scaled(batch_size)


def _read(path: Path) -> list[_Layer]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give a TensorRT inspector's file"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); {_REMEDY}") from error
    described: Any = None
    if isinstance(content, Mapping):
        described = cast("Mapping[str, Any]", content).get("Layers")
    if not isinstance(described, list) or not described:
        raise InputError(f"{path}: has no list of Layers; {_REMEDY}")
    layers: list[_Layer] = []
    for number, layer in enumerate(cast("list[Any]", described)):
        if isinstance(layer, str):
            raise InputError(f"{path}: names its layers without their details; {_REMEDY}")
        try:
            layers.append(_Layer.model_validate(layer))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise InputError(
                f"{path}, layer {number}, {where}: {first['msg']}; {_REMEDY}"
            ) from error
        for tensor in (*layers[-1].inputs, *layers[-1].outputs):
            if any(size < 0 for size in tensor.dimensions):
                raise InputError(
                    f"{path}, layer {number}: tensor {tensor.name} has a dynamic shape; "
                    "export it with trtexec and the shapes set (--shapes), so that they are known"
                )
    return layers


def _format(description: str) -> tuple[float, str]:
    """Bytes of an element and precision, from words such as ``Row major linear FP16 format``."""
    lower = description.lower()
    for word, size, precision in _FORMATS:
        if word in lower:
            return size, precision
    return 4.0, "fp32"


def _moved(tensor: _Tensor) -> Tensor:
    elements = math.prod(tensor.dimensions)
    size, _ = _format(tensor.datatype or tensor.format)
    return Tensor(tensor.name, elements * size, elements)


def _operation(layer: _Layer) -> Operation:
    reads = [_moved(tensor) for tensor in layer.inputs]
    for role, weights in (("weights", layer.weights), ("bias", layer.bias)):
        if weights is not None and weights.count:
            size, _ = _format(weights.type)
            key = (layer.name, role)
            reads.append(Tensor(key, weights.count * size, weights.count, "weight"))
    writes = tuple(_moved(tensor) for tensor in layer.outputs)
    flop, unit, known = _flop(layer, reads, writes)
    precision = _format(layer.weights.type if layer.weights else _first_format(layer))[1]
    return Operation(
        name=layer.name,
        operator=layer.kind.lower(),
        flop=flop,
        reads=tuple(reads),
        writes=writes,
        unit=unit,
        precision=precision,
        known=known,
    )


def _first_format(layer: _Layer) -> str:
    tensor = next(iter((*layer.inputs, *layer.outputs)), None)
    return (tensor.datatype or tensor.format) if tensor else ""


def _flop(
    layer: _Layer, reads: list[Tensor], writes: tuple[Tensor, ...]
) -> tuple[float, Unit, bool]:
    """FLOP, who computes them, and whether the file says enough to know."""
    largest = float(max((tensor.elements for tensor in (*reads, *writes)), default=0))
    written = writes[0].elements if writes else 0.0
    if layer.kind in _PRODUCTS:
        return _product(layer, written)
    for kind, cost in _ELEMENTS.items():
        if layer.kind.lower().startswith(kind.lower()):
            window = math.prod(layer.window or [1])
            return (written * window if window > 1 else largest * cost), "vector", True
    if any(layer.kind.lower().startswith(kind.lower()) for kind in _MOVES):
        return 0.0, "vector", True
    return written, "vector", False


def _product(layer: _Layer, written: float) -> tuple[float, Unit, bool]:
    """Two FLOP for each weight and place it is used at."""
    if layer.weights is not None and layer.weights.count and layer.outputs:
        channels = layer.outputs[0].dimensions[1:2] or layer.outputs[0].dimensions[:1]
        entered = layer.inputs[0].dimensions
        if layer.kind == "Deconvolution":
            places = math.prod(entered) / max(entered[1] if len(entered) > 1 else 1, 1)
            return 2.0 * places * layer.weights.count, "matmul", True
        depthwise = layer.groups > 1 and layer.groups == channels[0]
        flop = 2.0 * written * layer.weights.count / max(channels[0], 1)
        return flop, "vector" if depthwise else "matmul", True
    if len(layer.inputs) >= 2 and layer.outputs:
        left, right = (tensor.dimensions for tensor in layer.inputs[:2])
        return 2.0 * written * _shared(left, right, layer.outputs[0].dimensions), "matmul", True
    return written, "matmul", False


def _shared(left: list[int], right: list[int], result: list[int]) -> float:
    """The dimension that a product of matrices sums over, however they are transposed."""
    area = math.prod(left[-2:]) * math.prod(right[-2:])
    return math.sqrt(area / max(math.prod(result[-2:]), 1))
