"""Waits for conditions, each with a limit.

`what` describes the condition in a few words for the message of a failure ("the worker is ready").
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final

SECONDS: Final = 30.0
"""The default limit: far more than any wait takes on a busy machine."""
_SHORTEST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = SECONDS, what: str = "") -> None:
    """Wait until the result of `condition`, awaited if necessary, is true.

    Raises:
        AssertionError: The condition was not true within `seconds`.
    """
    pause = _SHORTEST_PAUSE
    try:
        async with asyncio.timeout(seconds) as limit:
            while True:
                result = condition()
                if (await result) if inspect.isawaitable(result) else result:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(_message(condition, seconds, what)) from None


def block_until(condition: Callable[[], object], seconds: float = SECONDS, what: str = "") -> None:
    """Wait until `condition` is true. This blocks the thread, and with it an event loop that runs there.

    Raises:
        AssertionError: The condition was not true within `seconds`.
    """
    limit, pause = time.monotonic() + seconds, _SHORTEST_PAUSE
    while not condition():
        if time.monotonic() >= limit:
            raise AssertionError(_message(condition, seconds, what))
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _message(condition: Callable[[], object], seconds: float, what: str) -> str:
    return f"not within {seconds:g} s: {what or condition}"
