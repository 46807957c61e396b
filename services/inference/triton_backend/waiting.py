"""Requests that wait for a place in an engine."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, Protocol, TypeVar

from services.inference.triton_backend.contract import Request, Sink
from services.worker.triton_kit.request_error import RequestError


class Job(Protocol):
    """What an engine keeps about one request."""

    @property
    def request(self) -> Request:
        """What is asked for."""

    @property
    def sink(self) -> Sink:
        """Where the answer goes."""


J = TypeVar("J", bound=Job)


class WaitingLine(Generic[J]):
    """Jobs in the order in which they get a place: higher priority first, then first come, first served.

    Not safe for use by several threads at once.
    """

    def __init__(self, *, limit: int) -> None:
        """`limit` is how many may wait."""
        self._limit = limit
        self._heap: list[tuple[int, int, J]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._heap)

    def push(self, job: J) -> None:
        """Queue up. Raises RequestError (OVERLOADED) when the line is full."""
        if len(self._heap) >= self._limit:
            raise RequestError("OVERLOADED", f"{self._limit} requests are waiting already; try again in a moment")
        heapq.heappush(self._heap, (-job.request.params.priority, next(self._order), job))

    def pop(self) -> J:
        """The next one."""
        return heapq.heappop(self._heap)[2]

    def remove_cancelled(self) -> list[J]:
        """Take those out for which nobody waits any more."""
        gone = [entry for entry in self._heap if entry[2].sink.is_cancelled()]
        if gone:
            self._heap = [entry for entry in self._heap if entry not in gone]
            heapq.heapify(self._heap)
        return [job for _, _, job in gone]
