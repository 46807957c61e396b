"""Waits for conditions, each with a limit.

`what` says in a few words what a test waits for ("the worker is ready"); it is in the message of the failure.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 30.0
"""The limit where a test states none: far more than anything takes on a busy machine."""
_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = SECONDS, what: str = "") -> None:
    """Return when `condition` is true, or what it returns and is awaited for.

    Raises:
        AssertionError: It was not true within `seconds`.
    """
    pause = _SHORTEST_PAUSE
    try:
        async with asyncio.timeout(seconds) as limit:
            while True:
                found = condition()
                if (await found) if inspect.isawaitable(found) else found:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(_message(condition, seconds, what)) from None


def block_until(condition: Callable[[], object], seconds: float = SECONDS, what: str = "") -> None:
    """Return when `condition` is true. Blocks its thread, and with it an event loop that runs there.

    Raises:
        AssertionError: It was not true within `seconds`.
    """
    limit, pause = time.monotonic() + seconds, _SHORTEST_PAUSE
    while not condition():
        if time.monotonic() >= limit:
            raise AssertionError(_message(condition, seconds, what))
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _message(condition: Callable[[], object], seconds: float, what: str) -> str:
    return f"not within {seconds:g} s: {what or condition}"
