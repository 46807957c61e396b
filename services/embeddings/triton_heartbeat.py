"""Whether Triton lives. It says so itself, while its models work on a batch and have no time to be asked."""

from __future__ import annotations

import asyncio
from typing import Final

from services.runtime.heartbeat import Heartbeat
from services.worker.triton_client import TritonClient

INTERVAL_SECONDS: Final = 1.0


async def follow(triton: TritonClient, heartbeat: Heartbeat, *, idle_seconds: float) -> None:
    """Ask again and again, several times in `idle_seconds`, and note each answer in `pulse`; forever."""
    while True:
        if await triton.is_live():
            heartbeat.beat()
        await asyncio.sleep(min(INTERVAL_SECONDS, idle_seconds / 4))
