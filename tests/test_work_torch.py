"""Counting a PyTorch module at its dispatcher."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.errors import InputError
from governor.roofline.counting import count_work
from governor.roofline.work import Work

torch = pytest.importorskip("torch", reason="python -m pip install torch==2.13.0")
nn = torch.nn


def _block() -> Any:
    """Convolution, batch norm, ReLU: 3 x 8 x 8 to 4 x 8 x 8."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())


IN, OUT, WEIGHT = 4 * 3 * 64, 4 * 4 * 64, 4 * 4 * 3 * 9
"""Bytes of one item of :func:`_block`'s input and output, and of its filters."""
NORM = 4 * 4 * 4
"""Scale, shift, mean and variance of four channels."""


def test_unfused_every_operation_reads_and_writes_memory() -> None:
    work = count_work(_block(), batch_size=2, item_shape=(3, 8, 8), fused=False)
    assert work.kernels == 3
    assert work.bytes == 2 * (IN + OUT) + 2 * 2 * 2 * OUT + WEIGHT + NORM
    assert work.flop == 2 * (2 * 256 * 27 + 2 * 256 + 256)


def test_fused_normalisation_and_activation_move_nothing_of_their_own() -> None:
    work = count_work(_block(), batch_size=2, item_shape=(3, 8, 8))
    (layer,) = work.layers
    assert layer.operator == "convolution+batch_norm+relu"
    assert layer.unit == "matmul"
    assert work.bytes == 2 * (IN + OUT) + WEIGHT + NORM
    assert work.flop == count_work(_block(), item_shape=(3, 8, 8), batch_size=2, fused=False).flop


def test_a_residual_is_read_once_and_added_within_the_kernel_before_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return (x + self.second(x)).relu()

    work = count_work(Residual(), item_shape=(4, 8, 8))
    assert [layer.operator for layer in work.layers] == ["convolution", "convolution+add+relu"]
    assert work.layers[1].bytes_read == OUT
    assert work.layers[1].bytes_written == OUT


def test_concatenated_halves_are_written_where_they_are_read() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(8, 4, 1)

        def forward(self, x: Any) -> Any:
            return self.last(torch.cat((self.left(x), self.right(x)), dim=1))

    work = count_work(Joined(), item_shape=(3, 8, 8))
    assert [layer.name for layer in work.layers] == ["left", "right", "last"]
    assert work.layers[2].bytes_read == 2 * OUT
    apart = count_work(Joined(), item_shape=(3, 8, 8), fused=False)
    assert apart.bytes - work.bytes == 4 * OUT


def test_layers_are_named_by_their_module_path() -> None:
    net = nn.Sequential(_block(), nn.Flatten(), nn.Linear(256, 5))
    work = count_work(net, item_shape=(3, 8, 8), fused=False)
    assert [layer.name for layer in work.layers] == ["0.0", "0.1", "0.2", "2"]


def test_weights_used_at_every_step_are_read_once_a_batch() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(8, 8, bias=False)

        def forward(self, x: Any) -> Any:
            for _ in range(5):
                x = self.cell(x)
            return x

    assert count_work(Steps(), item_shape=(8,)).weight_bytes == 4 * 64


def test_precision_halves_every_floating_point_byte_and_no_token() -> None:
    net = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8, bias=False))
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    single, half = (count_work(net, tokens, precision=p) for p in ("fp32", "fp16"))
    assert single.flop == half.flop
    assert single.bytes - 48 == 2 * (half.bytes - 48)
    assert {layer.precision for layer in half.layers} == {"fp16"}


def test_a_module_in_half_precision_is_counted_as_such() -> None:
    assert count_work(nn.Linear(8, 8).half(), item_shape=(8,)).precision == "fp16"


def test_a_training_step_is_forward_backward_and_update() -> None:
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64, bias=False))
    inference, training = (
        count_work(net, item_shape=(64,), batch_size=16, training=t) for t in (False, True)
    )
    products = [layer.flop for layer in training.layers if layer.unit == "matmul"]
    # Two products forward; backward two for the weights, and one for the inner input.
    assert sum(products) == pytest.approx(5 / 2 * inference.flop, rel=0.05)
    update = training.layers[-1]
    weights = 4 * 2 * 64 * 64
    assert (update.operator, update.once) == ("fused_sgd", True)
    # Weights, gradients and momentum are read; weights and momentum are written.
    assert update.weight_bytes == 5 * weights


def test_adam_moves_one_more_moment_than_sgd() -> None:
    net = nn.Linear(64, 64, bias=False)
    sgd, adam = (
        count_work(net, item_shape=(64,), training=True, optimizer=o) for o in ("sgd", "adam")
    )
    assert adam.bytes - sgd.bytes == pytest.approx(2 * 4 * 64 * 64, abs=64)


def test_attention_is_one_kernel_fused_and_two_products_unfused() -> None:
    class Attention(nn.Module):
        def forward(self, x: Any) -> Any:
            mask = x[:, :1, :1, :1] > 0
            return nn.functional.scaled_dot_product_attention(x, x, x, mask)

    fused, apart = (count_work(Attention(), item_shape=(2, 16, 8), fused=f) for f in (True, False))
    assert [layer.operator for layer in fused.layers] == ["gt+where", "attention"]
    assert [layer.operator for layer in apart.layers].count("bmm") == 2
    assert fused.flop == pytest.approx(apart.flop, rel=0.05)
    assert fused.bytes < apart.bytes / 2


def test_an_operator_without_a_rule_is_named_with_its_share() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.fft.rfft(x).abs()

    (unknown,) = count_work(Spectrum(), item_shape=(64,)).unknown
    assert (unknown.operator, unknown.count) == ("fft_r2c", 1)
    assert 0.5 < unknown.share < 1.0


def test_a_network_larger_than_memory_is_counted_all_the_same() -> None:
    with torch.device("meta"):
        net = nn.Linear(1_000_000, 1_000_000, bias=False)
    assert count_work(net, item_shape=(1_000_000,)).flop == 2e12


def test_the_module_is_left_as_it_was() -> None:
    net = _block().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    count_work(net, item_shape=(3, 8, 8), training=True)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def _net(widths: list[int], residual: bool, norm: bool) -> Any:
    layers: list[Any] = []
    channels = 3
    for width in widths:
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] * norm + [nn.SiLU()] * residual + [nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))


NETS = st.builds(_net, st.lists(st.integers(1, 9), max_size=3), st.booleans(), st.booleans())


@settings(max_examples=15)
@given(net=NETS, batch=st.integers(1, 5), other=st.integers(1, 5), training=st.booleans())
def test_scaling_to_another_batch_is_as_good_as_counting_again(
    net: Any, batch: int, other: int, training: bool
) -> None:
    def count(batch_size: int) -> Work:
        return count_work(net, item_shape=(3, 8, 8), batch_size=batch_size, training=training)

    scaled, again = count(batch).scaled(other), count(other)
    assert scaled.flop == pytest.approx(again.flop, abs=16)
    assert scaled.bytes == pytest.approx(again.bytes, abs=256)


@settings(max_examples=15)
@given(net=NETS, batch=st.integers(1, 5), training=st.booleans())
def test_nothing_is_negative_and_fusing_never_moves_more(
    net: Any, batch: int, training: bool
) -> None:
    fused, apart = (
        count_work(net, item_shape=(3, 8, 8), batch_size=batch, training=training, fused=f)
        for f in (True, False)
    )
    for layer in (*fused.layers, *apart.layers):
        assert min(layer.flop, layer.bytes_read, layer.bytes_written, layer.weight_bytes) >= 0
    assert fused.bytes <= apart.bytes
    assert fused.flop == apart.flop
    assert fused.kernels <= apart.kernels


# What cannot be counted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        ("resnet-51", {}, "no model that can be counted.*resnet-50"),
        ("nowhere:net", {}, "cannot be imported.*package.module:callable"),
        ("math:pi", {}, "float, which cannot be called"),
        ("math:tau.hex", {}, "not a torch.nn.Module"),
        ("torch.nn:Linear", {}, "failed with TypeError.*needs no arguments"),
        ("torch.nn:Identity", {}, "give an example input or the shape of one item"),
        ("alexnet", {"item_shape": (3, 0)}, "no positive whole number"),
        ("alexnet", {"item_shape": (4, 224, 224)}, "does not run.*1, 4, 224, 224"),
        ("alexnet", {"precision": "fp12"}, "unknown; use one of fp32"),
        ("alexnet", {"batch_size": 0}, "not a whole number of 1 or more"),
        ("alexnet", {"optimizer": "lion"}, "use sgd or adam"),
        ("torch.nn:ReLU", {"item_shape": (3,), "training": True}, "count its inference"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_saying_what_to_do(
    model: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        count_work(model, **arguments)


def test_a_module_that_looks_at_values_is_refused() -> None:
    class Peeks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum().item() > 0 else -x

    with pytest.raises(InputError, match=r"Peeks does not run.*DataDependent"):
        count_work(Peeks(), item_shape=(3,))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"energy-governor\[torch\]"):
        count_work("alexnet")


def test_a_tuple_of_inputs_is_resized_to_the_batch() -> None:
    net = nn.Bilinear(4, 5, 6)
    work = count_work(net, (torch.ones(1, 4), torch.ones(1, 5)), batch_size=3)
    assert work.batch_size == 3
    assert work.flop == count_work(net, (torch.ones(3, 4), torch.ones(3, 5))).flop
