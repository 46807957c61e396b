"""Bounds the memory of request bodies in flight: of all together, and of each key.

A body counts with its Content-Length, or with the bytes received so far, until a worker has its request or the request
has ended. If the budget has no capacity left, a request waits for a moment and is then rejected. Slow senders are
rejected first, so that none of them occupies memory for as long as sending a body may take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.gateway import metrics
from services.gateway.errors import ApiError, unavailable
from services.runtime.allocator import give_back_free_memory
from services.runtime.messages.message import Message

DEFAULT_BYTES: Final = 256 * 2**20
WAIT_SECONDS: Final = 3.0
"""The longest wait of a body for capacity."""
MOST_WAITING, MOST_WAITING_OF_KEY = 256, 32
"""The most bodies that may wait, in all and per key. Each of them keeps what its connection has received so far."""
SMALL_BYTES: Final = 64 * 2**10
"""The least that an incomplete body counts, because a connection's buffers and task need memory too.

An eighth of the budget is kept for bodies that are not larger, so that large ones do not keep small ones out.
"""
SLOW_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.25
"""The interval in which a waiting body checks for slow senders."""
SLOW_BYTES_PER_SECOND: Final = 256 * 2**10
"""A sender below this rate for SLOW_SECONDS is slow: it is rejected if others wait for capacity."""
LARGE_BYTES: Final = 2**20
TRIM_SECONDS: Final = 1.0
"""Seconds after the release of a large body at which free memory is returned to the operating system."""
_CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT: Final = 2**60


class BodyBudget:
    """The bytes of a gateway's request bodies."""

    def __init__(self, *, total: int, per_key: int, wait_seconds: float = WAIT_SECONDS) -> None:
        """Allow at most `total` bytes in all and `per_key` bytes for one key. A body waits up to `wait_seconds`."""
        self._total: Final = total
        self._per_key: Final = per_key
        self._wait_seconds: Final = wait_seconds
        self._used = 0
        self._trimming: asyncio.TimerHandle | None = None
        self._used_by: Final[Counter[str]] = Counter()
        self._unfinished: Final[dict[BodyShare, None]] = {}
        self._waiting: Final[dict[asyncio.Future[None], tuple[BodyShare, int]]] = {}

    @property
    def used(self) -> int:
        """The bytes that all bodies count now."""
        return self._used

    def open(self, key_id: str) -> BodyShare:
        """Return an empty share for the body of a key's request. It must be released."""
        return BodyShare(self, key_id)

    async def grow(self, share: BodyShare, size: int) -> None:
        """Count a share as `size` bytes, once the budget has capacity for it.

        Raises ApiError (503) if the budget has no capacity within `wait_seconds`.
        """
        if self._fits(share, size):
            self._set(share, size)
            return
        of_key = self._used_by[share.key_id] + size - share.size > self._per_key
        of_same_key = sum(waiting.key_id == share.key_id for waiting, _ in self._waiting.values())
        if len(self._waiting) >= MOST_WAITING or of_same_key >= MOST_WAITING_OF_KEY:
            raise self._rejection(of_key=of_key)
        granted = asyncio.get_running_loop().create_future()
        self._waiting[granted] = (share, size)
        try:
            async with asyncio.timeout(self._wait_seconds):
                while not granted.done():
                    self._drop_slow(share, size - share.size, of_key=of_key)
                    await asyncio.wait([granted], timeout=LOOK_SECONDS)
        except TimeoutError:
            raise self._rejection(of_key=of_key) from None
        finally:
            self._waiting.pop(granted, None)

    def take(self, share: BodyShare, size: int) -> bool:
        """Count an empty share as `size` bytes, at most SMALL_BYTES, if an incomplete body would have capacity now."""
        if not self._fits(share, SMALL_BYTES):
            return False
        self._set(share, size)
        return True

    def shrink(self, share: BodyShare, size: int) -> None:
        """Count a share as `size` bytes, which is less than before, and admit waiting bodies.

        Bodies of the keys that use least of the budget come first.
        """
        if share.size - size >= LARGE_BYTES and self._trimming is None:
            self._trimming = asyncio.get_running_loop().call_later(TRIM_SECONDS, self._trim)
        self._set(share, size)
        if not self._waiting:
            return
        by_key = sorted(self._waiting.items(), key=lambda item: self._used_by[item[1][0].key_id])
        for granted, (waiting, requested) in by_key:
            if not granted.done() and self._fits(waiting, requested):
                self._set(waiting, requested)
                granted.set_result(None)

    def _trim(self) -> None:
        self._trimming = None
        asyncio.get_running_loop().run_in_executor(None, give_back_free_memory)

    def note_unfinished(self, share: BodyShare) -> None:
        """Note that a body is being received."""
        self._unfinished[share] = None

    def note_finished(self, share: BodyShare) -> None:
        """Note that a body is complete, or will not be received."""
        self._unfinished.pop(share, None)

    def _fits(self, share: BodyShare, size: int) -> bool:
        more = size - share.size
        total = self._total if size <= SMALL_BYTES else self._total - self._total // 8
        return self._used + more <= total and self._used_by[share.key_id] + more <= self._per_key

    def _set(self, share: BodyShare, size: int) -> None:
        more = size - share.size
        share.size = size
        self._used += more
        self._used_by[share.key_id] += more
        if not self._used_by[share.key_id]:
            self._used_by.pop(share.key_id)
        metrics.BODY_BYTES.of().value = self._used

    def _drop_slow(self, waiting: BodyShare, size: int, *, of_key: bool) -> None:
        """Reject the slowest senders until `size` bytes will be free, of the same key only if `of_key`."""
        now = asyncio.get_running_loop().time()
        slow = (
            share
            for share in self._unfinished
            if share is not waiting and share.size and (share.key_id == waiting.key_id or not of_key)
            if share.slow_from <= now
        )
        for share in sorted(slow, key=lambda share: share.slow_from):
            if size <= 0:
                return
            size -= share.size
            share.drop()

    def _rejection(self, *, of_key: bool) -> ApiError:
        metrics.BODIES_REJECTED.labels("key" if of_key else "process").inc()
        if of_key:
            return unavailable(Message("bodies_of_key_exceeded", limit=self._per_key)).closing()
        return unavailable(Message("bodies_exceeded")).closing()


class BodyShare:
    """One body's share of the budget."""

    def __init__(self, budget: BodyBudget, key_id: str) -> None:
        """Begin with no bytes."""
        self.key_id: Final = key_id
        self.size = 0
        self._budget: Final = budget
        self.slow_from = 0.0
        """When the sender will count as slow if nothing more is received, on the event loop's clock."""
        self._received = 0
        self._limit: asyncio.Timeout | None = None
        self._dropped = False

    @contextlib.asynccontextmanager
    async def receiving(self, announced: int = 0) -> AsyncIterator[None]:
        """Count a body inside the context, while it is received. `announced` is its Content-Length, 0 if unknown.

        Raises ApiError (503) if the budget has no capacity for it, or if it is rejected because its sender is slow.
        """
        self._budget.note_unfinished(self)
        try:
            async with asyncio.timeout(None) as self._limit:
                # The whole length is reserved first: if several large bodies each got a part, none could be completed.
                await self._budget.grow(self, max(announced, SMALL_BYTES))
                self.slow_from = asyncio.get_running_loop().time() + SLOW_SECONDS
                yield
        except TimeoutError:
            if not self._dropped:
                raise
            metrics.BODIES_REJECTED.labels("slow").inc()
            raise (unavailable(Message("body_too_slow")).closing()) from None
        finally:
            self._budget.note_finished(self)
        self._budget.shrink(self, self._received)

    def take(self, size: int) -> bool:
        """Count a complete body of up to SMALL_BYTES. Return whether the budget has capacity for it now."""
        return self._budget.take(self, size)

    async def add(self, size: int) -> None:
        """Count a part that was received. Raises ApiError (503)."""
        self._received += size
        now = asyncio.get_running_loop().time()
        self.slow_from = min(max(self.slow_from, now) + size / SLOW_BYTES_PER_SECOND, now + SLOW_SECONDS)
        if self._received > self.size:
            await self._budget.grow(self, self._received)

    def release(self) -> None:
        """Return the whole share to the budget."""
        if self.size:
            self._budget.shrink(self, 0)

    def drop(self) -> None:
        """Have `receiving` reject the body, to free its capacity."""
        if self._limit is not None and not self._dropped:
            self._dropped = True
            self._limit.reschedule(asyncio.get_running_loop().time())


def budget_sizes(total: int, per_key: int, *, max_body_bytes: int) -> tuple[int, int]:
    """Return the budgets of all bodies and of one key's in bytes. 0 stands for the default: see the settings.

    Raises ValueError if a body of `max_body_bytes` does not fit.
    """
    least = max_body_bytes + max_body_bytes // 7 + 1
    chosen = total or max(least, min(DEFAULT_BYTES, (container_memory() or _NO_LIMIT) // 4))
    chosen_per_key = per_key or max(max_body_bytes, chosen // 2)
    if chosen < least or chosen_per_key < max_body_bytes:
        raise ValueError(
            f"VILIX_BODIES_BYTES={chosen} and VILIX_KEY_BODIES_BYTES={chosen_per_key} have no capacity for one body of "
            f"VILIX_MAX_BODY_BYTES={max_body_bytes}; make them at least {least} and {max_body_bytes}"
        )
    return chosen, chosen_per_key


def container_memory() -> int | None:
    """Return the memory limit of the container in bytes, or None if there is none."""
    for path in _CGROUP_LIMITS:
        try:
            limit = path.read_text().strip()
        except OSError:
            continue
        if limit.isdecimal() and int(limit) < _NO_LIMIT:
            return int(limit)
    return None
