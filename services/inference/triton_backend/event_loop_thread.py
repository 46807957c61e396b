"""A thread with an event loop, for libraries that are asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


class EventLoopThread:
    """An event loop that runs until it is closed."""

    def __init__(self, name: str) -> None:
        """Start the thread, whose name is `name`."""
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop, and return its result. It must not be called in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function` in the loop soon. Raises RuntimeError if the loop is closed."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def create_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that runs `work`. It must be called in the loop."""
        return self._loop.create_task(work)

    def close(self) -> None:
        """Cancel all tasks, and end the thread."""
        self.run(_cancel_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _cancel_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
