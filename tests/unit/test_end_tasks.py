"""Tasks end when they are told to, also if they lose a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

from services.runtime.end_tasks import end_tasks


async def test_a_task_that_loses_a_cancellation_ends() -> None:
    async def loses_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise ValueError

    tasks = [asyncio.create_task(loses_one()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end_tasks(*tasks)
    assert tasks[0].cancelled()
