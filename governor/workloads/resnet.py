"""Residual networks, with the stride in the 3 x 3 convolution (torchvision's form)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """He et al. 2015 (arXiv 1512.03385): two 3 x 3 convolutions, or a bottleneck of three.

    Args:
        inputs: channels.
        width: of the 3 x 3 convolution.
        expansion: 1 for a plain block, 4 for a bottleneck: its output channels over ``width``.
        stride: of the first 3 x 3 convolution.
    """

    def __init__(self, inputs: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            steps = ((inputs, width, 3, stride), (width, width, 3, 1))
        else:
            steps = ((inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1))
        layers: list[nn.Module] = []
        for fan_in, fan_out, kernel, step in steps:
            layers += [
                nn.Conv2d(fan_in, fan_out, kernel, step, kernel // 2, bias=False),
                nn.BatchNorm2d(fan_out),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = (
            nn.Identity()
            if (inputs, stride) == (outputs, 1)
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps to feature maps, ``stride`` times smaller."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of so many blocks, between a 7 x 7 convolution and a linear layer."""

    def __init__(self, blocks: Sequence[int], expansion: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        stages: list[nn.Module] = []
        channels = 64
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Block(channels, 64 << stage, expansion, stride))
                channels = (64 << stage) * expansion
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, 1000)``."""
        return self.classifier(self.pool(self.stages(self.stem(images))).flatten(1))
