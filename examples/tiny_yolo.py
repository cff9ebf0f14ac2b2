"""A small one-class-head detector of the YOLOv8 family in plain PyTorch, with random weights.

It has what makes such a network what it is to a governor: strided convolutions, split
residual blocks, pooled context, a two-scale head, box decoding and non-maximum suppression.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 8
STRIDES = (8, 16)


class Conv(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
        )


class Split(nn.Module):
    """Half of the channels pass, half go through a residual bottleneck; all are joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = Conv(channels, channels, 1)
        self.bottleneck = nn.Sequential(Conv(half, half), Conv(half, half))
        self.leave = Conv(3 * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = self.enter(x).chunk(2, dim=1)
        return self.leave(torch.cat((passed, worked, worked + self.bottleneck(worked)), dim=1))


class PooledContext(nn.Module):
    """The same map seen through ever larger windows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.leave = Conv(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.pool(x)
        return self.leave(torch.cat((x, once, self.pool(once)), dim=1))


class TinyYolo(nn.Module):
    """Images ``(n, 3, h, w)`` in 0..1, sides divisible by 16, to boxes ``(n, k, 4 + CLASSES)``.

    A row is a box as x1, y1, x2, y2 in pixels, then one score a class.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.near = nn.Sequential(
            Conv(3, w, stride=2),
            Conv(w, 2 * w, stride=2),
            Split(2 * w),
            Conv(2 * w, 4 * w, stride=2),
            Split(4 * w),
        )
        self.far = nn.Sequential(Conv(4 * w, 8 * w, stride=2), Split(8 * w), PooledContext(8 * w))
        self.up = nn.Sequential(Conv(8 * w, 4 * w, 1), nn.Upsample(scale_factor=2))
        self.heads = nn.ModuleList(
            nn.Conv2d(channels, 4 + CLASSES, 1) for channels in (4 * w, 8 * w)
        )

    def forward(self, images: Tensor) -> Tensor:
        near = self.near(images)
        far = self.far(near)
        maps = (near + self.up(far), far)
        found = [
            _decode(head(features), stride)
            for head, features, stride in zip(self.heads, maps, STRIDES, strict=True)
        ]
        return torch.cat(found, dim=1)


def _decode(raw: Tensor, stride: int) -> Tensor:
    """Distances to the four sides, in strides, to corners in pixels; scores to 0..1."""
    _, _, rows, columns = raw.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centres = torch.stack((x, y)).add(0.5).to(raw)
    reach = nn.functional.softplus(raw[:, :4])
    corners = torch.cat((centres - reach[:, :2], centres + reach[:, 2:]), dim=1) * stride
    return torch.cat((corners, raw[:, 4:].sigmoid()), dim=1).flatten(2).transpose(1, 2)


def detect(found: Tensor, keep: int = 100, overlap: float = 0.5) -> Tensor:
    """The boxes of one image ``(k, 4 + CLASSES)`` that no better box covers, at most ``keep``."""
    best = found[found[:, 4:].amax(dim=1).topk(min(keep, len(found))).indices]
    boxes = best[:, :4]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    covered = shared / (area[:, None] + area[None] - shared) > overlap
    kept: list[int] = []
    for row in range(len(best)):
        if not covered[row, kept].any():
            kept.append(row)
    return best[kept]
