"""Govern an asyncio application: two cameras share a model that runs in worker threads.

Nothing in the loop knows of the governor. The board is emulated and follows the real calls.

    python examples/asyncio_loop.py --seconds 60
"""

from __future__ import annotations

import asyncio

import torch
from outcome import arguments, say, turns
from tiny_yolo import TinyYolo

from governor import EnergyGovernor

model = TinyYolo(width=4).eval().requires_grad_(False)


async def camera(seconds: float) -> None:
    """Frames that come every 20 ms, each to be looked at."""
    for _ in turns(seconds):
        frame = torch.rand(1, 3, 64, 64)
        await asyncio.gather(asyncio.to_thread(model, frame), asyncio.sleep(0.02))


async def main() -> None:
    asked = arguments(__doc__, "200ms")
    torch.set_num_threads(1)
    async with EnergyGovernor(asked.latency_slo, device=asked.device) as gov:
        await asyncio.gather(camera(asked.seconds), camera(asked.seconds))
    say(gov.status())


if __name__ == "__main__":
    asyncio.run(main())
