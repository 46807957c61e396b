"""Who needs somebody is let down by their silence, and by nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.runtime.heartbeat import Heartbeat, IdleTimeoutError

IDLE = 0.2
LONG = 30.0


async def test_silence_ends_what_needs_it_though_it_began_at_different_times() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def need(after: float) -> str:
        await asyncio.sleep(after)
        try:
            async with heartbeat.required():
                await asyncio.sleep(LONG)
        except IdleTimeoutError:
            return "let down"
        return "whole"

    assert await asyncio.wait_for(asyncio.gather(need(0), need(IDLE / 2)), LONG / 2) == ["let down"] * 2


async def test_signs_of_life_let_it_go_on() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def live() -> None:
        while True:
            heartbeat.beat()
            await asyncio.sleep(IDLE / 10)

    living = asyncio.create_task(live())
    async with heartbeat.required():
        await asyncio.sleep(IDLE * 4)
    living.cancel()


async def test_an_excuse_holds_until_the_next_sign_of_life() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)
    async with heartbeat.required():
        heartbeat.excuse()
        await asyncio.sleep(IDLE * 3)
    heartbeat.beat()
    with pytest.raises(IdleTimeoutError):
        async with heartbeat.required():
            await asyncio.sleep(LONG)


async def test_what_fails_or_is_cancelled_inside_is_no_silence() -> None:
    heartbeat = Heartbeat(idle_seconds=LONG)
    with pytest.raises(TimeoutError, match="of its own"):
        async with heartbeat.required():
            raise TimeoutError("of its own")
    with pytest.raises(asyncio.CancelledError):
        async with heartbeat.required():
            raise asyncio.CancelledError


async def test_a_sign_of_life_that_came_while_the_event_loop_stood_still_counts() -> None:
    heartbeat = Heartbeat(idle_seconds=IDLE)

    async def hear_late() -> None:
        time.sleep(IDLE * 3)  # noqa: ASYNC251  # the loop is to stand still
        for _ in range(5):
            # What came meanwhile is read some turns of the loop later.
            await asyncio.sleep(0)
        heartbeat.beat()

    async with heartbeat.required():
        await hear_late()
        await asyncio.sleep(0)
