"""Counting a TensorRT engine from its inspector's file.

The files are written by hand, after the format in NVIDIA's documentation; no engine was built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from governor.errors import InputError
from governor.roofline.counting import count_work

HALF = "Channel major FP16 format where channel % 8 == 0"
INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def _tensor(name: str, *dimensions: int, kind: str = HALF) -> dict[str, Any]:
    return {
        "Name": name, "Location": "Device", "Dimensions": list(dimensions),
        "Format/Datatype": kind,
    }  # fmt: skip


def _layer(kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "Name": more.pop("Name", kind), "LayerType": f"Cask{kind}", "Inputs": inputs,
        "Outputs": outputs, "ParameterType": kind, "TacticName": "a_tactic", **more,
    }  # fmt: skip


CONVOLUTION = _layer(
    "Convolution",
    [_tensor("input", 2, 8, 32, 32)],
    [_tensor("features", 2, 16, 32, 32)],
    Name="conv1 + relu1",
    Kernel=[3, 3],
    Groups=1,
    OutMaps=16,
    Weights={"Type": "Half", "Count": 16 * 8 * 9},
    Bias={"Type": "Half", "Count": 16},
    Activation="RELU",
)
POOL = _layer(
    "Pooling",
    [_tensor("features", 2, 16, 32, 32)],
    [_tensor("pooled", 2, 16, 16, 16)],
    WindowSize=[2, 2],
)
PRODUCT = _layer(
    "MatrixMultiply", [_tensor("a", 2, 4, 128, 64), _tensor("b", 2, 4, 128, 64)],
    [_tensor("scores", 2, 4, 128, 128)],
)  # fmt: skip


def _write(path: Path, *layers: Any) -> Path:
    path.write_text(json.dumps({"Layers": list(layers), "Bindings": ["input", "pooled"]}))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return tmp_path / "engine.json"


def test_a_layer_is_counted_from_its_weights_and_formats(engine: Path) -> None:
    work = count_work(_write(engine, CONVOLUTION, POOL))
    convolution, pool = work.layers
    assert convolution.flop == 2 * (2 * 16 * 32 * 32) * 8 * 9
    assert convolution.bytes_read == 2 * (2 * 8 * 32 * 32)
    assert convolution.bytes_written == 2 * (2 * 16 * 32 * 32)
    assert convolution.weight_bytes == 2 * (16 * 8 * 9 + 16)
    assert (convolution.unit, convolution.precision) == ("matmul", "fp16")
    assert pool.flop == 4 * (2 * 16 * 16 * 16)
    assert (work.batch_size, work.precision, work.fused, work.unknown) == (2, "fp16", True, ())


def test_eight_bit_tensors_move_a_byte_an_element(engine: Path) -> None:
    quantised = CONVOLUTION | {
        "Inputs": [_tensor("input", 2, 32, 32, 32, kind=INT8)],
        "Weights": {"Type": "Int8", "Count": 16 * 32 * 9},
    }
    (layer,) = count_work(_write(engine, quantised)).layers
    assert layer.bytes_read == 2 * 32 * 32 * 32
    assert layer.precision == "int8"


def test_a_product_sums_over_the_dimension_that_both_sides_share(engine: Path) -> None:
    (layer,) = count_work(_write(engine, PRODUCT)).layers
    assert layer.flop == 2 * (2 * 4 * 128 * 128) * 64


def test_a_depthwise_convolution_is_vector_work(engine: Path) -> None:
    depthwise = CONVOLUTION | {"Groups": 16, "Weights": {"Type": "Half", "Count": 16 * 9}}
    (layer,) = count_work(_write(engine, depthwise)).layers
    assert (layer.unit, layer.flop) == ("vector", 2 * (2 * 16 * 32 * 32) * 9)


def test_the_data_type_may_stand_apart_from_the_format_as_in_tensorrt_11(engine: Path) -> None:
    tensors = [_tensor(name, 1, 4) for name in ("input", "output")]
    for tensor in tensors:
        tensor["Format"] = tensor.pop("Format/Datatype").replace("FP16 ", "")
        tensor["DataType"] = "Half"
    (layer,) = count_work(_write(engine, _layer("PointWise", tensors[:1], tensors[1:]))).layers
    assert layer.bytes == 2 * 8


def test_another_batch_is_the_same_work_scaled(engine: Path) -> None:
    _write(engine, CONVOLUTION)
    two, six = count_work(engine), count_work(engine, batch_size=6)
    assert six.flop == 3 * two.flop
    assert six.weight_bytes == two.weight_bytes


def test_a_layer_whose_products_the_file_hides_is_named_as_unknown(engine: Path) -> None:
    attention = _layer(
        "Myelin", [_tensor("pooled", 2, 16, 16, 16)], [_tensor("out", 2, 16, 16, 16)]
    )
    (unknown,) = count_work(_write(engine, CONVOLUTION, POOL, attention)).unknown
    assert unknown.operator == "myelin"
    assert 0.05 < unknown.share < 0.3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not JSON.*--exportLayerInfo"),
        ("[]", "no list of Layers"),
        ('{"Layers": []}', "no list of Layers"),
        ('{"Layers": ["conv1 + relu1"]}', "without their details.*profilingVerbosity=detailed"),
        ('{"Layers": [{"Name": "conv1"}]}', "layer 0, LayerType"),
        (
            json.dumps({"Layers": [POOL | {"Inputs": [_tensor("x", -1, 3)]}]}),
            "tensor x has a dynamic shape.*--shapes",
        ),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused(engine: Path, content: str, says: str) -> None:
    engine.write_text(content)
    with pytest.raises(InputError, match=says):
        count_work(engine)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        count_work(tmp_path / "missing.json")
