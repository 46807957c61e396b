"""A time limit on what a client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final


class Deadline:
    """At most one timer at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the timers of `loop`."""
        self._loop: Final = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether the time is running."""
        return self._timer is not None

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` in so many seconds, instead of what was set before."""
        self.cancel()
        self._timer = self._loop.call_later(seconds, self._expire, expired)

    def cancel(self) -> None:
        """Let it expire no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, expired: Callable[[], None]) -> None:
        self._timer = None
        expired()
