"""Keeps work on large requests off the event loop, which serves others meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from vilix.inference.v1 import inference_service_pb2 as pb

T = TypeVar("T")
IN_THREAD_BYTES: Final = 4096
"""Larger requests are worked on in a thread: to encode them alone costs about 0.2 ms per kilobyte."""


async def apart(request: pb.GenerateRequest, work: Callable[[], T], *, is_much: bool = False) -> T:
    """What `work` on a request comes to, or raises. `is_much` is whether it is, even for a small request."""
    if is_much or request.ByteSize() > IN_THREAD_BYTES:
        return await asyncio.to_thread(work)
    return work()
