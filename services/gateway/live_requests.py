"""The requests that this gateway serves at the moment, for the admin API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.gateway.cleanup import Cleanup
from services.gateway.record import RequestRecord
from services.gateway.tenancy.admission import Admission
from services.gateway.tenancy.key import Key


class Phase(StrEnum):
    """The phase of a running request."""

    RECEIVING = "receiving"
    """Its body is being received, or its limits are being checked."""
    QUEUED = "queued"
    """It waits for a concurrency slot of its key."""
    WAITING = "waiting"
    """It is with a worker, and has no token yet."""
    GENERATING = "generating"
    """Tokens arrive."""


@dataclass(slots=True)
class LiveRequest:
    """A running request."""

    record: RequestRecord
    key: Key
    admission: Admission | None = None

    @property
    def phase(self) -> Phase:
        """The phase of the request."""
        if self.admission is None:
            return Phase.RECEIVING
        if not self.admission.is_admitted:
            return Phase.QUEUED
        return Phase.WAITING if self.record.first_token_at is None else Phase.GENERATING

    @property
    def seconds(self) -> float:
        """Seconds since the request's headers were received."""
        return time.perf_counter() - self.record.began

    @property
    def tokens(self) -> tuple[int | None, int]:
        """The tokens of the prompt, None while the worker has not counted them, and those generated so far."""
        if self.admission is None or not self.admission.is_admitted:
            return None, 0
        produced = self.admission.reservation.produced
        return produced.prompt, produced.completion

    @property
    def tokens_per_second(self) -> float | None:
        """The generated tokens per second since the first one; None before it."""
        _, completion = self.tokens
        if self.record.first_token_at is None or completion < 2:
            return None
        return completion / max(time.perf_counter() - self.record.first_token_at, 1e-3)


class LiveRequests:
    """The running requests of a gateway, oldest first."""

    def __init__(self) -> None:
        self._requests: Final[dict[int, LiveRequest]] = {}

    def enter(self, record: RequestRecord, key: Key, cleanup: Cleanup) -> LiveRequest:
        """Count a request as running until `cleanup` is closed, and return it; the same for the same record."""
        live = self._requests.get(id(record))
        if live is None:
            live = self._requests[id(record)] = LiveRequest(record, key)
            cleanup.callback(self._requests.pop, id(record), None)
        return live

    def all(self) -> list[LiveRequest]:
        """Return the running requests."""
        return list(self._requests.values())
