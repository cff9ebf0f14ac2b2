"""Export a PyTorch module to ONNX for its structure alone: without the weights' values."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# PyTorch and onnx annotate their own code only in part.

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from onnx import ModelProto, TensorProto

from governor.errors import InputError

OPSET = 17


def export_structure(module: torch.nn.Module, inputs: tuple[Any, ...]) -> ModelProto:
    """The module as ONNX, by PyTorch's tracing exporter; the weights are shapes only.

    Raises:
        InputError: PyTorch cannot export it.
    """
    if any(tensor.is_meta for tensor in module.parameters()):
        # Tracing runs the module; whatever is in its memory will do.
        module = module.to_empty(device="cpu")
    names = [f"input{number}" for number in range(len(inputs))]
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "structure.onnx"
        # The tracing exporter is deprecated; the new one cannot leave the weights out.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module, inputs, file, dynamo=False, opset_version=OPSET,
                input_names=names, export_params=False,
            )  # fmt: skip
        except Exception as error:
            first_line = " ".join(str(error).strip().splitlines()[:1])
            raise InputError(
                f"{type(module).__name__} cannot be exported to ONNX "
                f"({type(error).__name__}: {first_line}); export it yourself and give the file"
            ) from error
        model = onnx.load(str(file))
    graph = model.graph
    for value in [value for value in graph.input if value.name not in names]:
        weight = TensorProto(
            name=value.name,
            dims=[dimension.dim_value for dimension in value.type.tensor_type.shape.dim],
            data_type=value.type.tensor_type.elem_type,
            data_location=TensorProto.EXTERNAL,
        )
        weight.external_data.add(key="location", value="left-out")
        graph.initializer.append(weight)
        graph.input.remove(value)
    return model
