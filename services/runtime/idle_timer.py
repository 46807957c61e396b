"""A timer for the silence of a peer, which does not count the time in which this process is too busy to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

CHECKS: Final = 8
"""The parts into which the longest silence is divided; there is a check after each of them."""
MOST_IDLE_TIMES: Final = 8
"""How often the longest silence may pass without a beat, whatever other activity of the peer there is."""


def _no_activity() -> int:
    return 0


class IdleTimer:
    """Waits for signs of life of a peer, and reports when they have been missing for too long.

    Time in which the event loop stands still does not count: messages that arrived meanwhile have not been read yet.
    Therefore the wait is divided into parts, and each part begins only when the one before has ended, however late.
    """

    def __init__(
        self, idle_seconds: float, report: Callable[[], None], *, activity: Callable[[], int] = _no_activity
    ) -> None:
        """Call `report` once, when there has been no sign of life for `idle_seconds`, or at most an eighth later.

        Signs of life are calls of `beat`, and changes of the value of `activity`. The latter count only for
        MOST_IDLE_TIMES times `idle_seconds` after the last beat.
        """
        self._interval: Final = idle_seconds / CHECKS
        self._report: Final = report
        self._activity: Final = activity
        self._last_activity = 0
        self._silent_checks = 0
        self._checks_without_beat = 0
        self._loop: Final = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle = self._loop.call_later(self._interval, self._check)

    def beat(self) -> None:
        """Note a sign of life."""
        self._silent_checks = self._checks_without_beat = 0

    def cancel(self) -> None:
        """Stop the timer without a report."""
        self._timer.cancel()

    def _check(self) -> None:
        activity = self._activity()
        self._silent_checks = self._silent_checks + 1 if activity == self._last_activity else 0
        self._last_activity = activity
        self._checks_without_beat += 1
        # One check more than there are parts: the first part had begun before the last sign of life.
        if self._silent_checks > CHECKS or self._checks_without_beat > MOST_IDLE_TIMES * CHECKS:
            self._report()
        else:
            self._timer = self._loop.call_later(self._interval, self._check)
