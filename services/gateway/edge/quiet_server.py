"""uvicorn's server, which wakes up ten times a second for a flag, without these wake-ups."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import uvicorn

DATE_SECONDS: Final = 1.0
"""The interval in which the header `date` of all responses is renewed."""


class QuietServer(uvicorn.Server):
    """A server that is stopped by `stop`, and not by its flag alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Serve as `config` says."""
        super().__init__(config)
        self._stopped: Final = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin to stop. To be called in the thread of the loop, and allowed in a handler of a signal."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def main_loop(self) -> None:
        """Return when the server is to stop."""
        self._loop = asyncio.get_running_loop()
        # A multiple of ten renews the header.
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._stopped.wait()
