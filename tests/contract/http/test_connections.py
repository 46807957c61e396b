"""A gateway that has reached its limit of connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.gateway import running_gateway
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waits import until

MAX_CONNECTIONS = 8
FAST_BYTES = 2**19
PIECE_SECONDS = 0.25


@pytest.fixture
async def url(redis_url: str, worker: ScriptedWorker, tmp_path: Path) -> AsyncIterator[str]:
    """Run a gateway with a low limit of connections, and yield its URL."""
    settings = {"VILIX_MAX_CONNECTIONS": str(MAX_CONNECTIONS), "VILIX_MAX_BODY_BYTES": str(2**24)}
    with running_gateway(redis_url, worker.address, tmp_path / "gateway.log", **settings) as (url, _):
        await until(lambda: gets_a_response(url))
        yield url


async def gets_a_response(url: str) -> bool:
    """Return whether a client with a new connection gets a response."""
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=url) as client:
            return (await client.get("/healthz", timeout=5)).status_code == 200
    return False


@contextlib.asynccontextmanager
async def sending(
    url: str, api_key: str, length: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send the head of a request, and leave its body to the test."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /api/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {api_key}\r\n"
    writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_slow_senders_are_rejected_to_free_connections_for_new_clients(url: str, api_key: str) -> None:
    async with contextlib.AsyncExitStack() as held:
        slow = [await held.enter_async_context(sending(url, api_key, 60_000)) for _ in range(MAX_CONNECTIONS)]
        await until(lambda: gets_a_response(url))
        ends = [asyncio.create_task(reader.read(12)) for reader, _ in slow]
        done, others = await asyncio.wait(ends, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {b"HTTP/1.1 408"}
        assert len(others) >= MAX_CONNECTIONS - 2, "no more connections are closed than needed"
        for task in others:
            task.cancel()


async def test_a_fast_sender_is_not_rejected_for_new_clients(url: str, api_key: str) -> None:
    async with contextlib.AsyncExitStack() as held:
        pieces = 16
        reader, writer = await held.enter_async_context(sending(url, api_key, pieces * FAST_BYTES))
        for _ in range(MAX_CONNECTIONS - 1):
            await held.enter_async_context(sending(url, api_key, 60_000))
        served = 0
        for _ in range(pieces):
            writer.write(b" " * FAST_BYTES)
            await writer.drain()
            served += await gets_a_response(url)
            await asyncio.sleep(PIECE_SECONDS)
        assert served, "other connections were closed"
        async with asyncio.timeout(30):
            assert await reader.read(12) == b"HTTP/1.1 400", "the body is not JSON, but it was read"


async def test_a_connection_whose_body_ends_after_its_response_is_closed_when_it_is_idle(
    redis_url: str, worker: ScriptedWorker, tmp_path: Path
) -> None:
    log = tmp_path / "idle.log"
    with running_gateway(redis_url, worker.address, log, VILIX_KEEP_ALIVE_SECONDS="1") as (url, _):
        await until(lambda: gets_a_response(url))
        async with sending(url, "no key", 4) as (reader, writer), asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401")
            writer.write(b"body")
            # Up to the end of the connection.
            await reader.read()
