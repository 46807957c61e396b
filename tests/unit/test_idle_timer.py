"""The silence of a peer is measured without the time in which this process does not read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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


async def test_heartbeats_and_activity_keep_a_peer_from_being_silent() -> None:
    reports: list[None] = []
    activity = 0
    with_heartbeats = IdleTimer(IDLE, lambda: reports.append(None))
    IdleTimer(IDLE, lambda: reports.append(None), activity=lambda: activity)
    for _ in range(40):
        await asyncio.sleep(IDLE / 10)
        with_heartbeats.note_heartbeat()
        activity += 1
    assert reports == []


async def test_nothing_is_reported_after_cancel() -> None:
    reports: list[None] = []
    IdleTimer(IDLE, lambda: reports.append(None)).cancel()
    await asyncio.sleep(IDLE * 3)
    assert reports == []


async def test_time_in_which_the_event_loop_is_blocked_does_not_count() -> None:
    reports: list[None] = []
    timer = IdleTimer(IDLE, lambda: reports.append(None))
    time.sleep(IDLE * 5)  # noqa: ASYNC251  # blocks the event loop on purpose
    for _ in range(20):
        # Messages that arrived meanwhile are read some iterations of the loop later.
        await asyncio.sleep(0)
    assert reports == []
    timer.cancel()


async def test_activity_without_heartbeats_counts_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_timer, "MOST_IDLE_TIMES", 2)
    reports: list[float] = []
    activity = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    IdleTimer(IDLE, lambda: reports.append(loop.time() - began), activity=lambda: activity)
    async with asyncio.timeout(IDLE * 20):
        while not reports:
            await asyncio.sleep(IDLE / 20)
            activity += 1
    assert reports[0] >= 2 * IDLE


async def test_timers_that_begin_one_after_another_check_at_the_same_times() -> None:
    timers = []
    for _ in range(50):
        timers.append(IdleTimer(8000, lambda: None))
        await asyncio.sleep(0.001)
    dues = {timer._timer.when() for timer in timers}
    for timer in timers:
        timer.cancel()
    assert len(dues) <= 2, "they began in the same part of the time between two checks, or in two"


class EarlyLoop:
    """A loop whose timers fire a little early, as uvloop's do."""

    now = when = 0.0
    call: Any = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> None:
        self.when, self.call = when, call

    def fire(self) -> None:
        self.now = self.when - 0.0004
        self.call()


@pytest.mark.parametrize("idle", [5.0, 35.0])
def test_checks_that_come_a_little_early_do_not_shorten_the_silence(
    idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, reports = EarlyLoop(), list[float]()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    timer = IdleTimer(idle, lambda: reports.append(loop.now))
    heard = loop.now = loop.when - 0.0004
    timer.note_heartbeat()
    while not reports:
        loop.fire()
    assert reports[0] - heard >= idle * 0.99
