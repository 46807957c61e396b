"""The heartbeat of a peer: work that needs the peer is cancelled when its heartbeat has been missing for too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from services.runtime.idle_timer import IdleTimer


class IdleTimeoutError(Exception):
    """The heartbeat of a required peer has been missing for too long."""

    def __init__(self, seconds: float) -> None:
        """Make the error of a peer that has been silent for `seconds`."""
        super().__init__(f"silent for {seconds:g} s")
        self.seconds: Final = seconds


class Heartbeat:
    """The heartbeat of a process."""

    def __init__(self, *, idle_seconds: float) -> None:
        """Expect a heartbeat every `idle_seconds`, counted from now and from each call of `note_heartbeat`."""
        self._idle_seconds: Final = idle_seconds
        self._deadlines: Final[set[asyncio.Timeout]] = set()
        self._is_silent = False
        self._idle_timer: IdleTimer | None = None
        self.note_heartbeat()

    def note_heartbeat(self) -> None:
        """Note that the peer has sent a heartbeat."""
        self._is_silent = False
        if self._idle_timer is None:
            self._idle_timer = IdleTimer(self._idle_seconds, self._note_silence)
        else:
            self._idle_timer.note_heartbeat()

    def pause(self) -> None:
        """Expect no heartbeat until the next one is noted."""
        self._is_silent = False
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    @contextlib.asynccontextmanager
    async def required(self) -> AsyncIterator[None]:
        """Cancel the body of the context when the heartbeat is missing for too long, and raise IdleTimeoutError."""
        try:
            async with asyncio.timeout(0 if self._is_silent else None) as deadline:
                self._deadlines.add(deadline)
                try:
                    yield
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise IdleTimeoutError(self._idle_seconds) from None

    def _note_silence(self) -> None:
        self._is_silent, self._idle_timer = True, None
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(now)
