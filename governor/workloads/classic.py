"""AlexNet and VGG: a stack of convolutions, then three large linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def _classifier(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(features, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    )


class AlexNet(nn.Module):
    """Krizhevsky 2014 (arXiv 1404.5997), the one-column form: images to 1000 scores."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.classifier = _classifier(256 * 36)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, 1000)``."""
        return self.classifier(self.pool(self.features(images)).flatten(1))


class Vgg(nn.Module):
    """Simonyan and Zisserman 2014 (arXiv 1409.1556): so many convolutions in each stage."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, count in enumerate(stages):
            width = min(64 << stage, 512)
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = _classifier(channels * 49)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, 3, h, w)`` to scores ``(n, 1000)``."""
        return self.classifier(self.pool(self.features(images)).flatten(1))
