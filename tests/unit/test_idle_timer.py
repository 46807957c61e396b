"""A peer is silent when it says nothing, and not when nobody listens."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.runtime import idle_timer
from services.runtime.idle_timer import IdleTimer

IDLE = 0.2


async def test_silence_is_reported_once() -> None:
    reports: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    IdleTimer(IDLE, lambda: reports.append(loop.time() - began))
    await asyncio.sleep(IDLE * 3)
    assert len(reports) == 1
    assert reports[0] >= IDLE


async def test_beats_and_changes_of_what_was_heard_are_signs_of_life() -> None:
    reports: list[None] = []
    heard = 0
    beaten = IdleTimer(IDLE, lambda: reports.append(None))
    IdleTimer(IDLE, lambda: reports.append(None), heard=lambda: heard)
    for _ in range(40):
        await asyncio.sleep(IDLE / 10)
        beaten.beat()
        heard += 1
    assert reports == []


async def test_nothing_is_reported_after_cancel() -> None:
    reports: list[None] = []
    IdleTimer(IDLE, lambda: reports.append(None)).cancel()
    await asyncio.sleep(IDLE * 3)
    assert reports == []


async def test_time_in_which_the_event_loop_stood_still_does_not_count() -> None:
    reports: list[None] = []
    watch = IdleTimer(IDLE, lambda: reports.append(None))
    time.sleep(IDLE * 5)  # noqa: ASYNC251  # the loop is to stand still
    for _ in range(20):
        # What arrived meanwhile is seen some turns of the loop later.
        await asyncio.sleep(0)
    assert reports == []
    watch.cancel()


async def test_what_is_heard_of_a_peer_otherwise_counts_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_timer, "MOST_IDLE_TIMES", 2)
    reports: list[float] = []
    heard = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    IdleTimer(IDLE, lambda: reports.append(loop.time() - began), heard=lambda: heard)
    async with asyncio.timeout(IDLE * 20):
        while not reports:
            await asyncio.sleep(IDLE / 20)
            heard += 1
    assert reports[0] >= 2 * IDLE
