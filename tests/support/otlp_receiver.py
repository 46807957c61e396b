"""A stand-in for a collector of traces: receives OTLP over gRPC and HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto

KINDS = {
    Proto.SPAN_KIND_INTERNAL: "internal",
    Proto.SPAN_KIND_SERVER: "server",
    Proto.SPAN_KIND_CLIENT: "client",
}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as a collector gets it."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    begin: int
    end: int
    attributes: dict[str, Any]
    events: list[str]
    is_error: bool
    state: str


class OtlpReceiver(TraceServiceServicer):  # type: ignore[misc]  # generated code has no types
    """Keeps all spans. While `gate` is not set, it does not answer."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        """Set when a request has come."""
        self.grpc_endpoint = ""
        self.http_endpoint = ""

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        self.receive(request.SerializeToString())
        return ExportTraceServiceResponse()

    def receive(self, request: bytes) -> None:
        self.requests.append(request)
        self.waiting.set()
        self.gate.wait()

    def spans(self, trace_id: str | None = None) -> list[ReceivedSpan]:
        """Return the spans so far, in the order of their beginning; with `trace_id`, those of one trace."""
        spans = [span for request in list(self.requests) for span in _spans(request)]
        return sorted((span for span in spans if trace_id in (None, span.trace_id)), key=lambda span: span.begin)


@contextlib.contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """Receive spans until the context ends."""
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            receiver.receive(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_TraceServiceServicer_to_server(receiver, server)
    receiver.grpc_endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    receiver.http_endpoint = f"http://127.0.0.1:{http.server_port}"
    serving = threading.Thread(target=http.serve_forever, daemon=True)
    serving.start()
    try:
        yield receiver
    finally:
        receiver.gate.set()
        http.shutdown()
        http.server_close()
        serving.join()
        server.stop(None).wait()


def _spans(request: bytes) -> Iterator[ReceivedSpan]:
    for of_resource in ExportTraceServiceRequest.FromString(request).resource_spans:
        service = str(_attributes(of_resource.resource.attributes)["service.name"])
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    service,
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    [event.name for event in span.events],
                    span.status.code == 2,
                    span.trace_state,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)
