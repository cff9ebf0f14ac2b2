"""Govern a FastAPI service: the governor lives as long as the service does.

    uvicorn --app-dir examples fastapi_service:app    serves it; pip install uvicorn
    python examples/fastapi_service.py                asks it a few times, in this process

The board is emulated and follows the real calls; GOVERNOR_DEVICE=auto governs this machine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import torch
from fastapi import FastAPI
from outcome import arguments, say, turns
from tiny_yolo import TinyYolo, detect

from governor import EnergyGovernor

model = TinyYolo(width=4).eval().requires_grad_(False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What lasts as long as the service."""
    device = os.environ.get("GOVERNOR_DEVICE", "emulated:agx-orin")
    async with EnergyGovernor("200ms", device=device) as app.state.governor:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/detect")
def answer(side: int = 64) -> dict[str, int]:
    """An endpoint as it is without a governor; FastAPI runs it in a thread."""
    boxes = detect(model(torch.rand(1, 3, side, side))[0])
    return {"boxes": len(boxes)}


async def main() -> None:
    asked = arguments(__doc__, "200ms")
    torch.set_num_threads(1)
    # httpx speaks to the application without a socket, and without its start and end
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
    ):
        for _ in turns(asked.seconds):
            (await client.post("/detect")).raise_for_status()
        say(app.state.governor.status())


if __name__ == "__main__":
    asyncio.run(main())
