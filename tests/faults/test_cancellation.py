"""A client disconnect frees the engine at any moment of a request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.chat_stream import body
from tests.faults.connection import Connection
from tests.faults.engine_watch import EngineWatch, watched_engine
from tests.faults.recordings import LONG, PREFILL
from tests.faults.system import System, running_system
from tests.support.fault_table import milliseconds, percentile99, record, times
from tests.support.generating_apis import APIS
from tests.support.waits import until

SLOTS = 20
STOP_SECONDS = 0.2
ROUNDS = times(2, 10)
FIRST_TOKEN = b'" one'
MOMENTS = {
    "after the first token": (LONG, True),
    "before the first token": (PREFILL, True),
    "with half of them in the queue": (PREFILL, True),
    "not streaming": (LONG, False),
    "while the model has not answered yet, not streaming": (PREFILL, False),
}
"""Words that requests have, and whether they stream."""


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    # Reservations must be released when a request ends, and not by their expiry.
    settings = {"VILIX_RESERVATION_SECONDS": "600"}
    async with running_system(tmp_path_factory.mktemp("system"), slots=SLOTS, gateway_settings=settings) as running:
        yield running


@pytest.fixture
async def engine(system: System) -> AsyncIterator[EngineWatch]:
    async with watched_engine(system.worker) as watch:
        yield watch


async def ask(system: System, word: str, number: int, *, stream: bool = True) -> Connection:
    """Send a request by each API in turn."""
    api = APIS[number % len(APIS)]
    return await Connection.ask(system, body(word, api=api, stream=stream), api=api)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_every_client_disconnect_frees_the_engine(system: System, engine: EngineWatch, moment: str) -> None:
    word, stream = MOMENTS[moment]
    at_once = 2 * SLOTS if "queue" in moment else SLOTS
    before = engine.status.cancelled_total
    for round_ in range(ROUNDS):
        connections = [await ask(system, word, number, stream=stream) for number in range(at_once)]
        await until(lambda: engine.at_work == at_once, what="the engine has all requests")
        assert await system.reserved() >= at_once
        if moment == "after the first token":
            await asyncio.gather(*(connection.until(FIRST_TOKEN) for connection in connections))
        for connection in random.sample(connections, len(connections)):
            connection.disconnect()
            await asyncio.sleep(random.uniform(0, 0.01))
        await until(system.is_idle, what="all processes are idle")
        await until(lambda: engine.at_work == 0, what="the worker reports an idle engine")
        assert engine.status.cancelled_total - before == at_once * (round_ + 1)
    disconnects = at_once * ROUNDS
    record(
        f"A client disconnect stops the engine: {moment}",
        f"{disconnects} of {disconnects}; no request in flight and no reservation afterwards",
        f"{engine.status.cancelled_total - before} of {disconnects} by the engine's count; in flight 0, reserved 0",
        met=True,
    )


async def test_client_disconnects_at_random_moments_leave_no_requests_behind(system: System) -> None:
    for number in range(times(50, 500)):
        connection = await ask(system, LONG, number)
        await asyncio.sleep(random.uniform(0, 0.02))
        connection.disconnect()

    async def all_disconnects_are_detected() -> bool:
        return await system.gateway.metric("vilix_http_connections") == 0

    await until(all_disconnects_are_detected, what="all connections are closed")
    await until(system.is_idle, what="all processes are idle")


@pytest.mark.parametrize("word", [LONG, PREFILL])
async def test_the_engine_is_free_soon_after_a_client_disconnect(system: System, word: str) -> None:
    delays = []
    for number in range(times(5, 100)):
        before = await _cancelled(system)
        connection = await ask(system, word, number)
        await until(lambda: _has(system, 1))
        connection.disconnect()
        disconnected = time.monotonic()

        async def is_cancelled(before: int = before) -> bool:
            return await _cancelled(system) > before

        await until(is_cancelled, seconds=5)
        delays.append(time.monotonic() - disconnected)
        await until(system.is_idle)
    when = "mid-stream" if word is LONG else "before the first token"
    record(
        f"The engine stops soon after a client disconnect {when}",
        f"p99 < {STOP_SECONDS * 1000:g} ms",
        milliseconds(delays),
        met=percentile99(delays) < STOP_SECONDS,
    )


async def _cancelled(system: System) -> int:
    return int((await system.load())["cancelled_total"])


async def _has(system: System, count: int) -> bool:
    load = await system.load()
    return bool(load["in_flight"] + load["queued"] == count)
