"""Sends the response to one request, whole or in parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from starlette.types import Send

from services.gateway.edge.direct_writer import DirectWriter


@lru_cache(maxsize=256)
def _raw_name(name: str) -> bytes:
    return name.lower().encode("latin-1")


class ResponseChannel:
    """Sends the one response to a request."""

    def __init__(self, send: Send, direct: DirectWriter | None) -> None:
        """Send with ASGI's `send`, and with `direct` if the server offers it."""
        self.started = False
        """Whether the status was sent, so that an error can only be a part of the response."""
        self._send: Final = send
        self.direct: Final = direct
        """Writes to the body without waiting; None if the server does not offer it."""

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole response."""
        await self.start(status, {"content-length": str(len(body)), **headers})
        await self.finish(body)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers of a response whose body follows in parts."""
        self.started = True
        raw = [(_raw_name(name), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes) -> None:
        """Send a part of the body. Waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        await self._send({"type": "http.response.body", "body": data})
