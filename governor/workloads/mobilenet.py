"""MobileNetV2 and MobileNetV3-large: inverted residuals around depthwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn


class Conv(nn.Sequential):
    """Convolution, batch norm and, unless it is ``None``, an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU6,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class Squeeze(nn.Module):
    """Scale each channel by what all of the map says (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = _divisible(channels // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        return self.gate(x) * x


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, filter each channel, narrow by 1 x 1; add the input where it fits."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(Conv(inputs, hidden, activation=activation))
        layers.append(Conv(hidden, hidden, kernel, stride, hidden, activation))
        if squeeze:
            layers.append(Squeeze(hidden))
        layers.append(Conv(hidden, outputs, activation=None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps to feature maps, ``stride`` times smaller."""
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018 (arXiv 1801.04381), width 1."""

    # expansion, output channels, repeats, first stride
    PLAN = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv(3, 32, 3, 2)]
        channels = 32
        for expansion, outputs, repeats, first in self.PLAN:
            for repeat in range(repeats):
                stride = 1 if repeat else first
                layers.append(
                    InvertedResidual(channels, channels * expansion, outputs, 3, stride, nn.ReLU6)
                )
                channels = outputs
        self.features = nn.Sequential(*layers, Conv(channels, 1280))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, 1000)``."""
        return self.classifier(self.pool(self.features(images)).flatten(1))


class MobileNetV3(nn.Module):
    """Howard et al. 2019 (arXiv 1905.02244), large."""

    # kernel, hidden and output channels, squeeze, hard swish, stride
    PLAN = ((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
            (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2),
            (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
            (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2),
            (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv(3, 16, 3, 2, activation=nn.Hardswish)]
        channels = 16
        for kernel, hidden, outputs, squeeze, swish, stride in self.PLAN:
            activation = nn.Hardswish if swish else nn.ReLU
            layers.append(
                InvertedResidual(
                    channels, hidden, outputs, kernel, stride, activation, bool(squeeze)
                )
            )
            channels = outputs
        self.features = nn.Sequential(*layers, Conv(channels, 960, activation=nn.Hardswish))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, 1000)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, 1000)``."""
        return self.classifier(self.pool(self.features(images)).flatten(1))


def _divisible(channels: int) -> int:
    """The nearest multiple of 8, but not more than a tenth below."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
