"""YOLOv4-tiny (Bochkovskiy et al., arXiv 2011.08036; Darknet's ``yolov4-tiny.cfg``), 80 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

OUTPUTS = 255
"""Three anchors of 4 coordinates, one score of being an object, and 80 classes."""


class Conv(nn.Sequential):
    """Convolution, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.1),
        )


class Split(nn.Module):
    """Half of the channels go through two convolutions and come back beside all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = Conv(channels, channels)
        self.first = Conv(half, half)
        self.second = Conv(half, half)
        self.leave = Conv(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Twice the channels, and the half of them that was worked on."""
        entered = self.enter(x)
        once = self.first(entered.chunk(2, dim=1)[1])
        worked = self.leave(torch.cat((self.second(once), once), dim=1))
        return torch.cat((entered, worked), dim=1), worked


class YoloV4Tiny(nn.Module):
    """Images, sides divisible by 32, to raw predictions at two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 32, stride=2), Conv(32, 64, stride=2))
        self.stages = nn.ModuleList(Split(width) for width in (64, 128, 256))
        self.pool = nn.MaxPool2d(2)
        self.neck = nn.Sequential(Conv(512, 512), Conv(512, 256, 1))
        self.far = nn.Sequential(Conv(256, 512), nn.Conv2d(512, OUTPUTS, 1))
        self.up = nn.Sequential(Conv(256, 128, 1), nn.Upsample(scale_factor=2))
        self.near = nn.Sequential(Conv(384, 256), nn.Conv2d(256, OUTPUTS, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, 3, h, w)`` to ``(n, 255, h/32, w/32)`` and ``(n, 255, h/16, w/16)``."""
        x = self.stem(images)
        worked = x
        for stage in self.stages:
            x, worked = stage(x)
            x = self.pool(x)
        neck = self.neck(x)
        return self.far(neck), self.near(torch.cat((self.up(neck), worked), dim=1))
