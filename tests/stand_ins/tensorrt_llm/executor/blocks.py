"""The KV cache of one rank, and the statistics of its iterations."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any


class Blocks:
    TOKENS = 32

    def __init__(self, *, total: int, reuse: bool, records: bool) -> None:
        self.reused = self.missed = 0
        self._total, self._reuse, self._records = total, reuse, records
        self._prompts: dict[str | None, list[list[int]]] = {}
        self._iterations: deque[dict[str, Any]] = deque(maxlen=1000)

    def take(self, prompt: list[int], salt: str | None) -> int:
        """Store the blocks of a prompt, and return the number of its tokens that were stored before."""
        if not self._reuse:
            return 0
        earlier = self._prompts.setdefault(salt, [])
        longest = 0
        for other in earlier:
            same = next(
                (n for n, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), min(len(prompt), len(other))
            )
            longest = max(longest, min(same, len(prompt) - 1) // self.TOKENS)
        earlier.append(prompt)
        self.reused += longest
        self.missed += -(-len(prompt) // self.TOKENS) - longest
        return longest * self.TOKENS

    def note_step(self, iteration: int, running: Sequence[Any], queued: int) -> None:
        if not self._records:
            return
        used = sum(-(-(each.prompt_tokens + len(each.generated)) // self.TOKENS) for each in running)
        self._iterations.append(
            {
                "iter": iteration,
                "numActiveRequests": len(running),
                "numQueuedRequests": queued,
                "kvCacheStats": {
                    "maxNumBlocks": self._total,
                    "usedNumBlocks": used,
                    "freeNumBlocks": self._total - used,
                    "tokensPerBlock": self.TOKENS,
                    "reusedBlocks": self.reused,
                    "missedBlocks": self.missed,
                    "cacheHitRate": self.reused / ((self.reused + self.missed) or 1),
                },
            }
        )

    def read(self) -> list[dict[str, Any]]:
        read = []
        while self._iterations:
            read.append(self._iterations.popleft())
        return read


class IterationResult:
    """The iterations as they come. Once there was none for the timeout, there are none until `mark_undone`."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks, self._ready, self._done, self._timeout = blocks, deque[dict[str, Any]](), False, 0.0

    def set_timeout(self, timeout: float) -> None:
        self._timeout = timeout

    def mark_undone(self) -> None:
        self._done = False

    def __aiter__(self) -> IterationResult:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._done:
            raise StopAsyncIteration
        self._ready.extend(self._blocks.read())
        if not self._ready:
            await asyncio.sleep(self._timeout)
            self._ready.extend(self._blocks.read())
        if not self._ready:
            self._done = True
            raise StopAsyncIteration
        return self._ready.popleft()
