"""Counting an ONNX file, operator by operator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.errors import InputError
from governor.roofline.counting import count_work
from governor.roofline.work import Layer, Work

onnx = pytest.importorskip("onnx", reason="python -m pip install onnx")
helper = onnx.helper
TensorProto = onnx.TensorProto
FLOAT, HALF, INT8, INT64 = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64,
)  # fmt: skip


def _weight(name: str, *shape: int, kind: int = FLOAT) -> Any:
    """A weight whose values are in a file that is not there: they are not needed."""
    tensor = TensorProto(name=name, dims=shape, data_type=kind)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="nowhere.bin")
    return tensor


def _known(name: str, values: Any, kind: type = np.int64) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(values, kind), name)


def _model(
    nodes: list[Any],
    weights: list[Any],
    inputs: dict[str, tuple[Any, ...]],
    kind: int = FLOAT,
    domain: str = "",
) -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(nodes[-1].output[0])],
        weights,
    )
    opsets = [helper.make_opsetid("", 20)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=opsets)


def _count(model: Any, tmp_path: Path, **arguments: Any) -> Work:
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return count_work(path, **arguments)


def _one(
    tmp_path: Path,
    operator: str,
    inputs: dict[str, tuple[Any, ...]],
    weights: list[Any] | None = None,
    *,
    kind: int = FLOAT,
    domain: str = "",
    **attributes: Any,
) -> Layer:
    """The only layer of a network of one operator."""
    weights = weights or []
    names = [*inputs, *(weight.name for weight in weights)]
    outputs = ["out", "places"] if operator == "TopK" else ["out"]
    node = helper.make_node(operator, names, outputs, domain=domain, **attributes)
    work = _count(_model([node], weights, inputs, kind, domain), tmp_path)
    assert not work.unknown
    (layer,) = work.layers
    return layer


# One operator ------------------------------------------------------------------------------


def test_a_convolution_multiplies_each_weight_at_each_place(tmp_path: Path) -> None:
    weights = [_weight("w", 8, 3, 3, 3), _weight("b", 8)]
    layer = _one(tmp_path, "Conv", {"x": ("n", 3, 16, 16)}, weights, pads=[1] * 4)
    assert (layer.operator, layer.unit) == ("convolution", "matmul")
    assert layer.flop == 2 * (8 * 16 * 16) * 27
    assert layer.bytes_read == 4 * 3 * 16 * 16
    assert layer.bytes_written == 4 * 8 * 16 * 16
    assert layer.weight_bytes == 4 * (8 * 27 + 8)


def test_a_depthwise_convolution_is_vector_work(tmp_path: Path) -> None:
    layer = _one(tmp_path, "Conv", {"x": (1, 8, 16, 16)}, [_weight("w", 8, 1, 1, 1)], group=8)
    assert (layer.unit, layer.flop) == ("vector", 2 * 8 * 256)


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "flop"),
    [
        ("MatMul", [(2, 4, 8, 16), (2, 4, 16, 32)], {}, 2 * (2 * 4 * 8 * 32) * 16),
        ("Gemm", [(16, 8), (16, 32)], {"transA": 1}, 2 * 8 * 32 * 16),
        ("ConvTranspose", [(1, 8, 4, 4), (8, 6, 2, 2)], {"strides": [2, 2]}, 2 * 128 * 6 * 4),
        (
            "Einsum", [(2, 8, 16), (2, 16, 32)], {"equation": "bij,bjk->bik"},
            2 * 2 * 8 * 16 * 32,
        ),
        ("MaxPool", [(1, 8, 16, 16)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 512 * 3),
        ("AveragePool", [(1, 8, 16, 16)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 512 * 4),
        ("GlobalAveragePool", [(1, 8, 16, 16)], {}, 8 * 256),
        ("Softmax", [(2, 10)], {}, 7 * 20),
        ("LayerNormalization", [(2, 10), (10,)], {}, 8 * 20),
        ("ReduceMean", [(2, 10)], {}, 20),
        ("Add", [(2, 10), (10,)], {}, 20),
        ("Gelu", [(2, 10)], {}, 12 * 20),
        ("Transpose", [(2, 10)], {"perm": [1, 0]}, 0),
        ("TopK", [(2, 16)], {}, 32 * 4),
    ],
)  # fmt: skip
def test_an_operator_costs_what_its_formula_says(
    tmp_path: Path,
    operator: str,
    shapes: list[tuple[int, ...]],
    attributes: dict[str, Any],
    flop: float,
) -> None:
    inputs = {f"x{number}": shape for number, shape in enumerate(shapes)}
    weights = [_known("k", [3])] if operator == "TopK" else []
    assert _one(tmp_path, operator, inputs, weights, **attributes).flop == flop


def test_an_lstm_reads_its_weights_once_for_all_steps(tmp_path: Path) -> None:
    weights = [_weight("w", 2, 4 * 8, 16), _weight("r", 2, 4 * 8, 8)]
    layer = _one(
        tmp_path, "LSTM", {"x": (5, 3, 16)}, weights, hidden_size=8, direction="bidirectional"
    )
    assert layer.weight_bytes == 4 * (2 * 32 * 16 + 2 * 32 * 8)
    assert layer.flop == 2 * 5 * 3 * (2 * 4 * 8 * (16 + 8) + 30 * 8)


def test_resizing_costs_what_its_mode_says(tmp_path: Path) -> None:
    weights = [_known("roi", [], np.float32), _known("by", [1, 1, 2, 2], np.float32)]
    costs = [
        _one(tmp_path, "Resize", {"x": (1, 4, 8, 8)}, weights, mode=mode).flop / (4 * 256)
        for mode in ("nearest", "linear", "cubic")
    ]
    assert costs == [0, 8, 35]


def test_of_a_table_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "tokens"], ["out"])
    work = _count(
        _model([node], [_weight("table", 30000, 64)], {"tokens": ("n", 7)}, INT64), tmp_path
    )
    assert work.bytes == 8 * 7 + 2 * 4 * 7 * 64


def test_half_precision_is_seen_in_the_file_and_can_be_assumed(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["out"])
    single = _model([node], [_weight("w", 8, 8)], {"x": (1, 8)})
    half = _model([node], [_weight("w", 8, 8, kind=HALF)], {"x": (1, 8)}, HALF)
    work = _count(half, tmp_path)
    assert (work.precision, work.bytes) == ("fp16", 2 * (8 + 8 + 64))
    assert _count(single, tmp_path, precision="fp16").bytes == work.bytes


# Quantised files ---------------------------------------------------------------------------


def _quantised() -> Any:
    """A convolution between QuantizeLinear and DequantizeLinear, as calibrators write it."""
    scale = _known("s", 0.1, np.float32)
    zero = _known("z", 0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        helper.make_node("MaxPool", ["rd"], ["out"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weight = _weight("wq", 64, 32, 1, 1, kind=INT8)
    return _model(nodes, [weight, scale, zero], {"x": ("n", 32, 16, 16)})


def test_fused_a_quantised_convolution_moves_and_multiplies_bytes(tmp_path: Path) -> None:
    work = _count(_quantised(), tmp_path)
    quantise, convolution, pool = work.layers
    assert quantise.operator == "quantize"
    assert convolution.operator == "convolution+relu+quantize"
    assert convolution.precision == "int8"
    assert convolution.bytes_read == 32 * 256
    assert convolution.bytes_written == 64 * 256
    assert convolution.weight_bytes == pytest.approx(64 * 32, abs=16)
    assert pool.bytes_read == 64 * 256


def test_unfused_a_quantised_file_is_run_as_it_is_written(tmp_path: Path) -> None:
    fused, apart = (_count(_quantised(), tmp_path, fused=f) for f in (True, False))
    assert apart.bytes > 4 * fused.bytes
    assert [layer.precision for layer in apart.layers if layer.unit == "matmul"] == ["fp32"]


def test_operators_on_integers_are_counted_as_such(tmp_path: Path) -> None:
    scales = [_known(name, 0.1, np.float32) for name in ("s1", "s2", "s3")]
    zeros = [_known(name, 0, np.int8) for name in ("z1", "z2", "z3")]
    weight = _weight("w", 8, 3, 1, 1, kind=INT8)
    names = ["x", "s1", "z1", "w", "s2", "z2", "s3", "z3"]
    nodes = [
        helper.make_node("QLinearConv", names, ["c"]),
        helper.make_node(
            "QLinearAdd", ["c", "s1", "z1", "c", "s2", "z2", "s3", "z3"], ["a"],
            domain="com.microsoft",
        ),
        helper.make_node(
            "QLinearGlobalAveragePool", ["a", "s1", "z1", "s2", "z2"], ["out"],
            domain="com.microsoft",
        ),
    ]  # fmt: skip
    model = _model(
        nodes, [weight, *scales, *zeros], {"x": (1, 3, 8, 8)}, INT8, domain="com.microsoft"
    )
    work = _count(model, tmp_path)
    assert not work.unknown
    convolution, pool = work.layers
    assert (convolution.precision, convolution.flop) == ("int8", 2 * 512 * 3 + 512)
    assert pool.bytes_written == 8


# Shapes ------------------------------------------------------------------------------------


def test_a_chain_of_shape_arithmetic_is_followed_and_costs_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["out"]),
    ]
    weights = [_known("zero", [0]), _known("rest", [-1]), _weight("w", 48, 10)]
    work = _count(_model(nodes, weights, {"x": ("n", 3, 4, 4)}), tmp_path, batch_size=3)
    (layer,) = work.layers
    assert layer.flop == 2 * 3 * 48 * 10


def test_a_fixed_batch_is_counted_and_scaled(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["out"])
    fixed, free = (
        _count(_model([node], [_weight("w", 8, 8)], {"x": (n, 8)}), tmp_path, batch_size=6)
        for n in (2, "n")
    )
    assert (fixed.batch_size, fixed.flop, fixed.bytes) == (6, free.flop, free.bytes)


def test_other_dynamic_dimensions_are_taken_from_the_shape_of_one_item(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["out"])
    model = _model([node], [], {"x": ("n", 3, "height", "width")})
    assert _count(model, tmp_path, item_shape=(3, 32, 48)).flop == 3 * 32 * 48
    with pytest.raises(InputError, match=r"dimension 2 \(height\) of input x is dynamic"):
        _count(model, tmp_path)


def test_the_branch_that_the_file_itself_decides_is_counted(tmp_path: Path) -> None:
    def branch(operator: str) -> Any:
        node = helper.make_node(operator, ["x"], [operator])
        return helper.make_graph(
            [node], operator, [], [helper.make_empty_tensor_value_info(operator)]
        )

    node = helper.make_node(
        "If", ["yes"], ["out"], then_branch=branch("Sigmoid"), else_branch=branch("Relu")
    )
    model = _model([node], [_known("yes", True, np.bool_)], {"x": (1, 8)})
    assert [layer.operator for layer in _count(model, tmp_path).layers] == ["sigmoid"]


# Whole networks ----------------------------------------------------------------------------


def test_an_operator_without_a_rule_is_named_with_its_share(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mystery", ["r"], ["out"], domain="my.own"),
    ]
    (unknown,) = _count(_model(nodes, [], {"x": (1, 64)}, domain="my.own"), tmp_path).unknown
    assert (unknown.operator, unknown.count) == ("Mystery", 1)
    assert np.isnan(unknown.share)


def test_what_only_the_data_decides_is_named_as_unknown(tmp_path: Path) -> None:
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["out"])
    model = _model([node], [], {"boxes": (1, 100, 4), "scores": (1, 80, 100)})
    assert [u.operator for u in _count(model, tmp_path).unknown] == ["NonMaxSuppression"]


def test_a_decomposed_layer_norm_reads_its_input_once_when_fused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "axes"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["out"]),
    ]
    weights = [_known("axes", [-1]), _known("two", 2.0, np.float32)]
    work = _count(_model(nodes, weights, {"x": (2, 16, 64)}), tmp_path)
    (layer,) = work.layers
    assert layer.bytes_read == layer.bytes_written == 4 * 2 * 16 * 64


OPERATORS = st.lists(st.sampled_from(["Relu", "Sigmoid", "Conv", "Softmax", "Add", "Concat"]),
                     min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=40)
@given(operators=OPERATORS, batch=st.integers(1, 4), other=st.integers(1, 4))
def test_fusing_never_moves_more_and_work_is_linear_in_the_batch(
    tmp_path_factory: pytest.TempPathFactory, operators: list[str], batch: int, other: int
) -> None:
    nodes, weights, value, channels = [], [], "x", 4
    for number, operator in enumerate(operators):
        inputs, out, attributes = [value], f"v{number}", {}
        if operator == "Conv":
            weights.append(_weight(f"w{number}", 4, channels, 1, 1))
            inputs, channels = [value, f"w{number}"], 4
        elif operator in ("Add", "Concat"):
            # A neighbour of the same shape, made by a kernel of its own.
            nodes.append(helper.make_node("Sigmoid", [value], [f"n{number}"]))
            inputs = [value, f"n{number}"]
            if operator == "Concat":
                attributes, channels = {"axis": 1}, 2 * channels
        nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        value = out
    model = _model(nodes, weights, {"x": ("n", 4, 8, 8)})
    folder = tmp_path_factory.mktemp("onnx")
    fused, apart = (_count(model, folder, batch_size=batch, fused=f) for f in (True, False))
    assert fused.bytes <= apart.bytes
    assert fused.flop == apart.flop
    assert all(layer.flop >= 0 and layer.bytes >= 0 for layer in (*fused.layers, *apart.layers))
    again = _count(model, folder, batch_size=other)
    assert fused.scaled(other).flop == again.flop
    assert fused.scaled(other).bytes == again.bytes


# What cannot be counted ---------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00\x01 no model", b"<html></html>"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.onnx: .*export the model again"):
        count_work(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        count_work(tmp_path / "missing.onnx")


def test_an_input_without_a_shape_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["out"])
    model = _model([node], [], {"x": (1,)})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InputError, match="input x has no shape"):
        _count(model, tmp_path)


def test_training_is_not_counted_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count training from PyTorch"):
        count_work(tmp_path / "net.onnx", training=True)


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("governor.roofline.")]:
        if name.endswith(("work_onnx", "onnx_graph")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"energy-governor\[onnx\]"):
        count_work(tmp_path / "net.onnx")
