"""Who goes next: texts wait here, so that the engine never has more than a little work ahead of a newcomer.

Self-clocked fair queueing (Golestani, 1994): every request is a flow, the engine's time is shared among the flows by
tokens, and a request with few tokens goes before one that has many left, whenever it comes. Nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True)
class Flow:
    """The batches of one request, which go in the order in which they were entered."""

    priority: int
    """Larger goes first, whatever the tokens."""
    finish: float = 0.0
    """The virtual time at which all that it has entered will be done."""


@dataclass(slots=True, order=True)
class _Batch:
    rank: int
    finish: float
    number: int
    tokens: int = field(compare=False)
    texts: int = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)


class FairQueue:
    """Lets batches through while at most `room` tokens are inside; a batch that is larger goes alone."""

    def __init__(self, *, room: int) -> None:
        """`room` is what the engine may have before it: a newcomer waits for so much at most."""
        self._room: Final = room
        self._inside = 0
        self._now = 0.0
        self._waiting: list[_Batch] = []
        self._numbers: Final = itertools.count()

    @property
    def queued_texts(self) -> int:
        """How many texts wait."""
        return sum(batch.texts for batch in self._waiting if not batch.admitted.cancelled())

    async def enter(self, flow: Flow, *, tokens: int, texts: int) -> None:
        """Wait for the turn of a batch. Whoever was let in must `leave` with the same tokens."""
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
        """A batch is done."""
        self._inside -= tokens
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            if batch.admitted.cancelled():
                heapq.heappop(self._waiting)
                continue
            if self._inside and self._inside + batch.tokens > self._room:
                return
            heapq.heappop(self._waiting)
            self._inside += batch.tokens
            self._now = max(self._now, batch.finish)
            batch.admitted.set_result(None)
