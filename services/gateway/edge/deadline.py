"""A time limit on an action of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final


class Deadline:
    """A timer that can be set again and cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the timers of `loop`."""
        self._loop: Final = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether the timer is running."""
        return self._timer is not None

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` in so many seconds. Replaces an earlier setting."""
        self.cancel()
        self._timer = self._loop.call_later(seconds, self._expire, expired)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, expired: Callable[[], None]) -> None:
        self._timer = None
        expired()
