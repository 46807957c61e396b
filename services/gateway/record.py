"""The record of one request. The pipeline fills it in; the access log, the metrics and the usage stream read it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from services.gateway.receipt_notes import ReceiptNotes
from services.runtime.tracing.local_trace import LocalTrace

_MOST_CHARACTERS: Final = 128
"""The most characters of a model's id in the log, because clients can send any text."""


class Outcome(StrEnum):
    """The end of a request. The values are used in metrics' labels, logs and usage records; docs/keys.md lists them."""

    COMPLETE = "complete"
    """The response was sent completely."""
    REJECTED = "rejected"
    """The request was rejected (4xx), by the gateway or by the worker."""
    FAILED = "failed"
    """The request could not be served (5xx)."""
    CLIENT_GONE = "client gone"
    """The client disconnected."""
    BUDGET = "budget"
    """A budget of the key ended the generation."""
    BROKEN_OFF = "broken off"
    """The worker ended the generation or the embedding with a failure, or before it was complete."""
    SILENT = "silent"
    """The worker sent no heartbeat for too long."""
    DRAINED = "drained"
    """The gateway's grace period after SIGTERM expired."""
    STOPPED = "stopped"
    """The request ended for a reason that was not noted."""
    LOST = "lost"
    """The gateway died, or lost its connection to Redis for too long. Only the limits script writes this outcome."""


CLIENT_CLOSED_REQUEST: Final = 499
"""The status in the log of a request whose client disconnected before the response. No client ever sees it."""


class Content(Protocol):
    """The content of a request and its response, if the operator has it logged."""

    def fields(self) -> dict[str, Any]:
        """Return fields of the request's log line."""
        ...


@dataclass(slots=True)
class RequestRecord:
    """One request. A field that is None was never known."""

    request_id: str
    method: str
    route: str = "none"
    """The template of the path. The path itself may contain any text of the client."""
    status: int = 0
    """The HTTP status; 0 while nothing was sent."""
    outcome: Outcome | None = None
    worker_status: str | None = None
    """The name of the gRPC status with which the worker ended a generation or an embedding, if that was a failure."""
    key_id: str | None = None
    model: str | None = None
    """The model that the request names, as it is logged."""
    model_label: str = "none"
    """The model as metrics name it: `unknown` for a model that does not exist."""
    stream: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    texts: int | None = None
    """The number of embedded texts."""
    error: str | None = None
    """The id of the message of the error that the client got."""
    first_token_ms: float | None = None
    """Milliseconds from the call of the worker to its first token."""
    first_token_at: float | None = None
    """The time of the first token, as `time.perf_counter` measures it."""
    seconds: float = 0.0
    """Seconds from the request's headers to the last byte of its response."""
    content: Content | None = None
    """The content, if it is logged."""
    traced_content: Content | None = None
    """The content, if it is an attribute of the request's span."""
    began: float = field(default_factory=time.perf_counter)
    stages: list[tuple[str, float]] = field(default_factory=list)
    """The stages that the request has entered, with the times, as `time.perf_counter` measures them."""
    trace: LocalTrace | None = None
    """None if traces are off."""

    receipt: ReceiptNotes = field(default_factory=ReceiptNotes)
    """The contents of the request's receipt besides this record."""

    def enter(self, stage: str) -> None:
        """Note that a stage begins, and that the one before it ends."""
        self.stages.append((stage, time.perf_counter()))

    def note_model(self, model: str, *, is_known: bool) -> None:
        """Note the model that the request names."""
        self.model = model[:_MOST_CHARACTERS]
        self.model_label = model if is_known else "unknown"

    @property
    def has_known_model(self) -> bool:
        """Whether the request names a model that exists. Otherwise `model` may be any text of the client."""
        return self.model_label not in ("none", "unknown")

    def end(self, *, route: str) -> None:
        """Note the end of the response. Derive the outcome from the status if no other was noted."""
        self.route = route
        self.seconds = time.perf_counter() - self.began
        if self.outcome is None:
            self.outcome = outcome_of(self.status)

    def exemplar(self) -> dict[str, str] | None:
        """Return the labels that link an observation of a histogram to this request; None if they would be too long."""
        # OpenMetrics allows 128 characters in all; clients may choose longer ids.
        fits = len("request_id") + len(self.request_id) <= _MOST_CHARACTERS
        return {"request_id": self.request_id} if fits else None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the request's log line that are known."""
        known = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "duration_ms": round(self.seconds * 1000, 1),
            "outcome": self.outcome,
            "worker_status": self.worker_status,
            "error": self.error,
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


def new_request_id() -> str:
    """Return an id for a request that came without one."""
    return f"req-{os.urandom(12).hex()}"


def outcome_of(status: int) -> Outcome:
    """Return the outcome of a request that ended with an HTTP status; 0 stands for a request without a response."""
    if status == CLIENT_CLOSED_REQUEST:
        return Outcome.CLIENT_GONE
    if status == 0:
        return Outcome.STOPPED
    if status < 400:
        return Outcome.COMPLETE
    return Outcome.REJECTED if status < 500 else Outcome.FAILED
