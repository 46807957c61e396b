"""The spans of an HTTP request, made of its record when it has ended.

Names and attributes follow OpenTelemetry's semantic conventions where these have them:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and …/rpc/grpc/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from starlette.types import Scope

from services.gateway.edge.content_attributes import content_attributes
from services.gateway.record import Outcome, RequestRecord
from services.runtime.tracing.local_trace import LocalTrace, OutgoingCall, Tracer
from services.runtime.tracing.span import Span, SpanKind, Value, safe_text
from services.runtime.tracing.trace_context import TraceContext, parse

RawHeaders = Sequence[tuple[bytes, bytes]]
RESPONSE_HEADER: Final = b"traceresponse"
"""The header of a response with the ids of its trace and span, in the form of `traceparent`."""
_PROBES: Final = ("/healthz", "/readyz", "/health", "/ping")
"""The ends of the paths of probes."""
_FAILED: Final = frozenset({Outcome.FAILED, Outcome.BROKEN_OFF, Outcome.SILENT, Outcome.DRAINED, Outcome.STOPPED})
"""Outcomes that are an error of the server, whatever the status of the response was."""


def begin(tracer: Tracer, scope: Scope, headers: Mapping[bytes, bytes]) -> LocalTrace | None:
    """Begin the trace of a request; None for a probe."""
    if scope["path"].endswith(_PROBES):
        return None
    trace = tracer.begin(_caller(scope, headers))
    trace.attributes["url.path"] = safe_text(scope["path"])
    trace.attributes["url.scheme"] = scope.get("scheme", "http")
    return trace


def response_headers(trace: LocalTrace | None) -> RawHeaders:
    """Return the headers that name the trace to the client."""
    return () if trace is None else ((RESPONSE_HEADER, trace.context.traceparent().encode()),)


def end(trace: LocalTrace, record: RequestRecord) -> None:
    """End the trace of a request whose record has ended."""
    error = _error(record)
    # Whoever has no key must not decide what is exported.
    trusts_caller = record.key_id is not None
    trace.end(lambda: list(_spans(trace, record, error)), has_failed=error is not None, trusts_caller=trusts_caller)


def _caller(scope: Scope, headers: Mapping[bytes, bytes]) -> TraceContext | None:
    traceparent = headers.get(b"traceparent")
    if traceparent is None:
        return None
    # The header may be sent in several parts.
    states = [value for name, value in scope["headers"] if name == b"tracestate"]
    return parse(traceparent.decode("latin-1"), b",".join(states).decode("latin-1"))


def _error(record: RequestRecord) -> str | None:
    """Return the kind of the server's error with which a request ended."""
    if record.outcome in _FAILED:
        return record.worker_status or (str(record.status) if record.status >= 500 else str(record.outcome))
    return str(record.status) if record.status >= 500 else None


def _spans(trace: LocalTrace, record: RequestRecord, error: str | None) -> Iterator[Span]:
    now = record.began + record.seconds
    attributes: dict[str, Value | None] = {
        **({} if trace.is_detached else _http(record)),
        "gen_ai.request.model": None if record.model is None else safe_text(record.model),
        "gen_ai.request.stream": record.stream,
        "vilix.request.id": record.request_id,
        "vilix.key.id": record.key_id,
        "vilix.outcome": None if record.outcome is None else str(record.outcome),
        "vilix.error.message_id": record.error,
        **({} if record.traced_content is None else content_attributes(record.traced_content)),
    }
    name, kind = record.route, SpanKind.INTERNAL
    if not trace.is_detached:
        name, kind = record.method if name == "none" else f"{record.method} {name}", SpanKind.SERVER
    yield trace.root(safe_text(name), kind=kind, attributes=attributes, error=error)
    # The last stage ends with the request.
    for (stage, began), (_, ended) in pairwise([*record.stages, ("", now)]):
        yield trace.span(stage, began, ended)
    for call in trace.calls:
        yield _call_span(trace, call, record, now)


def _http(record: RequestRecord) -> dict[str, Value | None]:
    return {
        "http.request.method": safe_text(record.method),
        "http.route": None if record.route == "none" else record.route,
        "http.response.status_code": record.status or None,
    }


def _call_span(trace: LocalTrace, call: OutgoingCall, record: RequestRecord, now: float) -> Span:
    host, _, port = call.address.rpartition(":")
    first_token = record.first_token_at
    ended = now if call.ended is None else call.ended
    has_token = first_token is not None and call.began <= first_token <= ended
    attributes: dict[str, Value | None] = {
        "rpc.system.name": "grpc",
        "rpc.method": call.method,
        "rpc.response.status_code": call.status or ("OK" if call.ended is not None else None),
        "server.address": host or call.address,
        "server.port": int(port) if port.isdecimal() else None,
        "vilix.request.id": record.request_id,
    }
    events = [("first token", first_token)] if has_token and first_token is not None else []
    return trace.span(
        call.method,
        call.began,
        ended,
        context=call.context,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        error=call.status,
        events=events,
    )
