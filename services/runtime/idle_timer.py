"""Tells a peer that is silent from a process that is too busy to listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LOOKS: Final = 8
"""In so many parts the longest silence is waited for."""
MOST_IDLE_TIMES: Final = 8
"""So many times the longest silence may pass without a beat, however much is heard of the peer otherwise."""


def _nothing() -> int:
    return 0


class IdleTimer:
    """Waits for the signs of life of a peer, and reports when they fail to come for too long.

    Time in which the event loop stands still does not count: what arrived meanwhile has not been looked at yet.
    Therefore the wait is divided into parts, of which each begins only when the one before has ended, however late that
    was.
    """

    def __init__(self, idle_seconds: float, report: Callable[[], None], *, heard: Callable[[], int] = _nothing) -> None:
        """`report` is called once, when no sign of life has come for `idle_seconds`, at most an eighth of it later.

        Signs of life are calls of `beat`, and changes of what `heard` returns; the latter count only for MOST_SILENCES
        times `idle_seconds` after the last beat.
        """
        self._interval: Final = idle_seconds / LOOKS
        self._report: Final = report
        self._heard: Final = heard
        self._last_heard = 0
        self._looks = 0
        self._looks_without_beat = 0
        self._loop: Final = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle = self._loop.call_later(self._interval, self._look)

    def beat(self) -> None:
        """Note a sign of life."""
        self._looks = self._looks_without_beat = 0

    def cancel(self) -> None:
        """Report nothing any more."""
        self._timer.cancel()

    def _look(self) -> None:
        heard = self._heard()
        self._looks = self._looks + 1 if heard == self._last_heard else 0
        self._last_heard = heard
        self._looks_without_beat += 1
        # The first part is not a whole one: it had begun before the last sign of life.
        if self._looks > LOOKS or self._looks_without_beat > MOST_IDLE_TIMES * LOOKS:
            self._report()
        else:
            self._timer = self._loop.call_later(self._interval, self._look)
