"""An HTTP connection on which a test reads and writes bytes itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from tests.faults.system import System
from tests.support.generating_apis import CHAT, Api


@dataclass
class Connection:
    """An HTTP connection on which a test reads and writes bytes itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    opened: ClassVar[list[Connection]] = []
    """All open connections, which are closed at the end of a test."""

    @classmethod
    async def open(cls, address: str, *, receive_buffer: int | None = None) -> Connection:
        """Connect to HOST:PORT. `receive_buffer` is the size in bytes of the kernel's receive buffer."""
        host, _, port = address.rpartition(":")
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        connection = cls(*await asyncio.open_connection(sock=raw))
        cls.opened.append(connection)
        return connection

    @classmethod
    async def disconnect_all(cls) -> None:
        """Close all open connections, and wait until they are closed."""
        for connection in cls.opened:
            connection.disconnect()
        await asyncio.gather(*(connection.writer.wait_closed() for connection in cls.opened), return_exceptions=True)
        cls.opened.clear()

    @classmethod
    async def ask(
        cls, system: System, request: Mapping[str, Any], *, api: Api = CHAT, receive_buffer: int | None = None
    ) -> Connection:
        """Send a request of an API without waiting for its response."""
        connection = await cls.open(system.gateway.address, receive_buffer=receive_buffer)
        content = orjson.dumps(request)
        connection.writer.write(
            b"POST /api%s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            % (api.path.encode(), system.api_key.encode(), len(content))
            + content
        )
        return connection

    async def until(self, text: bytes) -> None:
        """Read until `text` has arrived."""
        async with asyncio.timeout(30):
            await self.reader.readuntil(text)

    def disconnect(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
