"""Measures how long an event loop could not run because its own process kept it from running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import Gauge, Histogram

INTERVAL_SECONDS: Final = 0.05
"""Twenty measurements a second: most of their cost is the wake-up."""
IDLE_SHARE: Final = 0.04
"""The part of a processor below which a process is idle, and is measured less often."""
IDLE_INTERVALS: Final = 8
"""The longest time between two measurements of an idle process, in intervals."""
DESCRIPTION: Final = (
    "Seconds between two measurements of how late the event loop is, for the metrics. A block of the loop may look "
    f"shorter than it was by this much, and after a time without work by {IDLE_INTERVALS} times as much."
)
"""The description of the setting for the interval."""
_SCHEDULER: Final = Path("/proc/thread-self/schedstat")
BLOCKED_SECONDS: Final = Histogram(
    "vilix_event_loop_blocked_seconds",
    "How late the event loop was, as far as this process itself was busy meanwhile.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
TASKS: Final = Gauge("vilix_event_loop_tasks", "Tasks of the event loop that have not ended.")


@contextlib.asynccontextmanager
async def watched_loop(*, seconds: float = INTERVAL_SECONDS) -> AsyncIterator[None]:
    """Measure the running event loop in the context, every `seconds`."""
    loop = asyncio.get_running_loop()
    # Counted when the metrics are read, in the thread that serves them.
    TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
    with _scheduler() as waited_for_processor:
        watch = _Watch(loop, waited_for_processor, seconds)
        try:
            yield
        finally:
            watch.timer.cancel()


class _Watch:
    """Measures by a timer, which costs less than a task that sleeps."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waited_for_processor: Callable[[], float], interval: float
    ) -> None:
        self._loop: Final = loop
        self._waited_for_processor: Final = waited_for_processor
        self._interval: Final = interval
        self._wait_for(interval)

    def _wait_for(self, seconds: float) -> None:
        self._seconds = seconds
        self._used, self._waited = time.process_time(), self._waited_for_processor()
        self._due = time.perf_counter() + seconds
        self.timer = self._loop.call_later(seconds, self._measure)

    def _measure(self) -> None:
        # On a busy machine, every process is late. Only the part counts in which this process used a processor, and the
        # loop's thread was not waiting for one.
        late = time.perf_counter() - self._due - (self._waited_for_processor() - self._waited)
        used = time.process_time() - self._used
        BLOCKED_SECONDS.observe(max(0.0, min(late, used)))
        is_idle = used < IDLE_SHARE * self._seconds
        self._wait_for(min(2 * self._seconds, IDLE_INTERVALS * self._interval) if is_idle else self._interval)


@contextlib.contextmanager
def _scheduler() -> Iterator[Callable[[], float]]:
    """Yield a function that returns how many seconds this thread has waited for a processor (0 except on Linux)."""
    try:
        file = _SCHEDULER.open("rb", buffering=0)
    except OSError:
        yield lambda: 0.0
        return
    with file:
        yield lambda: int(os.pread(file.fileno(), 64, 0).split()[1]) / 1e9
