"""Compare what is counted here with what others have published."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, cast

from pydantic import BaseModel

from governor.roofline.counting import count_work
from governor.roofline.work import Layer, Work
from governor.workloads import load_workload

if TYPE_CHECKING or sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRODUCTS = ("addmm", "attention", "bmm", "convolution", "mm", "recurrent")
"""The operators that torchvision, fvcore, Ultralytics and Darknet count."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One published figure, or the same one for several batch sizes, and its count here.

    Attributes:
        quantity: ``FLOP`` or ``bytes``.
        batch_size: at which the two are furthest apart.
        batch_sizes: how many were compared.
        rounded_to: what the published figure is rounded to.
        why: what the difference comes from; empty where there is none beyond rounding.
    """

    network: str
    source: str
    quantity: str
    batch_size: int
    batch_sizes: int
    published: float
    counted: float
    rounded_to: float
    why: str

    @property
    def difference(self) -> float:
        """Relative; 0 where the count rounds to the published figure."""
        if abs(self.counted - self.published) <= self.rounded_to / 2:
            return 0.0
        return self.counted / self.published - 1


class _Network(BaseModel):
    name: str
    flop: list[int]
    bytes: list[int]
    why: str = ""


class _Pagoda(BaseModel):
    source: str
    batch_sizes: list[int]
    network: list[_Network]


class _Products(BaseModel):
    name: str
    source: str
    flop: float
    rounded_to: float
    batch_norm: float = 0.0
    why: str = ""


class _Published(BaseModel):
    pagoda: _Pagoda
    products: list[_Products]


def compare_counts(networks: Sequence[str] = ()) -> Iterator[Comparison]:
    """Each published figure with its count here; only of some networks, if named.

    Raises:
        MissingExtraError: PyTorch or onnx is not installed.
    """
    published = _load(networks)
    for products in published.products:
        yield _compare_products(products)
    for network in published.pagoda.network:
        yield from _compare_pagoda(network, published.pagoda.batch_sizes)


def count_published(networks: Sequence[str] = ()) -> int:
    """How many figures :func:`compare_counts` compares."""
    published = _load(networks)
    return len(published.products) + 2 * len(published.pagoda.network)


def _load(networks: Sequence[str]) -> _Published:
    text = files("governor.roofline").joinpath("published_counts.toml").read_text("utf-8")
    published = _Published.model_validate(tomllib.loads(text))
    if networks:
        pagoda = published.pagoda
        pagoda.network = [each for each in pagoda.network if each.name in networks]
        published.products = [each for each in published.products if each.name in networks]
    return published


def _compare_products(published: _Products) -> Comparison:
    layers = count_work(published.name, fused=False).layers
    counted = sum(layer.flop for layer in layers if layer.operator in PRODUCTS)
    # Here a batch norm costs 2 FLOP an element.
    counted += (
        published.batch_norm
        / 2
        * sum(layer.flop for layer in layers if layer.operator == "batch_norm")
    )
    return Comparison(
        network=published.name,
        source=published.source,
        quantity="FLOP",
        batch_size=1,
        batch_sizes=1,
        published=published.flop,
        counted=counted,
        rounded_to=published.rounded_to,
        why=published.why,
    )


def _compare_pagoda(network: _Network, batch_sizes: Sequence[int]) -> Iterator[Comparison]:
    work = _counted_as_pagoda(network.name)
    quantities: tuple[tuple[str, list[int], Callable[[Work], float]], ...] = (
        ("FLOP", network.flop, lambda work: work.flop),
        ("bytes", network.bytes, lambda work: work.bytes),
    )
    for quantity, published, counted in quantities:
        rows = [
            Comparison(
                network=network.name,
                source="Pagoda",
                quantity=quantity,
                batch_size=batch_size,
                batch_sizes=len(batch_sizes),
                published=figure,
                counted=counted(work.scaled(batch_size)),
                rounded_to=0.0,
                why=network.why,
            )
            for batch_size, figure in zip(batch_sizes, published, strict=True)
        ]
        furthest = max(rows, key=lambda row: abs(row.difference))
        yield replace(furthest, why=furthest.why if furthest.difference else "")


def _counted_as_pagoda(name: str) -> Work:
    """By its rules; of a deep encoder two of the equal layers are exported and one repeated."""
    workload = load_workload(name)
    if workload.module != "bert":
        return count_work(name, rules="pagoda")
    depth, *rest = cast("tuple[int, ...]", workload.arguments)
    shallow = replace(workload, arguments=(2, *rest))
    import torch

    # Weights without values: drawing them takes longer than all the rest.
    with torch.device("meta"):
        module = shallow.build()
    work = count_work(module, shallow.example(), rules="pagoda")
    repeated = [layer for layer in work.layers if layer.name.startswith("/layers.1/")]
    deeper = [_named(layer, number) for number in range(2, depth) for layer in repeated]
    return replace(work, name=name, layers=(*work.layers, *deeper))


def _named(layer: Layer, number: int) -> Layer:
    return replace(layer, name=layer.name.replace("/layers.1/", f"/layers.{number}/", 1))


def markdown(rows: Sequence[Comparison]) -> str:
    """The rows as a table, as in docs/work.md."""
    lines = [
        "| network | published by | what | batch | published | counted here | difference |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        batch = f"{row.batch_size}" if row.batch_sizes == 1 else f"1 to 1024 ({row.batch_size})"
        difference = f"{100 * row.difference:+.2g} %" if row.difference else "none"
        lines.append(
            f"| {row.network} | {row.source} | {row.quantity} | {batch} "
            f"| {_figure(row.published, row.rounded_to)} | {_figure(row.counted, 0)} "
            f"| {difference}{': ' + row.why if row.why else ''} |"
        )
    return "\n".join(lines)


def _figure(value: float, rounded_to: float) -> str:
    return f"{value / 1e9:,.3f} G" if rounded_to else f"{value:,.0f}"
