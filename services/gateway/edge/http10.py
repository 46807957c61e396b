"""Responses to HTTP/1.0 clients, which do not support chunks: a body of unknown length ends with the connection."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Http10Response:
    """ASGI middleware for one response that keeps uvicorn from writing its body in chunks."""

    def __init__(self, app: Any, cycle: RequestResponseCycle) -> None:
        """Wrap `app` for the response of `cycle`, which is uvicorn's state of it."""
        self._app: Final = app
        self._cycle: Final = cycle
        self._has_length = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""

        async def send_without_chunks(message: Message) -> None:
            await self._prepare(message)
            await send(message)

        await self._app(scope, receive, send_without_chunks)

    async def _prepare(self, message: Message) -> None:
        cycle = self._cycle
        # uvicorn must write this message before the next one changes the cycle again.
        while cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._has_length:
                cycle.chunked_encoding = False
                cycle.keep_alive = False
        elif not self._has_length:
            cycle.expected_content_length = len(message.get("body", b""))
