"""A fair queue of batches, so that the engine never has more than a little work ahead of a new request.

Self-clocked fair queueing (Golestani, 1994): every request is a flow, the engine's time is shared among the flows by
tokens, and a request with few tokens goes before one that has many left, whenever it comes. No request starves.
https://doi.org/10.1109/INFCOM.1994.337677
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True)
class Flow:
    """The batches of one request, which leave the queue in the order in which they entered it."""

    priority: int
    """A larger priority goes first, whatever the tokens."""
    finish: float = 0.0
    """The virtual time, in tokens, at which all batches that have entered will be done."""


@dataclass(slots=True, order=True)
class _Batch:
    rank: int
    finish: float
    number: int
    tokens: int = field(compare=False)
    texts: int = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)


class FairQueue:
    """Admits batches while at most `capacity` tokens are in the engine; a larger batch is admitted alone."""

    def __init__(self, *, capacity: int) -> None:
        """Create an empty queue. `capacity` is the most tokens in the engine, and ahead of a new request."""
        self._capacity: Final = capacity
        self._admitted_tokens = 0
        self._now = 0.0
        self._waiting: list[_Batch] = []
        self._numbers: Final = itertools.count()

    @property
    def queued_texts(self) -> int:
        """The number of texts that wait."""
        return sum(batch.texts for batch in self._waiting if not batch.admitted.cancelled())

    async def enter(self, flow: Flow, *, tokens: int, texts: int) -> None:
        """Wait until a batch is admitted. The caller must then call `leave` with the same tokens."""
        flow.finish = max(flow.finish, self._now) + tokens
        admitted = asyncio.get_running_loop().create_future()
        batch = _Batch(-flow.priority, flow.finish, next(self._numbers), tokens, texts, admitted)
        heapq.heappush(self._waiting, batch)
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.leave(tokens)
            raise

    def leave(self, tokens: int) -> None:
        """Release the capacity of an admitted batch, which is done."""
        self._admitted_tokens -= tokens
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            if batch.admitted.cancelled():
                heapq.heappop(self._waiting)
                continue
            if self._admitted_tokens and self._admitted_tokens + batch.tokens > self._capacity:
                return
            heapq.heappop(self._waiting)
            self._admitted_tokens += batch.tokens
            self._now = max(self._now, batch.finish)
            batch.admitted.set_result(None)
