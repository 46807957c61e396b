"""A queue of requests that wait for a slot of an engine."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, Protocol, TypeVar

from services.inference.triton_backend.contract import Request, Sink
from services.worker.triton_kit.request_error import RequestError


class Job(Protocol):
    """The record of an engine about one request."""

    @property
    def request(self) -> Request:
        """The request."""

    @property
    def sink(self) -> Sink:
        """The receiver of its output."""


J = TypeVar("J", bound=Job)


class WaitingQueue(Generic[J]):
    """Jobs ordered by priority, higher first, and then by arrival.

    It is not safe for use by several threads at once.
    """

    def __init__(self, *, limit: int) -> None:
        """Create an empty queue for at most `limit` jobs."""
        self._limit = limit
        self._heap: list[tuple[int, int, J]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        """Return the number of waiting jobs."""
        return len(self._heap)

    def push(self, job: J) -> None:
        """Add a job. Raises RequestError (OVERLOADED) if the queue is full."""
        if len(self._heap) >= self._limit:
            raise RequestError("OVERLOADED", "engine_queue_full", count=self._limit)
        heapq.heappush(self._heap, (-job.request.params.priority, next(self._order), job))

    def pop(self) -> J:
        """Remove and return the next job."""
        return heapq.heappop(self._heap)[2]

    def remove_cancelled(self) -> list[J]:
        """Remove and return the jobs that were cancelled."""
        cancelled = [entry for entry in self._heap if entry[2].sink.is_cancelled()]
        if cancelled:
            self._heap = [entry for entry in self._heap if entry not in cancelled]
            heapq.heapify(self._heap)
        return [job for _, _, job in cancelled]
