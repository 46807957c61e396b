"""Runs work that may wait long, such as a download, without keeping the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of `work`, or raise its exception, from a thread of its own.

    If the caller is cancelled, the thread goes on until its work or the process ends: unlike the threads of
    `asyncio.to_thread`, it is not waited for.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="work").start()
    return await asyncio.wrap_future(future)
