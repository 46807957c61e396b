"""What is known about one request. The pipeline fills it in; the access log, the metrics and the usage read it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

_MOST_CHARACTERS: Final = 128
"""Of a model's id in the log: it is whatever the client sent."""


class Outcome(StrEnum):
    """How a request ended. The values are labels of metrics, and stand in logs and usage records."""

    COMPLETE = "complete"
    """It was answered whole."""
    REJECTED = "rejected"
    """It was rejected for what it asks or for who asks (4xx)."""
    FAILED = "failed"
    """It could not be served (5xx)."""
    CLIENT_GONE = "client gone"
    """Its client disconnected."""
    BUDGET = "budget"
    """A budget of its key ended the answer."""
    DRAINED = "drained"
    """The gateway's grace period after SIGTERM expired."""
    SILENT = "silent"
    """Its worker gave no sign of life for too long."""
    STOPPED = "stopped"
    """It ended for a reason that was not noted."""

    BROKEN_OFF = "broken off"
    """Its worker ended the stream without an end of the answer."""
    # The worker ended the stream with a failure, whose gRPC status follows.
    BROKEN_OFF_INVALID_ARGUMENT = "broken off: INVALID_ARGUMENT"
    BROKEN_OFF_NOT_FOUND = "broken off: NOT_FOUND"
    BROKEN_OFF_UNAVAILABLE = "broken off: UNAVAILABLE"
    BROKEN_OFF_RESOURCE_EXHAUSTED = "broken off: RESOURCE_EXHAUSTED"
    BROKEN_OFF_DEADLINE_EXCEEDED = "broken off: DEADLINE_EXCEEDED"
    BROKEN_OFF_INTERNAL = "broken off: INTERNAL"

    # A call that is answered at once, as for embeddings, ended with this gRPC status.
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


def broken_off(status: str) -> Outcome:
    """Return the outcome of a stream that its worker ended with the gRPC status of this name."""
    return Outcome(f"{Outcome.BROKEN_OFF}: {status}")


CLIENT_CLOSED_REQUEST: Final = 499
"""The status of a request whose client did not wait. No client ever sees it."""


class Content(Protocol):
    """What a request said and was answered, where the operator has switched on that it is logged."""

    def fields(self) -> dict[str, Any]:
        """Return fields of the request's log line."""
        ...


@dataclass(slots=True)
class RequestRecord:
    """One request. What is None was never known."""

    request_id: str
    method: str
    route: str = "none"
    """The template of the path, and not the path itself, in which a client may have put anything."""
    status: int = 0
    """0 while nothing was sent."""
    outcome: Outcome | None = None
    key_id: str | None = None
    model: str | None = None
    """The model that the request names, as it is logged."""
    model_label: str = "none"
    """The same for metrics, which know only models that there are; `unknown` stands for all others."""
    stream: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    texts: int | None = None
    """How many texts were embedded."""
    first_token_ms: float | None = None
    """From the call of the worker to its first token."""
    seconds: float = 0.0
    """From the request's headers to the last byte of its response."""
    content: Content | None = None
    began: float = field(default_factory=time.perf_counter)

    def note_model(self, model: str, *, is_known: bool) -> None:
        """Note the model that the request names."""
        self.model = model[:_MOST_CHARACTERS]
        self.model_label = model if is_known else "unknown"

    def end(self, *, route: str) -> None:
        """Note the end of the response, and how the request ended if nothing more precise is known than the status."""
        self.route = route
        self.seconds = time.perf_counter() - self.began
        if self.outcome is None:
            self.outcome = _outcome_of(self.status)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the request's log line, without those that were never known."""
        known = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "duration_ms": round(self.seconds * 1000, 1),
            "outcome": self.outcome,
            "key_id": self.key_id,
            "model": self.model,
            "stream": self.stream,
            "first_token_ms": self.first_token_ms,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "texts": self.texts,
        }
        content = self.content.fields() if self.content is not None else {}
        return {name: value for name, value in known.items() if value is not None} | content


def _outcome_of(status: int) -> Outcome:
    if status == CLIENT_CLOSED_REQUEST:
        return Outcome.CLIENT_GONE
    if status == 0:
        return Outcome.STOPPED
    if status < 400:
        return Outcome.COMPLETE
    return Outcome.REJECTED if status < 500 else Outcome.FAILED
