"""Send bytes to the gateway, and receive what it sends."""

from __future__ import annotations

import asyncio
import contextlib

from tests.faults.connection import Connection
from tests.faults.system import System

HEAD = b"POST /api/chat/completions HTTP/1.1\r\nHost: test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"


async def exchange(system: System, request: bytes, after: bytes = b"") -> bytes:
    """Send `request` and a moment later `after`, and return all bytes received until the connection is closed."""
    connection = await Connection.open(system.gateway.address)
    with contextlib.suppress(OSError):
        connection.writer.write(request)
        await asyncio.wait_for(connection.writer.drain(), 10)
        if after:
            await asyncio.sleep(0.1)
            connection.writer.write(after)
            await asyncio.wait_for(connection.writer.drain(), 10)
    response = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(20):
            while piece := await connection.reader.read(65536):
                response += piece
    connection.disconnect()
    return response


def authorization(system: System) -> bytes:
    """Return the header line with the key of the system."""
    return b"Authorization: Bearer " + system.api_key.encode() + b"\r\n"
