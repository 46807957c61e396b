"""Exports spans over OTLP with OpenTelemetry's SDK, from the thread of its batch processor.

The processor's queue is bounded: while the collector is away or slow, spans are lost and nothing waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from services.runtime.tracing.exporter_variables import check
from services.runtime.tracing.span import Span
from services.runtime.tracing.trace_context import TraceContext

CLOSE_SECONDS: Final = 3.0
"""The longest wait for the last spans at the end of the process."""
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class OtlpExport:
    """Exports spans of one process."""

    def __init__(self, service: str, environment: Mapping[str, str]) -> None:
        """Export for `service`, unless OTEL_SERVICE_NAME names it. Raises ValueError for a wrong variable."""
        self._scope: Final = InstrumentationScope("vilix", metadata.version("vilix"))
        own = {"service.version": metadata.version("vilix")}
        named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        # Attributes that are given here take precedence over the environment's.
        self._resource: Final = Resource.create(own if named else {**own, "service.name": service})
        self._processor: Final = BatchSpanProcessor(_exporter(environment))

    def __call__(self, spans: Sequence[Span]) -> None:
        """Queue spans for the thread that exports them."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Export what is queued, for a short time. A collector that is away does not hold up the end of the process."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _readable(self, span: Span) -> ReadableSpan:
        error = span.error
        attributes = {name: value for name, value in span.attributes.items() if value is not None}
        if error is not None:
            attributes["error.type"] = error
        parent = span.parent
        return ReadableSpan(
            span.name,
            context=_context(span.context, is_remote=False),
            parent=None if parent is None else _context(parent, is_remote=span.has_remote_parent),
            resource=self._resource,
            attributes=attributes,
            events=[Event(name, timestamp=at) for name, at in span.events],
            kind=SpanKind(span.kind.value),
            status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
            start_time=span.begin,
            end_time=max(span.begin, span.end),
            instrumentation_scope=self._scope,
        )


def _context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, _SAMPLED, state)


def _exporter(environment: Mapping[str, str]) -> SpanExporter:
    """Return the exporter of the configured protocol. It reads endpoint, headers, certificates and timeout itself."""
    # Each protocol imports libraries that the other does not need.
    if check(environment) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter()
