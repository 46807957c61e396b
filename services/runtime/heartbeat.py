"""Heartbeats of a peer: work that needs the peer is ended once its heartbeats have been missing for too long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from services.runtime.idle_timer import IdleTimer


class IdleTimeoutError(Exception):
    """Somebody who was needed gave no sign of life for too long."""

    def __init__(self, seconds: float) -> None:
        """For `seconds`."""
        super().__init__(f"silent for {seconds:g} s")
        self.seconds: Final = seconds


class Heartbeat:
    """The signs of life of a process."""

    def __init__(self, *, idle_seconds: float) -> None:
        """Silence of `idle_seconds` is too long. It counts from now, and from every `beat`."""
        self._idle_seconds: Final = idle_seconds
        self._deadlines: Final[set[asyncio.Timeout]] = set()
        self._is_silent = False
        self._idle_timer: IdleTimer | None = None
        self.beat()

    def beat(self) -> None:
        """Note a sign of life."""
        self._is_silent = False
        if self._idle_timer is None:
            self._idle_timer = IdleTimer(self._idle_seconds, self._note_silence)
        else:
            self._idle_timer.beat()

    def excuse(self) -> None:
        """Let its silence mean nothing, until the next sign of life."""
        self._is_silent = False
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    @contextlib.asynccontextmanager
    async def required(self) -> AsyncIterator[None]:
        """What runs inside is cancelled by too long a silence, which then is raised as SilenceError."""
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
