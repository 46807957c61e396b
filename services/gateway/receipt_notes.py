"""Notes of the steps of a request for its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

MOST_WORKERS: Final = 8
"""The most calls of workers that a receipt lists."""


@dataclass(slots=True)
class ReceiptNotes:
    """Notes for the receipt of one request. Times are those of `time.perf_counter`, and None if not reached."""

    arrived_at: float = field(default_factory=perf_counter)
    """When the client's request arrived."""
    endpoint: str = ""
    """The template of the path of the client's request."""
    alias: str | None = None
    """The alias of the model that the client has sent."""
    is_background: bool = False
    """Whether the client was answered before the work began."""
    is_handed_over: bool = False
    """Whether another record has the rest of the request, and its receipt."""
    is_settled: bool = False
    """Whether the settlement writes the receipt."""
    authenticated_at: float | None = None
    queued_at: float | None = None
    """When the request had to wait for a slot of its key."""
    admitted_at: float | None = None
    called_at: float | None = None
    """When the last worker was called."""
    last_token_at: float | None = None
    """When the last tokens or the vectors have arrived."""
    finish_reasons: list[str] = field(default_factory=list)
    """The different reasons for which choices ended, in the order of their arrival."""
    error: str | None = None
    """The id of the message of the error that ended the request."""
    status: int = 0
    """The HTTP status of that error."""
    addresses: list[str] = field(default_factory=list)
    """The workers that were called, oldest first."""
    attempts: int = 0
    """The number of calls of workers."""
    worker: str = ""
    """The name that the worker has reported."""
    engine: str = ""
    engine_version: str = ""
    worker_ms: Mapping[str, float] = field(default_factory=dict)
    """The durations of the phases in the worker, in milliseconds, by name."""
    parameters: str | None = None
    """A digest of the request's numeric parameters."""

    def note_call(self, address: str, now: float) -> None:
        """Note that a worker is called."""
        self.attempts += 1
        self.called_at = now
        if len(self.addresses) < MOST_WORKERS:
            self.addresses.append(address)

    def note_finish(self, reason: str) -> None:
        """Note that a choice has ended."""
        if reason not in self.finish_reasons:
            self.finish_reasons.append(reason)

    def note_error(self, message_id: str, status: int) -> None:
        """Note the error that ended the request."""
        self.error, self.status = message_id, status
