"""Several requests at once on a connection to the gateway's public port."""

from __future__ import annotations

import asyncio

from tests.faults.chat_stream import body
from tests.faults.connection import Connection
from tests.faults.edge.exchange import exchange
from tests.faults.recordings import LONG
from tests.faults.system import System
from tests.support.fault_table import record


async def test_pipelined_requests_are_answered_in_order(system: System) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    response = await exchange(system, one * 20 + last)
    assert response.count(b"HTTP/1.1 200 ") == 20
    assert response.rindex(b"HTTP/1.1 200 ") < response.index(b"HTTP/1.1 404 ")
    record("21 pipelined requests", "responses in order", "21 responses in order", met=True)


async def test_an_incomplete_request_behind_a_stream_does_not_end_the_stream(system: System) -> None:
    connection = await Connection.ask(system, body(LONG, max_tokens=200))
    await connection.until(b"data: ")
    connection.writer.write(b"GET /healthz HT")
    async with asyncio.timeout(30):
        await connection.reader.readuntil(b"data: [DONE]")
    connection.disconnect()


async def test_a_malformed_request_behind_a_stream_does_not_end_the_stream(system: System) -> None:
    connection = await Connection.ask(system, body(LONG, max_tokens=100))
    await connection.until(b"data: ")
    connection.writer.write(b"\x16\x03\x01\r\n\r\n")
    async with asyncio.timeout(30):
        await connection.reader.readuntil(b"data: [DONE]")
        rest = await connection.reader.read()
    assert b"HTTP/1.1 400 " in rest
    connection.disconnect()
