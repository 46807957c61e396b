"""Work that goes on after its client was answered, until it is done or the gateway's grace period has expired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

CANCEL_SECONDS: Final = 10.0
"""Seconds for which cancelled work may store its end."""
_log: Final = logging.getLogger(__name__)
_stopping: list[float] = []
"""When the process was told to stop, by `time.monotonic`."""


def note_stop() -> None:
    """Note that the process was told to stop: the grace period begins."""
    if not _stopping:
        _stopping.append(time.monotonic())


class BackgroundWork:
    """The background work of a gateway."""

    def __init__(self, drain_seconds: float) -> None:
        """Let work go on for `drain_seconds` after the process was told to stop."""
        self._drain_seconds: Final = drain_seconds
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin some work."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Wait for all work, and cancel what is not done when the grace period expires."""
        if not self._tasks:
            return
        until = (_stopping[0] if _stopping else time.monotonic()) + self._drain_seconds
        _, late = await asyncio.wait(set(self._tasks), timeout=max(0.0, until - time.monotonic()))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_SECONDS)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", exc_info=error)
