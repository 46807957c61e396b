"""Measures the load of an engine, for its description."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from services.inference.triton_backend.contract import Load

WINDOW_SECONDS: Final = 10


class LoadMeter:
    """Totals and the token rate of one engine. The engine's thread writes them, and other threads read them."""

    def __init__(self) -> None:
        self.generated_tokens_total = 0
        self.cancelled_total = 0
        self.slow_steps_total = 0
        self._last_token: float | None = None
        self._stepped: float | None = None
        """When the current step began, on the monotonic clock; None while there is nothing to compute."""
        self._thread: int | None = None
        self._waited = 0.0
        """Seconds that the engine's thread had waited for a processor when the step began."""
        self._seconds: deque[list[int]] = deque(maxlen=WINDOW_SECONDS + 1)
        """Pairs of a whole second and the tokens generated in it."""

    def generated(self, tokens: int) -> None:
        """Count `tokens` that were generated just now."""
        self._last_token = time.monotonic()
        self.generated_tokens_total += tokens
        second = int(self._last_token)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
        self._seconds[-1][1] += tokens

    def cancelled(self) -> None:
        """Count a cancelled request."""
        self.cancelled_total += 1

    def work_given(self) -> None:
        """Note a new request: from now on, progress is expected."""
        if self._stepped is None:
            self._waited = _waited(self._thread)
            self._stepped = time.monotonic()

    def stepped(self, *, has_work: bool = True) -> None:
        """Note that the engine made progress. Without work, no further progress is expected.

        Only the engine's thread may call it.
        """
        if self._thread is None:
            self._thread = threading.get_native_id()
        if has_work:
            self._waited = _waited(self._thread)
        self._stepped = time.monotonic() if has_work else None

    def slow_step(self) -> None:
        """Count a step of the engine that took longer than a second."""
        self.slow_steps_total += 1

    def load(self, *, in_flight: int, queued: int, kv_cache_use: float | None) -> Load:
        """Return the load, with the values that only the engine knows."""
        now, stepped = time.monotonic(), self._stepped
        # On an overloaded machine, the time in which the thread waits for a processor does not count as a stall.
        starved = _waited(self._thread) - self._waited
        recent = sum(tokens for second, tokens in list(self._seconds) if second > int(now) - WINDOW_SECONDS)
        return Load(
            in_flight=in_flight,
            queued=queued,
            kv_cache_use=None if kv_cache_use is None else round(kv_cache_use, 4),
            last_token_age_s=None if self._last_token is None else round(now - self._last_token, 3),
            tokens_per_second=recent / WINDOW_SECONDS,
            cancelled_total=self.cancelled_total,
            generated_tokens_total=self.generated_tokens_total,
            step_age_s=None if stepped is None else round(max(0.0, now - stepped - starved), 3),
            slow_steps_total=self.slow_steps_total,
        )


def _waited(thread: int | None) -> float:
    """Return the seconds that a thread of this process has waited for a processor since its start; 0 if not known.

    The source is `/proc/PID/task/TID/schedstat`, whose second number is that time in nanoseconds (Linux's
    Documentation/scheduler/sched-stats.rst).
    """
    if thread is None:
        return 0.0
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
