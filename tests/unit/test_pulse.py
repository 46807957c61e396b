"""Who needs somebody is let down by their silence, and by nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.runtime.pulse import Pulse, SilenceError

IDLE = 0.2
LONG = 30.0


async def test_silence_ends_what_needs_it_though_it_began_at_different_times() -> None:
    pulse = Pulse(idle_seconds=IDLE)

    async def need(after: float) -> str:
        await asyncio.sleep(after)
        try:
            async with pulse.required():
                await asyncio.sleep(LONG)
        except SilenceError:
            return "let down"
        return "whole"

    assert await asyncio.wait_for(asyncio.gather(need(0), need(IDLE / 2)), LONG / 2) == ["let down"] * 2


async def test_signs_of_life_let_it_go_on() -> None:
    pulse = Pulse(idle_seconds=IDLE)

    async def live() -> None:
        while True:
            pulse.beat()
            await asyncio.sleep(IDLE / 10)

    living = asyncio.create_task(live())
    async with pulse.required():
        await asyncio.sleep(IDLE * 4)
    living.cancel()


async def test_an_excuse_holds_until_the_next_sign_of_life() -> None:
    pulse = Pulse(idle_seconds=IDLE)
    async with pulse.required():
        pulse.excuse()
        await asyncio.sleep(IDLE * 3)
    pulse.beat()
    with pytest.raises(SilenceError):
        async with pulse.required():
            await asyncio.sleep(LONG)


async def test_what_fails_or_is_cancelled_inside_is_no_silence() -> None:
    pulse = Pulse(idle_seconds=LONG)
    with pytest.raises(TimeoutError, match="of its own"):
        async with pulse.required():
            raise TimeoutError("of its own")
    with pytest.raises(asyncio.CancelledError):
        async with pulse.required():
            raise asyncio.CancelledError


async def test_a_sign_of_life_that_came_while_the_event_loop_stood_still_counts() -> None:
    pulse = Pulse(idle_seconds=IDLE)

    async def hear_late() -> None:
        time.sleep(IDLE * 3)  # noqa: ASYNC251  # the loop is to stand still
        for _ in range(5):
            # What came meanwhile is read some turns of the loop later.
            await asyncio.sleep(0)
        pulse.beat()

    async with pulse.required():
        await hear_late()
        await asyncio.sleep(0)
