"""What a network's counted work promises."""

from __future__ import annotations

import pytest

from governor.errors import InputError
from governor.roofline.work import Layer, Work


def _work() -> Work:
    conv = Layer(
        name="conv", operator="convolution", flop=600, bytes_read=40, bytes_written=60,
        weight_bytes=50, unit="matmul",
    )  # fmt: skip
    step = Layer(
        name="conv", operator="sgd", flop=20, bytes_read=0, bytes_written=0, weight_bytes=150,
        once=True,
    )  # fmt: skip
    return Work(name="n", layers=(conv, step), batch_size=2, precision="fp32", training=True)


def test_totals_are_the_layers_sums() -> None:
    work = _work()
    assert (work.flop, work.bytes, work.weight_bytes, work.kernels) == (620, 300, 200, 2)
    assert work.intensity == pytest.approx(620 / 300)


def test_a_larger_batch_moves_its_weights_once_all_the_same() -> None:
    work = _work().scaled(4)
    assert work.batch_size == 4
    assert work.flop == 2 * 600 + 20
    assert work.bytes == 2 * (40 + 60) + 200


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_a_batch_is_a_whole_number_of_items(batch_size: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        _work().scaled(batch_size)


def test_an_unknown_precision_is_refused_by_naming_those_known() -> None:
    with pytest.raises(InputError, match="fp32, tf32"):
        Work(name="n", layers=(), batch_size=1, precision="fp12")
