"""The record of one call, for the metrics and its log line, however the call ends."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import grpc
from prometheus_client import Counter, Histogram

from services.runtime.failure import Failure, Reason
from services.runtime.tracing.local_trace import LocalTrace, Tracer
from services.runtime.tracing.span import Span, SpanKind, Value
from services.runtime.tracing.trace_context import CURRENT, TraceContext

_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are an error of the server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""
_log: Final = logging.getLogger(__name__)


class CallRecord(ABC):
    """The record of one call: its context is the call, and leaving it counts and logs what the call did."""

    def __init__(
        self,
        name: str,
        *,
        request_id: str,
        model_id: str,
        requests: Counter,
        seconds: Histogram,
        tracer: Tracer | None = None,
        method: str = "",
    ) -> None:
        """Begin the record of a call, now.

        `name` is the message of its log line. `requests` has the labels model and outcome, `seconds` the label model.
        With `tracer`, the call of the gRPC `method` is traced.
        """
        self._name: Final = name
        self._request_id: Final = request_id
        self._model_id: Final = model_id
        self._requests: Final = requests
        self._seconds: Final = seconds
        self._accepted: Final = time.monotonic()
        self._tracer: Final = tracer
        self._method: Final = method
        self._trace: LocalTrace | None = None
        self._engine_context: TraceContext | None = None

    def __enter__(self) -> Self:
        if self._tracer is not None:
            self._trace = self._tracer.begin(CURRENT.get())
            # What the call does belongs to its main span, that of its request to the engine.
            self._engine_context = self._trace.context.child()
            CURRENT.set(self._engine_context)
        self._begin()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        outcome, seconds = _outcome(error), self._elapsed
        self._requests.labels(self._model_id, outcome).inc()
        self._seconds.labels(self._model_id).observe(seconds)
        fields = {
            "request_id": self._request_id,
            "model": self._model_id,
            "outcome": outcome,
            **self._end(succeeded=error is None),
            "seconds": round(seconds, 3),
        }
        _log.info(self._name, extra=fields)
        if self._trace is not None:
            self._end_trace(self._trace, error)

    def _end_trace(self, trace: LocalTrace, error: BaseException | None) -> None:
        status = _status(error)
        kind = _outcome(error) if status in _SERVER_ERRORS else None

        def spans() -> list[Span]:
            attributes: dict[str, Value | None] = {
                "rpc.system.name": "grpc",
                "rpc.method": self._method,
                "rpc.response.status_code": status,
                "gen_ai.request.model": self._model_id,
                "vilix.request.id": self._request_id,
            }
            root = trace.root(self._method, kind=SpanKind.SERVER, attributes=attributes, error=kind)
            return [root, *self._spans(trace, kind)]

        trace.end(spans, has_failed=kind is not None)

    def _spans(self, trace: LocalTrace, error: str | None) -> list[Span]:
        """Return the spans below that of the call, which has ended. `error` is the kind of a failure of ours."""
        return []

    @property
    def _elapsed(self) -> float:
        """Seconds since the record was begun."""
        return time.monotonic() - self._accepted

    @abstractmethod
    def _begin(self) -> None:
        """Count the call as one that runs."""

    @abstractmethod
    def _end(self, *, succeeded: bool) -> Mapping[str, object]:
        """Count what the call did, and return it as fields of the log line. `succeeded` is false after an error."""


def _status(error: BaseException | None) -> str:
    """Return the name of the gRPC status of a call."""
    if error is None:
        return grpc.StatusCode.OK.name
    if isinstance(error, Failure):
        return error.code.name
    return (grpc.StatusCode.INTERNAL if isinstance(error, Exception) else grpc.StatusCode.CANCELLED).name


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Failure):
        return str(error.reason)
    return str(Reason.INTERNAL) if isinstance(error, Exception) else "cancelled"
