"""Receives vLLM's statistics of its steps: the use of the KV cache, and the hits of the prefix cache."""

from __future__ import annotations

import importlib
from typing import Any, Final

from services.inference.triton_backend.step_progress import Progress


class Statistics:
    """The latest statistics of one model, whose ranks of data parallelism each have an engine."""

    def __init__(self, progress: Progress) -> None:
        """Note each step in `progress`."""
        self._progress: Final = progress
        self._use: Final[dict[int, float]] = {}
        self._asked = 0
        self._found = 0

    @property
    def kv_cache_use(self) -> float | None:
        """The share of the KV cache in use, what is kept for later requests not included; None before a request."""
        uses = list(self._use.values())
        return sum(uses) / len(uses) if uses else None

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """The share of the prompts' tokens that were found in the cache; None before a request."""
        return round(self._found / self._asked, 4) if self._asked else None

    def note(self, statistics: Any, engine: int) -> None:
        """Note a SchedulerStats of an engine, which has made a step."""
        self._progress.note_iterations()
        self._use[engine] = min(1.0, float(statistics.kv_cache_usage))
        # These are differences to the step before.
        cache = statistics.prefix_cache_stats
        if cache is not None:
            self._asked += cache.queries
            self._found += cache.hits


def logger_factory(statistics: Statistics) -> Any:
    """Return what AsyncLLM takes as one of its `stat_loggers`. Raises ImportError in an unknown version."""
    base: Any = importlib.import_module("vllm.v1.metrics.loggers").StatLoggerBase

    class Recorder(base):  # type: ignore[misc]  # its types are in another environment
        """Passes the statistics of one engine on."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            self._engine = engine_index

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                statistics.note(scheduler_stats, self._engine)

        def log_engine_initialized(self) -> None:
            pass

    return Recorder
