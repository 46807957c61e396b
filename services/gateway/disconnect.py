"""Detects that a client has disconnected, and stops the work for its request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import Receive


class DisconnectSource(Protocol):
    """Calls back when a client disconnects, for which ASGI needs a task that waits."""

    def on_disconnect(self, call: Callable[[], None] | None) -> None:
        """Call `call` when the client disconnects, or now if it already has. Replaces an earlier callback."""
        ...


class ClientGoneError(Exception):
    """The client has disconnected."""


class Disconnect:
    """Waits for a client's disconnect, once the body of its request has been read."""

    def __init__(self, receive: Receive, source: DisconnectSource | None = None) -> None:
        """Wait with `source`, or without one with ASGI's `receive`. Neither is called before `listen`."""
        self.happened = False
        self._receive = receive
        self._source = source
        self._stop: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to listen, until `close`."""
        if self._source is not None:
            self._source.on_disconnect(self.happen)
        else:
            self._task = asyncio.create_task(self._listen())

    def check(self) -> None:
        """Raise ClientGoneError if the client has disconnected."""
        if self.happened:
            raise ClientGoneError

    def on_disconnect(self, stop: Callable[[], object]) -> None:
        """Call `stop` when the client disconnects, or now if it already has. Replaces an earlier callback."""
        self._stop = stop
        if self.happened:
            stop()

    def close(self) -> None:
        """Stop listening."""
        self._stop = None
        if self._source is not None:
            self._source.on_disconnect(None)
        if self._task is not None:
            self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.happen()

    def happen(self) -> None:
        """Act as if the client had disconnected."""
        self.happened = True
        if self._stop is not None:
            self._stop()
