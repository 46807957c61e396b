"""Notices that a client is gone, and stops what was done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class HangUp:
    """Listens for the end of a connection, once its request's body was read."""

    def __init__(self, receive: Receive) -> None:
        """Listens until `close`."""
        self.happened = False
        self._stop: Callable[[], object] | None = None
        self._task = asyncio.create_task(self._listen(receive))

    def stops(self, stop: Callable[[], object]) -> None:
        """Call `stop` when the client hangs up, or now if it already did. Replaces an earlier one."""
        self._stop = stop
        if self.happened:
            stop()

    def close(self) -> None:
        """Stop listening."""
        self._task.cancel()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        if self._stop is not None:
            self._stop()
