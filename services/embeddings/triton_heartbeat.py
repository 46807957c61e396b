"""The heartbeat of Triton, whose server answers while its models are busy with a batch."""

from __future__ import annotations

import asyncio
from typing import Final

from services.runtime.heartbeat import Heartbeat
from services.worker.triton_client import TritonClient

INTERVAL_SECONDS: Final = 1.0


async def follow(triton: TritonClient, heartbeat: Heartbeat, *, idle_seconds: float) -> None:
    """Ask Triton several times in `idle_seconds` whether it is live, and note each answer in `heartbeat`; forever."""
    while True:
        if await triton.is_live():
            heartbeat.note_heartbeat()
        await asyncio.sleep(min(INTERVAL_SECONDS, idle_seconds / 4))
