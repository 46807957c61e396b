"""A timer for the silence of a peer, which does not count the time in which this process is too busy to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

CHECKS: Final = 8
"""The parts into which the longest silence is divided; there is a check after each of them."""
MOST_IDLE_TIMES: Final = 8
"""The multiple of the longest silence that may pass without a heartbeat, whatever else the peer sends."""
STEPS: Final = 16
"""The parts into which the time between two checks is divided. Checks take place between them, so that those of many
timers share the wake-ups of the event loop."""


def _no_activity() -> int:
    return 0


class IdleTimer:
    """Waits for heartbeats and other activity of a peer, and reports when both have been missing for too long.

    Time in which the event loop stands still does not count: messages that arrived meanwhile have not been read yet.
    Therefore the wait is divided into parts, and each part begins only when the one before has ended, however late.
    """

    def __init__(
        self, idle_seconds: float, report: Callable[[], None], *, activity: Callable[[], int] = _no_activity
    ) -> None:
        """Call `report` once, when the peer has been silent for `idle_seconds`, or at most an eighth later.

        The peer is silent while `note_heartbeat` is not called and the value of `activity` does not change. Such a
        change counts only for MOST_IDLE_TIMES times `idle_seconds` after the last heartbeat.
        """
        self._interval: Final = idle_seconds / CHECKS
        self._report: Final = report
        self._activity: Final = activity
        self._last_activity = 0
        self._silent_checks = 0
        self._checks_without_heartbeat = 0
        self._loop: Final = asyncio.get_running_loop()
        self._timer = self._check_later()

    def note_heartbeat(self) -> None:
        """Note that the peer has sent a heartbeat."""
        self._silent_checks = self._checks_without_heartbeat = 0

    def cancel(self) -> None:
        """Stop the timer without a report."""
        self._timer.cancel()

    def _check(self) -> None:
        activity = self._activity()
        self._silent_checks = self._silent_checks + 1 if activity == self._last_activity else 0
        self._last_activity = activity
        self._checks_without_heartbeat += 1
        # One check more than there are parts: the first part had begun before the last heartbeat or activity.
        if self._silent_checks > CHECKS or self._checks_without_heartbeat > MOST_IDLE_TIMES * CHECKS:
            self._report()
        else:
            self._timer = self._check_later()

    def _check_later(self) -> asyncio.TimerHandle:
        # The nearest common time. A check may come a little early, because uvloop counts whole milliseconds, and must
        # not lose a step each time: so all parts together lose at most half a step.
        step = self._interval / STEPS
        return self._loop.call_at(round((self._loop.time() + self._interval) / step) * step, self._check)
