"""Responses to HTTP/1.0 clients, which do not support chunks: a body of unknown length ends with the connection."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Unframed:
    """ASGI middleware for one response that keeps uvicorn from writing its body in chunks."""

    def __init__(self, app: Any, cycle: RequestResponseCycle) -> None:
        """Of uvicorn's state of the answer."""
        self._app: Final = app
        self._cycle: Final = cycle
        self._has_length = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

        async def send_unframed(message: Message) -> None:
            await self._prepare(message)
            await send(message)

        await self._app(scope, receive, send_unframed)

    async def _prepare(self, message: Message) -> None:
        cycle = self._cycle
        # uvicorn is to write at once what it is prepared for, before another part comes.
        while cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._has_length:
                cycle.chunked_encoding = False
                cycle.keep_alive = False
        elif not self._has_length:
            cycle.expected_content_length = len(message.get("body", b""))
