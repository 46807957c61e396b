"""More connections than the gateway's public port allows."""

from __future__ import annotations

import asyncio
import contextlib

from tests.faults.chat_stream import body
from tests.faults.connection import Connection
from tests.faults.edge.gateway_state import has_connections, memory_of, rejections
from tests.faults.edge.limits import MAX_CONNECTIONS
from tests.faults.recordings import LONG, PREFILL, STEADY
from tests.faults.system import System
from tests.support.fault_table import record, times
from tests.support.waits import until


async def test_connections_beyond_the_limit_evict_the_longest_idle_ones(system: System) -> None:
    before = await rejections(system, "evicted")
    memory = memory_of(system.gateway)
    tries = times(1000, 10_000)
    opened: list[Connection] = []
    for _ in range(tries):
        with contextlib.suppress(OSError):
            opened.append(await Connection.open(system.gateway.address))
    await until(lambda: has_connections(system.gateway, at_most=MAX_CONNECTIONS))
    closed = await rejections(system, "evicted") - before
    assert closed > 0
    assert memory_of(system.gateway) - memory < 50e6
    for connection in opened:
        connection.disconnect()
    record(
        f"{tries} idle connections, at most {MAX_CONNECTIONS} allowed",
        "the longest idle ones are closed at once, memory is bounded",
        f"{closed:.0f} closed; {(memory_of(system.gateway) - memory) / 1e6:+.1f} MB",
        met=True,
    )


async def test_idle_connections_are_closed_for_new_ones(system: System) -> None:
    count = times(500, 2000)
    request = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
    streaming = await Connection.ask(system, body(LONG, max_tokens=200))
    await streaming.until(b"data: ")
    idle: list[Connection] = []
    for _ in range(count):
        connection = await Connection.open(system.gateway.address)
        connection.writer.write(request)
        await connection.until(b"HTTP/1.1 200 ")
        idle.append(connection)
    served = 0
    async with system.client() as client:
        for _ in range(20):
            # Each request uses a new connection.
            response = await client.get("/models", headers={"Connection": "close"})
            served += response.status_code == 200
    assert served == 20
    async with asyncio.timeout(30):
        await streaming.reader.readuntil(b"data: [DONE]")
    evicted = await rejections(system, "evicted")
    assert evicted >= count - MAX_CONNECTIONS
    assert await rejections(system, "connections") == 0, "no connection was rejected"
    for connection in (*idle, streaming):
        connection.disconnect()
    record(
        f"{count} connections kept alive by one client, at most {MAX_CONNECTIONS} allowed",
        "20 of 20 new clients are served, a running stream is complete",
        f"{served} of 20, complete; {evicted:.0f} closed",
        met=True,
    )


async def test_connections_with_running_requests_are_not_closed_for_new_ones(system: System) -> None:
    before = await rejections(system, "connections")
    streaming = await Connection.ask(system, body(STEADY))
    await streaming.until(b"data: ")
    waiting = [await Connection.ask(system, body(PREFILL)) for _ in range(MAX_CONNECTIONS - 1)]

    async def all_have_requests() -> bool:
        return await system.gateway.metric("vilix_http_requests_in_flight") == MAX_CONNECTIONS

    await until(all_have_requests, what="every connection has a request")
    rejected = await Connection.open(system.gateway.address)
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            assert await rejected.reader.read() == b""
    assert await rejections(system, "connections") == before + 1
    async with asyncio.timeout(60):
        await streaming.reader.readuntil(b"data: [DONE]")
    for connection in (streaming, rejected, *waiting):
        connection.disconnect()
