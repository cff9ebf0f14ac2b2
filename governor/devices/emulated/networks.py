"""What a network asks of the hardware: its operations, from the arithmetic of its architecture.

Counting, per item (the convention of Pagoda, arXiv 2509.20189, ``estimates.py``): a convolution
is ``2 * out * (c_in / groups) * k * k + out`` FLOP, a linear layer ``2 * in * out`` per token;
activations 1 (ReLU), 4 (sigmoid), 5 (SiLU, hard swish), 7 (softmax) or 8 (GELU) FLOP an
element; normalisation 2, addition 1; pooling ``k * k - 1``. Sizes are counted in elements;
the precision turns them into bytes. Each operation reads its inputs and its weights once and
writes its output once; weights are read once a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "winograd", "depthwise", "gemm", "memory", "probe"]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a network, per item.

    Attributes:
        kind: which of the framework's efficiencies applies. ``winograd`` is a dense 3 x 3
            convolution of stride 1 over at least 32 channels, which libraries compute with fewer
            multiplications than counted; ``memory`` hardly computes; a ``probe`` is a
            microbenchmark, which reaches the peak.
        flops: floating-point operations.
        reads, writes: activation elements moved, weights apart.
        weights: weight elements, read once a batch.
        width: the smaller of a product's input and output channels: narrow ones fill the
            arithmetic units badly. Infinite where that does not apply.
        fuses: a compiler can run this with the operation that feeds it (normalisation,
            activation, residual addition).
        folds: it vanishes into the weights of what feeds it (normalisation after a convolution).
    """

    kind: Kind
    flops: float
    reads: float
    writes: float
    weights: float = 0.0
    width: float = math.inf
    fuses: bool = False
    folds: bool = False


class _Net:
    """Collects operations while it follows the shape of the feature map."""

    def __init__(self, channels: int, size: int) -> None:
        self.channels, self.size = channels, size
        self.ops: list[Op] = []

    @property
    def elements(self) -> float:
        return float(self.channels * self.size * self.size)

    def conv(
        self, out: int, k: int = 3, stride: int = 1, groups: int = 1, pad: int | None = None
    ) -> _Net:
        """A convolution, with ``same`` padding unless ``pad`` is given."""
        before, fan_in = self.elements, self.channels // groups * k * k
        padding = k // 2 if pad is None else pad
        self.size = (self.size + 2 * padding - k) // stride + 1
        weights = out * fan_in + out
        depthwise = groups == self.channels and groups > 1
        width = math.inf if depthwise else min(self.channels // groups, out)
        self.channels = out
        flops = 2 * self.elements * fan_in + self.elements
        kind: Kind = "depthwise" if depthwise else "conv"
        if (k, stride, groups) == (3, 1, 1) and fan_in >= 32 * k * k:
            kind = "winograd"
        self.ops.append(Op(kind, flops, before, self.elements, weights, width))
        return self

    def norm(self, folds: bool = True) -> _Net:
        e = self.elements
        self.ops.append(Op("memory", 2 * e, e, e, fuses=True, folds=folds))
        return self

    def act(self, flops: int = 1) -> _Net:
        e = self.elements
        self.ops.append(Op("memory", flops * e, e, e, fuses=True))
        return self

    def add(self) -> _Net:
        e = self.elements
        self.ops.append(Op("memory", e, 2 * e, e, fuses=True))
        return self

    def cba(self, out: int, k: int = 3, stride: int = 1, groups: int = 1, flops: int = 1) -> _Net:
        """Convolution, normalisation, activation."""
        return self.conv(out, k, stride, groups).norm().act(flops)

    def pool(self, k: int, stride: int, pad: int = 0) -> _Net:
        before = self.elements
        self.size = (self.size + 2 * pad - k) // stride + 1
        self.ops.append(Op("memory", self.elements * (k * k - 1), before, self.elements))
        return self

    def global_pool(self) -> _Net:
        before = self.elements
        self.size = 1
        self.ops.append(Op("memory", before, before, self.elements))
        return self

    def move(self, channels: int | None = None, scale: float = 1) -> _Net:
        """Concatenate, split or resize: only bytes. The result has ``channels``, if given."""
        self.channels = channels or self.channels
        self.size = int(self.size * scale)
        self.ops.append(Op("memory", 0.0, self.elements / scale**2, self.elements))
        return self

    def linear(self, out: int, inputs: int | None = None) -> _Net:
        fan_in = inputs or int(self.elements)
        weights = fan_in * out + out
        self.ops.append(Op("gemm", 2.0 * fan_in * out, fan_in, out, weights, min(fan_in, out)))
        self.channels, self.size = out, 1
        return self

    def at(self, channels: int, size: int) -> _Net:
        """Continue from another branch of this shape."""
        self.channels, self.size = channels, size
        return self


def _resnet(blocks: Sequence[int], bottleneck: bool) -> list[Op]:
    """He et al. 2015, 224 x 224, with the stride in the 3 x 3 convolution (torchvision)."""
    net = _Net(3, 224).cba(64, 7, 2).pool(3, 2, 1)
    expand = 4 if bottleneck else 1
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            entry = (net.channels, net.size)
            if bottleneck:
                net.cba(width, 1).cba(width, 3, stride).conv(4 * width, 1).norm()
            else:
                net.cba(width, 3, stride).conv(width, 3).norm()
            out = (net.channels, net.size)
            if entry[0] != width * expand:
                net.at(*entry).conv(width * expand, 1, stride).norm()
            net.at(*out).add().act()
    return net.global_pool().linear(1000).ops


def _vgg(stages: Sequence[int]) -> list[Op]:
    """Simonyan and Zisserman 2014, 224 x 224."""
    net = _Net(3, 224)
    for stage, count in enumerate(stages):
        for _ in range(count):
            net.conv(min(64 << stage, 512)).act()
        net.pool(2, 2)
    return net.linear(4096).act().linear(4096).act().linear(1000).ops


def _alexnet() -> list[Op]:
    """Krizhevsky 2014 (torchvision's one-column form), 224 x 224."""
    net = _Net(3, 224).conv(64, 11, 4, pad=2).act().pool(3, 2).conv(192, 5).act().pool(3, 2)
    net.conv(384).act().conv(256).act().conv(256).act().pool(3, 2)
    return net.linear(4096).act().linear(4096).act().linear(1000).ops


def _mobilenet_v2() -> list[Op]:
    """Sandler et al. 2018, 224 x 224, width 1."""
    net = _Net(3, 224).cba(32, 3, 2)
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for expand, out, repeats, first in plan:
        for repeat in range(repeats):
            stride = first if not repeat else 1
            entry, hidden = net.channels, net.channels * expand
            if expand > 1:
                net.cba(hidden, 1)
            net.cba(hidden, 3, stride, hidden).conv(out, 1).norm()
            if stride == 1 and entry == out:
                net.add()
    return net.cba(1280, 1).global_pool().linear(1000).ops


def _mobilenet_v3() -> list[Op]:
    """Howard et al. 2019, MobileNetV3-Large, 224 x 224."""
    net = _Net(3, 224).cba(16, 3, 2, flops=5)
    plan = ((3, 16, 16, 0, 1, 1), (3, 64, 24, 0, 1, 2), (3, 72, 24, 0, 1, 1), (5, 72, 40, 1, 1, 2),
            (5, 120, 40, 1, 1, 1), (5, 120, 40, 1, 1, 1), (3, 240, 80, 0, 5, 2),
            (3, 200, 80, 0, 5, 1), (3, 184, 80, 0, 5, 1), (3, 184, 80, 0, 5, 1),
            (3, 480, 112, 1, 5, 1), (3, 672, 112, 1, 5, 1), (5, 672, 160, 1, 5, 2),
            (5, 960, 160, 1, 5, 1), (5, 960, 160, 1, 5, 1))  # fmt: skip
    for k, hidden, out, squeeze, flops, stride in plan:
        entry = net.channels
        if hidden != entry:
            net.cba(hidden, 1, flops=flops)
        net.cba(hidden, k, stride, hidden, flops)
        if squeeze:
            shape = (net.channels, net.size)
            net.global_pool().conv(hidden // 4, 1).act().conv(hidden, 1).act(4)
            net.at(*shape).add()
        net.conv(out, 1).norm()
        if stride == 1 and entry == out:
            net.add()
    return net.cba(960, 1, flops=5).global_pool().linear(1280).act(5).linear(1000).ops


def _squeezenet() -> list[Op]:
    """Iandola et al. 2016, SqueezeNet 1.1, 224 x 224."""
    net = _Net(3, 224).conv(64, 3, 2, pad=0).act().pool(3, 2)
    plan = ((16, 0), (16, 1), (32, 0), (32, 1), (48, 0), (48, 0), (64, 0), (64, 0))
    for squeeze, pooled in plan:
        expand = 4 * squeeze
        net.conv(squeeze, 1).act()
        shape = (net.channels, net.size)
        net.conv(expand, 1).act().at(*shape).conv(expand, 3).act().move(2 * expand)
        if pooled:
            net.pool(3, 2)
    return net.conv(1000, 1).act().global_pool().ops


def _c2f(net: _Net, out: int, repeats: int, shortcut: bool) -> None:
    """The C2f block of YOLOv8: half the channels pass through ``repeats`` bottlenecks."""
    half, size = out // 2, net.size
    net.cba(out, 1, flops=5).move()
    for _ in range(repeats):
        net.at(half, size).cba(half, 3, flops=5).cba(half, 3, flops=5)
        if shortcut:
            net.add()
    net.at((2 + repeats) * half, size).move().cba(out, 1, flops=5)


def _yolov8n(size: int = 640) -> list[Op]:
    """Ultralytics YOLOv8n: depth 0.33, width 0.25, 80 classes."""
    net = _Net(3, size).cba(16, 3, 2, flops=5).cba(32, 3, 2, flops=5)
    _c2f(net, 32, 1, True)
    for out, repeats in ((64, 2), (128, 2), (256, 1)):
        net.cba(out, 3, 2, flops=5)
        _c2f(net, out, repeats, True)
    p3, p4, p5 = size // 8, size // 16, size // 32
    net.cba(128, 1, flops=5)
    for _ in range(3):
        net.pool(5, 1, 2)
    net.move(512).cba(256, 1, flops=5).move(scale=2).move(384)
    _c2f(net, 128, 1, False)
    net.move(scale=2).move(192)
    _c2f(net, 64, 1, False)
    net.cba(64, 3, 2, flops=5).move(192)
    _c2f(net, 128, 1, False)
    net.cba(128, 3, 2, flops=5).move(384)
    _c2f(net, 256, 1, False)
    for channels, cells in ((64, p3), (128, p4), (256, p5)):
        net.at(channels, cells).cba(64, flops=5).cba(64, flops=5).conv(64, 1)
        net.at(channels, cells).cba(80, flops=5).cba(80, flops=5).conv(80, 1).move(144)
    anchors = p3 * p3 + p4 * p4 + p5 * p5
    for channels, flops in ((144, 0), (64, 7), (64, 1), (4, 4), (4, 4), (80, 4), (84, 0)):
        e = float(channels * anchors)
        net.ops.append(Op("memory", flops * e, e, e))
    return net.ops


def _yolo_tiny(v4: bool) -> list[Op]:
    """Darknet's YOLOv3-tiny and YOLOv4-tiny, 416 x 416, 80 classes."""
    if v4:
        net = _Net(3, 416).cba(32, 3, 2).cba(64, 3, 2)
        for width in (64, 128, 256):
            half = width // 2
            net.cba(width).move(half).cba(half).cba(half).move(width).cba(width, 1)
            net.move(2 * width).pool(2, 2)
        net.cba(512)
    else:
        net = _Net(3, 416)
        for width in (16, 32, 64, 128, 256):
            net.cba(width).pool(2, 2)
        net.cba(512).cba(1024)
    net.cba(256, 1)
    net.cba(512).conv(255, 1)
    net.at(256, 13).cba(128, 1).move(scale=2).move(384).cba(256).conv(255, 1)
    return net.ops


def _inception_v4() -> list[Op]:
    """Szegedy et al. 2016, 299 x 299; n x 1 and 1 x n pairs counted as such."""
    net = _Net(3, 299).conv(32, 3, 2, pad=0).act().conv(32, 3, pad=0).act().cba(64)
    net.pool(3, 2).at(64, 147).conv(96, 3, 2, pad=0).act().move(160)
    entry = (160, 73)
    net.at(*entry).cba(64, 1).conv(96, pad=0).act()
    net.at(*entry).cba(64, 1)
    _line(net, 64, 7)
    _line(net, 64, 7)
    net.conv(96, pad=0).act().move(192).conv(192, 3, 2, pad=0).act().at(384, 35).move()
    for _ in range(4):
        _branches(net, 384, 35, ((96,), (96,), (64, (3, 96)), (64, (3, 96), (3, 96))))
    net.at(384, 35).conv(384, 3, 2, pad=0).act().at(384, 35).cba(192, 1).cba(224)
    net.conv(256, 3, 2, pad=0).act().at(1024, 17).move()
    for _ in range(7):
        _branches(net, 1024, 17, ((128,), (384,), (192, (-7, 224), (-7, 256)),
                                  (192, (-7, 192), (-7, 224), (-7, 224), (-7, 256))))  # fmt: skip
    net.at(1024, 17).cba(192, 1).conv(192, 3, 2, pad=0).act().at(1024, 17).cba(256, 1)
    _line(net, 256, 7)
    _line(net, 320, 7)
    net.conv(320, 3, 2, pad=0).act().at(1536, 8).move()
    for _ in range(3):
        _branches(net, 1536, 8, ((256,), (256,), (384, (-3, 256)), (384, (-3, 256)),
                                 (384, (-3, 448), (-3, 512), (-3, 256))))  # fmt: skip
    return net.at(1536, 8).global_pool().linear(1000).ops


def _line(net: _Net, out: int, k: int) -> None:
    """A 1 x k (or k x 1) convolution with its activation."""
    before, fan_in, width = net.elements, net.channels * k, min(net.channels, out)
    net.channels = out
    e = net.elements
    net.ops.append(Op("conv", (2 * fan_in + 1) * e, before, e, out * fan_in + out, width))
    net.act()


def _branches(
    net: _Net, channels: int, size: int, branches: Sequence[tuple[int | tuple[int, int], ...]]
) -> None:
    """Parallel branches from one input: 1 x 1 widths, then (k, width); -k is a 1 x k line."""
    for branch in branches:
        net.at(channels, size)
        for step in branch:
            if isinstance(step, int):
                net.cba(step, 1)
            elif step[0] < 0:
                _line(net, step[1], -step[0])
            else:
                net.cba(step[1], step[0])
    net.at(channels, size).move()


def _transformer(layers: int, width: int, tokens: int, vocabulary: int, heads: int) -> list[Op]:
    """An encoder: per layer four projections, two attention products, a 4x feed-forward."""
    ops: list[Op] = []
    e, scores = float(tokens * width), float(heads * tokens * tokens)

    def linear(fan_in: int, fan_out: int) -> Op:
        flops, weights = 2.0 * tokens * fan_in * fan_out, fan_in * fan_out + fan_out
        width = min(fan_in, fan_out)
        return Op("gemm", flops, tokens * fan_in, tokens * fan_out, weights, width)

    def elementwise(flops: float, elements: float, inputs: int = 1) -> Op:
        return Op("memory", flops * elements, inputs * elements, elements, fuses=True)

    if vocabulary:
        ops += [Op("memory", e, e, e), elementwise(1, e, 2), elementwise(5, e)]
    flops = 2.0 * tokens * tokens * width
    product = Op("gemm", flops, 2 * e, scores, width=width // heads)
    weighted = Op("gemm", flops, scores + e, e, width=width // heads)
    layout = Op("memory", 0.0, e, e)
    for _ in range(layers):
        ops += [linear(width, width), linear(width, width), linear(width, width), layout, layout]
        ops += [product, elementwise(1, scores), elementwise(7, scores), weighted, layout]
        ops += [linear(width, width), elementwise(1, e, 2), elementwise(5, e)]
        ops += [linear(width, 4 * width), elementwise(8, 4 * e), linear(4 * width, width)]
        ops += [elementwise(1, e, 2), elementwise(5, e)]
    return ops


def _vit_s16() -> list[Op]:
    """Dosovitskiy et al. 2020 / DeiT-S: 12 layers, width 384, 6 heads, 197 tokens."""
    patches = _Net(3, 224).conv(384, 16, 16, pad=0).ops
    return [*patches, *_transformer(12, 384, 197, 0, 6), Op("gemm", 768e3, 384, 1000, 385e3)]


def _gemv() -> list[Op]:
    """12 matrix-vector products of 4096 x 4096: the memory probe of jetson-latency-lab."""
    return [Op("gemm", 2 * 4096.0**2, 4096, 4096, 4096.0**2)] * 12


def _gemm() -> list[Op]:
    """64 products of 1024 x 1024 x 1024: the compute probe of jetson-latency-lab."""
    return [Op("gemm", 2 * 1024.0**3, 1024.0**2, 1024.0**2, 1024.0**2)] * 64


NETWORKS: dict[str, Callable[[], list[Op]]] = {
    "yolov8n": _yolov8n,
    "yolov8n-320": lambda: _yolov8n(320),
    "yolov4-tiny": lambda: _yolo_tiny(v4=True),
    "yolov3-tiny": lambda: _yolo_tiny(v4=False),
    "mobilenet-v2": _mobilenet_v2,
    "mobilenet-v3": _mobilenet_v3,
    "squeezenet": _squeezenet,
    "alexnet": _alexnet,
    "resnet-18": lambda: _resnet((2, 2, 2, 2), bottleneck=False),
    "resnet-34": lambda: _resnet((3, 4, 6, 3), bottleneck=False),
    "resnet-50": lambda: _resnet((3, 4, 6, 3), bottleneck=True),
    "resnet-101": lambda: _resnet((3, 4, 23, 3), bottleneck=True),
    "vgg11": lambda: _vgg((1, 1, 2, 2, 2)),
    "vgg16": lambda: _vgg((2, 2, 3, 3, 3)),
    "vgg19": lambda: _vgg((2, 2, 4, 4, 4)),
    "inception-v4": _inception_v4,
    "vit-s16": _vit_s16,
    "bert-tiny": lambda: _transformer(2, 128, 128, 30522, 2),
    "distilbert": lambda: _transformer(6, 768, 128, 30522, 12),
    "bert-large": lambda: _transformer(24, 1024, 128, 30522, 16),
    "gemv-probe": _gemv,
    "gemm-probe": _gemm,
}
"""Every network that can be emulated, by name."""
