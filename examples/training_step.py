"""Govern a training loop: the least energy a step at no fewer than so many steps a second.

Nothing needs to be marked: where an optimizer steps, the time from one step to the next is what
counts, with forward pass, backward pass and data. The board is emulated and follows the real
steps.

    python examples/training_step.py --latency-slo 5fps --seconds 60
"""

from __future__ import annotations

import torch
from outcome import arguments, say, turns
from torch import nn

from governor import EnergyGovernor


def main() -> None:
    asked = arguments(__doc__, "5fps")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    model(torch.rand(1, 3, 24, 24))  # the last layer now knows its size
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_of = nn.CrossEntropyLoss()
    with EnergyGovernor(asked.latency_slo, device=asked.device) as gov:
        for _ in turns(asked.seconds):
            images, labels = torch.rand(16, 3, 24, 24), torch.randint(10, (16,))
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
    say(gov.status(), what="step")


if __name__ == "__main__":
    main()
