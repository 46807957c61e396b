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

from services.runtime.end_tasks import end_tasks

INTERVAL_SECONDS: Final = 0.05
"""Twenty measurements a second: most of their cost is the wake-up."""
DESCRIPTION: Final = (
    "Seconds between two measurements of how late the event loop is, for the metrics. A block of the loop may look "
    "shorter than it was by this much."
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
    task = asyncio.create_task(_watch(seconds))
    try:
        yield
    finally:
        await end_tasks(task)


async def _watch(interval: float) -> None:
    with _scheduler() as waited_for_processor:
        waited = waited_for_processor()
        while True:
            due, used, waited_before = time.perf_counter() + interval, time.process_time(), waited
            await asyncio.sleep(interval)
            # On a busy machine, every process is late. Only the part counts in which this process used a processor, and
            # the loop's thread was not waiting for one.
            waited = waited_for_processor()
            late = time.perf_counter() - due - (waited - waited_before)
            BLOCKED_SECONDS.observe(max(0.0, min(late, time.process_time() - used)))


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
