"""Keeps work on large requests off the event loop, which serves other requests meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import Message

Result = TypeVar("Result")
IN_THREAD_BYTES: Final = 4096
"""Encoding a text takes up to 0.2 ms per kilobyte."""


async def run_in_thread_if_large(request: Message, work: Callable[[], Result], *, is_large: bool = False) -> Result:
    """Return what `work` on `request` returns, or raise what it raises.

    It runs in a thread for a request of more than IN_THREAD_BYTES, and for work that `is_large` whatever the request's
    size.
    """
    if is_large or request.ByteSize() > IN_THREAD_BYTES:
        return await asyncio.to_thread(work)
    return work()
