"""HTTP/1.0 on the gateway's public port."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.faults.chat_stream import Stream, body
from tests.faults.connection import Connection
from tests.faults.edge.exchange import authorization, exchange
from tests.faults.edge.limits import WRITE_SECONDS
from tests.faults.recordings import BURST
from tests.faults.system import System
from tests.support.fault_table import record


async def test_http_1_0_gets_no_interim_response(system: System) -> None:
    head = b"POST /api/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\n" + authorization(system)
    response = await exchange(system, head + b"Content-Length: 2\r\n\r\n{}")
    assert response.startswith(b"HTTP/1.1 400 "), response


async def test_an_http_1_0_connection_is_closed_after_the_response(system: System) -> None:
    response = await exchange(system, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 " in response.splitlines()[0]
    assert b"connection: close" in response.lower()
    record("HTTP/1.0", "a response, and the connection is closed", "200, closed", met=True)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_1_0_response_is_not_chunked(system: System, stream: bool) -> None:
    content = orjson.dumps(body(stream=stream))
    head = b"POST /api/chat/completions HTTP/1.0\r\n" + authorization(system)
    response = await exchange(system, head + b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
    headers, _, received = response.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in headers.lower()
    assert b"connection: close" in headers.lower()
    if stream:
        whole = Stream()
        for line in received.decode().split("\n"):
            assert not line or line.startswith("data: ")
            whole.add(line)
        assert whole.is_whole
    else:
        assert orjson.loads(received)["choices"][0]["finish_reason"] == "stop"


async def test_a_slow_client_gets_a_complete_long_stream_over_http_1_0(system: System) -> None:
    content = orjson.dumps(body(BURST))
    connection = await Connection.open(system.gateway.address, receive_buffer=4096)
    head = b"POST /api/chat/completions HTTP/1.0\r\n" + authorization(system)
    connection.writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
    received = bytearray()
    async with asyncio.timeout(60):
        await connection.until(b"\r\n\r\n")
        # Long enough for all buffers on the path to fill.
        await asyncio.sleep(WRITE_SECONDS / 2)
        while piece := await connection.reader.read(256 * 1024):
            received += piece
    connection.disconnect()
    response = Stream()
    for line in received.decode().split("\n"):
        assert not line or line.startswith("data: ")
        response.add(line)
    assert response.is_whole
