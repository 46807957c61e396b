"""The part of a trace that one request has in this process. Its spans are made when the request has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from services.runtime.tracing.sampling import Sampling
from services.runtime.tracing.span import Span, SpanKind, Value
from services.runtime.tracing.trace_context import CURRENT, TraceContext, new_span_id, new_trace_id

MOST_SPANS: Final = 64
"""The most spans of one request in one process."""
DESCRIPTION: Final = (
    "Requests that take at least this long, and those that fail, are traced whatever the sampling ratio is, if traces "
    "are on: see docs/tracing.md."
)
SLOW_SECONDS: Final = 30.0
_log: Final = logging.getLogger(__name__)
Export = Callable[[Sequence[Span]], None]
"""Exports spans. It must neither wait nor raise."""


@dataclass(frozen=True)
class Tracer:
    """Begins the traces of requests, and exports those that are kept."""

    sampling: Sampling
    slow_seconds: float
    export: Export

    def begin(self, parent: TraceContext | None) -> LocalTrace:
        """Begin the part of a trace for a request of the caller `parent`; without one, a new trace."""
        return LocalTrace(self, parent)


@dataclass(slots=True)
class OutgoingCall:
    """A call of another service, which gets `context` as its parent."""

    address: str
    method: str
    """The full name of the gRPC method."""
    context: TraceContext
    began: float
    ended: float | None = None
    status: str | None = None
    """The name of the gRPC status, if it was a failure."""

    def end(self, status: str | None) -> None:
        """Note the end."""
        self.ended, self.status = time.perf_counter(), status


class LocalTrace:
    """The trace of one request. Times are those of `time.perf_counter`."""

    def __init__(self, tracer: Tracer, parent: TraceContext | None) -> None:
        """Begin now, and make the request's span the current one."""
        trace_id = new_trace_id() if parent is None else parent.trace_id
        is_sampled = tracer.sampling.samples(trace_id, parent)
        self.context: Final = TraceContext(trace_id, new_span_id(), is_sampled, "" if parent is None else parent.state)
        self.parent: Final = parent
        self.attributes: Final[dict[str, Value | None]] = {}
        self.calls: Final[list[OutgoingCall]] = []
        self.is_detached = False
        """Whether it is of work that goes on after a request of this process."""
        self._tracer: Final = tracer
        self._began: Final = time.perf_counter()
        self._began_ns: Final = time.time_ns()
        CURRENT.set(self.context)

    @property
    def began(self) -> float:
        """When the request began."""
        return self._began

    def call(self, address: str, method: str) -> OutgoingCall:
        """Note that another service is called, and return the call."""
        call = OutgoingCall(address, method, self.context.child(), time.perf_counter())
        if len(self.calls) < MOST_SPANS:
            self.calls.append(call)
        return call

    def follow(self) -> LocalTrace:
        """Return the trace of work that goes on after the request."""
        trace = LocalTrace(self._tracer, self.context)
        trace.is_detached = True
        return trace

    def span(
        self,
        name: str,
        begin: float,
        end: float,
        *,
        context: TraceContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, Value | None] | None = None,
        error: str | None = None,
        events: Iterable[tuple[str, float]] = (),
    ) -> Span:
        """Return a span below the request's, which has ended."""
        return Span(
            name,
            context or self.context.child(),
            self.context,
            kind,
            self._ns(begin),
            self._ns(end),
            attributes or {},
            error,
            [(event, self._ns(at)) for event, at in events],
        )

    def root(self, name: str, *, kind: SpanKind, attributes: dict[str, Value | None], error: str | None) -> Span:
        """Return the request's span, which ends now."""
        end = self._ns(time.perf_counter())
        attributes = self.attributes | attributes
        return Span(
            name,
            self.context,
            self.parent,
            kind,
            self._began_ns,
            end,
            attributes,
            error,
            has_remote_parent=self.parent is not None and not self.is_detached,
        )

    def end(self, make_spans: Callable[[], Sequence[Span]], *, has_failed: bool, trusts_caller: bool = True) -> None:
        """Export the spans of the request, which ends now, if it is sampled, has failed or was slow.

        Neither the decision nor the trace id of a caller that is not trusted counts: it could choose an id that every
        ratio samples.
        """
        tracer, is_sampled = self._tracer, self.context.is_sampled
        if self.parent is not None and not trusts_caller:
            is_sampled = tracer.sampling.chooses(self.context.span_id)
        if not (is_sampled or has_failed or time.perf_counter() - self._began >= tracer.slow_seconds):
            return
        try:
            tracer.export(make_spans()[:MOST_SPANS])
        except Exception:  # noqa: BLE001  # a fault of tracing must not end the request
            _log.exception("a trace was not exported")

    def _ns(self, at: float) -> int:
        return self._began_ns + round((at - self._began) * 1e9)
