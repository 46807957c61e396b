"""Notices that a client has closed its connection, and stops what was done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class ClientGoneError(Exception):
    """The client does not wait for the answer any more."""


class Disconnect:
    """Listens for the end of a connection, once its request's body has been read."""

    def __init__(self, receive: Receive) -> None:
        """`receive` is ASGI's. Nothing is received before `listen`."""
        self.happened = False
        self._receive = receive
        self._stop: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to listen, until `close`."""
        self._task = asyncio.create_task(self._listen())

    def check(self) -> None:
        """Raise ClientGoneError if the client is gone."""
        if self.happened:
            raise ClientGoneError

    def stops(self, stop: Callable[[], object]) -> None:
        """Call `stop` when the client disconnects, or now if it already did. Replaces an earlier one."""
        self._stop = stop
        if self.happened:
            stop()

    def close(self) -> None:
        """Stop listening."""
        self._stop = None
        if self._task is not None:
            self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        if self._stop is not None:
            self._stop()
