"""YOLOv8n (Ultralytics 2023): depth 0.33, width 0.25, 80 classes, boxes decoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 80
BINS = 16
"""A box's distance to each of its sides is a distribution over so many bins."""
STRIDES = (8, 16, 32)


class Conv(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions, with or without a residual connection."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(channels, channels), Conv(channels, channels))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        return x + self.body(x) if self.residual else self.body(x)


class C2f(nn.Module):
    """Half of the channels pass through a chain of bottlenecks; every link is joined."""

    def __init__(self, inputs: int, outputs: int, repeats: int, residual: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = Conv(inputs, outputs, 1)
        self.chain = nn.ModuleList(Bottleneck(half, residual) for _ in range(repeats))
        self.leave = Conv((2 + repeats) * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of the same size."""
        links = list(self.enter(x).chunk(2, dim=1))
        for bottleneck in self.chain:
            links.append(bottleneck(links[-1]))
        return self.leave(torch.cat(links, dim=1))


class PooledContext(nn.Module):
    """The same map seen through ever larger windows (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = Conv(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = Conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        views = [self.enter(x)]
        for _ in range(3):
            views.append(self.pool(views[-1]))
        return self.leave(torch.cat(views, dim=1))


class Head(nn.Module):
    """Boxes and class scores of three maps, decoded to pixels."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        width = 4 * BINS
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(c, width), Conv(width, width), nn.Conv2d(width, width, 1))
            for c in channels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(Conv(c, CLASSES), Conv(CLASSES, CLASSES), nn.Conv2d(CLASSES, CLASSES, 1))
            for c in channels
        )
        # The expected bin, as a product of a distribution and the bins' numbers.
        self.expected = nn.Conv2d(BINS, 1, 1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps to ``(n, 4 + classes, anchors)``: centre, size in pixels; scores."""
        found = [
            torch.cat((boxes(x), scores(x)), dim=1).flatten(2)
            for x, boxes, scores in zip(maps, self.boxes, self.scores, strict=True)
        ]
        joined = torch.cat(found, dim=2)
        raw, scores = joined[:, : 4 * BINS], joined[:, 4 * BINS :]
        anchors, strides = self._anchors(maps)
        bins = raw.reshape(len(raw), 4, BINS, -1).transpose(1, 2).softmax(dim=1)
        near, far = self.expected(bins).flatten(1, 2).chunk(2, dim=1)
        low, high = anchors - near, anchors + far
        return torch.cat(
            (torch.cat(((low + high) / 2, high - low), dim=1) * strides, scores.sigmoid()), dim=1
        )

    @staticmethod
    def _anchors(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Centres of all cells ``(2, anchors)``, in strides, and the strides ``(1, anchors)``."""
        centres: list[Tensor] = []
        strides: list[Tensor] = []
        for x, stride in zip(maps, STRIDES, strict=True):
            rows, columns = x.shape[2:]
            y = torch.arange(rows, device=x.device, dtype=x.dtype) + 0.5
            along = torch.arange(columns, device=x.device, dtype=x.dtype) + 0.5
            grid = torch.meshgrid(y, along, indexing="ij")
            centres.append(torch.stack((grid[1], grid[0])).flatten(1))
            strides.append(torch.full_like(centres[-1][:1], stride))
        return torch.cat(centres, dim=1), torch.cat(strides, dim=1)


class YoloV8n(nn.Module):
    """Images, sides divisible by 32, to decoded boxes and scores; no suppression."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 16, stride=2), Conv(16, 32, stride=2))
        self.entry = nn.Sequential(C2f(32, 32, 1, True), Conv(32, 64, stride=2))
        self.fine = C2f(64, 64, 2, True)
        self.middle = nn.Sequential(Conv(64, 128, stride=2), C2f(128, 128, 2, True))
        self.coarse = nn.Sequential(
            Conv(128, 256, stride=2), C2f(256, 256, 1, True), PooledContext(256)
        )
        self.up = nn.Upsample(scale_factor=2)
        self.up_middle = C2f(384, 128, 1, False)
        self.up_fine = C2f(192, 64, 1, False)
        self.down_fine = Conv(64, 64, stride=2)
        self.down_middle = C2f(192, 128, 1, False)
        self.down = Conv(128, 128, stride=2)
        self.down_coarse = C2f(384, 256, 1, False)
        self.head = Head((64, 128, 256))

    def forward(self, images: Tensor) -> Tensor:
        """``(n, 3, h, w)`` in 0..1 to ``(n, 84, anchors)``."""
        fine = self.fine(self.entry(self.stem(images)))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.up_middle(torch.cat((self.up(coarse), middle), dim=1))
        fine = self.up_fine(torch.cat((self.up(middle), fine), dim=1))
        middle = self.down_middle(torch.cat((self.down_fine(fine), middle), dim=1))
        coarse = self.down_coarse(torch.cat((self.down(middle), coarse), dim=1))
        return self.head([fine, middle, coarse])
