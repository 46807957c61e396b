"""Work that requires a peer is cancelled by the silence of the peer only."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.runtime.heartbeat import Heartbeat, IdleTimeoutError

IDLE = 0.2
LONG = 30.0


async def test_a_missing_heartbeat_cancels_all_work_that_requires_it() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def work(after: float) -> str:
        await asyncio.sleep(after)
        try:
            async with heartbeat.required():
                await asyncio.sleep(LONG)
        except IdleTimeoutError:
            return "cancelled"
        return "completed"

    assert await asyncio.wait_for(asyncio.gather(work(0), work(IDLE / 2)), LONG / 2) == ["cancelled"] * 2


async def test_work_continues_while_heartbeats_arrive() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def live() -> None:
        while True:
            heartbeat.note_heartbeat()
            await asyncio.sleep(IDLE / 10)

    living = asyncio.create_task(live())
    async with heartbeat.required():
        await asyncio.sleep(IDLE * 4)
    living.cancel()


async def test_a_paused_heartbeat_is_expected_again_after_it_is_noted() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)
    async with heartbeat.required():
        heartbeat.pause()
        await asyncio.sleep(IDLE * 3)
    heartbeat.note_heartbeat()
    with pytest.raises(IdleTimeoutError):
        async with heartbeat.required():
            await asyncio.sleep(LONG)


async def test_errors_and_cancellation_of_the_work_are_not_reported_as_silence() -> None:
    heartbeat = Heartbeat(idle_seconds=LONG)
    with pytest.raises(TimeoutError, match="of its own"):
        async with heartbeat.required():
            raise TimeoutError("of its own")
    with pytest.raises(asyncio.CancelledError):
        async with heartbeat.required():
            raise asyncio.CancelledError


async def test_a_heartbeat_that_arrived_while_the_event_loop_was_blocked_counts() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def send_heartbeat_late() -> None:
        time.sleep(IDLE * 3)  # noqa: ASYNC251  # blocks the event loop on purpose
        for _ in range(5):
            # Messages that arrived meanwhile are read some iterations of the loop later.
            await asyncio.sleep(0)
        heartbeat.note_heartbeat()

    async with heartbeat.required():
        await send_heartbeat_late()
        await asyncio.sleep(0)
