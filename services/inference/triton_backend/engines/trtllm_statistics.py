"""Reads TensorRT-LLM's statistics of its iterations: the use of the KV cache, and the hits of the prefix cache."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from services.inference.triton_backend.step_progress import Progress

STATISTICS_SECONDS: Final = 1.0
READ_SECONDS: Final = 0.05
"""The time for which reading waits for the next iteration. Some versions block the loop meanwhile."""
MOST_AT_ONCE: Final = 2000
_log: Final = logging.getLogger(__name__)


class Statistics:
    """The latest statistics of one engine. They stay unknown in a version that does not have them."""

    def __init__(self, llm: Any) -> None:
        """Prepare to read the statistics of `llm`, which was loaded with `enable_iter_perf_stats`."""
        self.kv_cache_use: float | None = None
        """The share of the KV cache's blocks in use, those kept for later requests not included."""
        self.prefix_cache_hit_rate: float | None = None
        """The share of the prompts' blocks that were found in the cache, since the engine's start."""
        self.iteration = -1
        """The number of the last iteration."""
        self._llm: Final = llm

    async def follow(self, progress: Progress, *, is_busy: Callable[[], bool]) -> None:
        """Read what is new every second while the engine `is_busy`, and once afterwards, and note it in `progress`."""
        seen = 0.0
        while True:
            await asyncio.sleep(STATISTICS_SECONDS)
            # Before the first request there are none, and an idle engine has nothing new.
            if not progress.noted_at or (not is_busy() and progress.result_at == seen):
                continue
            seen = progress.result_at
            try:
                if await self.read():
                    progress.note_iterations()
            except Exception:  # noqa: BLE001 - the engine works without them
                _log.exception("the statistics of the engine cannot be read")
                return

    async def read(self) -> bool:
        """Read what is new. Return whether the engine has made iterations.

        It must be called in the loop that runs requests, and not before the first one.
        """
        read = getattr(self._llm, "get_stats_async", None)
        if read is None:
            return False
        before = self.iteration
        iterations = read(READ_SECONDS)
        # Once there was nothing new in time, TensorRT-LLM's iterator yields nothing any more.
        with contextlib.suppress(AttributeError):
            iterations.mark_undone()
        count = 0
        async for iteration in iterations:
            self._note(iteration)
            count += 1
            # A fast engine may add them as fast as they are read.
            if count >= MOST_AT_ONCE:
                break
        return self.iteration != before

    def _note(self, iteration: Any) -> None:
        self.iteration = int(iteration.get("iter", self.iteration))
        cache = iteration.get("kvCacheStats") or {}
        if total := cache.get("maxNumBlocks"):
            self.kv_cache_use = min(1.0, cache.get("usedNumBlocks", 0) / total)
        if "cacheHitRate" in cache:
            self.prefix_cache_hit_rate = round(float(cache["cacheHitRate"]), 4)
