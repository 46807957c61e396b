"""Outermost ASGI middleware: request id, cross-origin headers, access log, request metrics, and the catch-all 500."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import metrics
from services.gateway.dialects.error_text import MESSAGE_ID_HEADER
from services.gateway.edge import error_format, request_spans
from services.gateway.edge.cors import Cors, answer_preflight, is_preflight
from services.gateway.errors import server_error
from services.gateway.i18n.language import ACCEPTED
from services.gateway.record import RequestRecord, new_request_id
from services.runtime.telemetry import log_event
from services.runtime.tracing.local_trace import Tracer

_SANE_ID: Final = re.compile(rb"(?!.*vlx_)[A-Za-z0-9._-]{1,128}")
"""Request ids that are accepted from clients. They go into all logs: they are short and must not contain a key."""
_METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
_MESSAGE_ID: Final = MESSAGE_ID_HEADER.encode()
_log: Final = logging.getLogger("vilix.access")


class Access:
    """ASGI middleware that begins and ends each request's record, which is `scope["state"]["record"]`."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], tracer: Tracer | None = None) -> None:
        """Wrap `app`. Pages of `origins` may call it; `*` stands for all origins. None for `tracer` traces nothing."""
        self._app: Final = app
        self._cors: Final = Cors(origins)
        self._tracer: Final = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The first of several fields with the same name counts, as it does everywhere else.
        headers = dict(reversed(scope["headers"]))
        record = RequestRecord(_request_id(headers.get(b"x-request-id", b"")), scope["method"])
        scope.setdefault("state", {})["record"] = record
        traced: request_spans.RawHeaders = ()
        if self._tracer is not None:
            record.trace = request_spans.begin(self._tracer, scope, headers)
            traced = request_spans.response_headers(record.trace)
        ACCEPTED.set(headers.get(b"accept-language", b"").decode("latin-1"))
        metrics.REQUESTS_IN_FLIGHT.of().value += 1

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                if record.status >= 400:
                    record.error = _message_id(message.get("headers", ()))
                elapsed = f"{(time.perf_counter() - record.began) * 1000:.0f}".encode()
                own = [(b"x-request-id", record.request_id.encode()), (b"openai-processing-ms", elapsed)]
                response_headers = [*message.get("headers", ()), *own, *traced]
                message["headers"] = [*response_headers, *self._cors.headers(headers, response_headers)]
            await send(message)

        try:
            if is_preflight(scope["method"], headers):
                await answer_preflight(send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception:  # noqa: BLE001  # every error must be logged and answered
            _log.exception("request failed", extra={"request_id": record.request_id})
            if record.status == 0:
                response = error_format.response(
                    server_error(record.request_id), path=scope["path"], headers={}, request_id=record.request_id
                )
                await response(scope, receive, send_with_headers)
        finally:
            record.end(route=getattr(scope.get("route"), "path", "none"))
            metrics.REQUESTS_IN_FLIGHT.of().value -= 1
            publish(record)


def _request_id(header: bytes) -> str:
    return header.decode() if _SANE_ID.fullmatch(header) else new_request_id()


def _message_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    message_id = next((value for name, value in headers if name.lower() == _MESSAGE_ID), None)
    return None if message_id is None else message_id.decode()


def publish(record: RequestRecord) -> None:
    """Log a request that has ended, and count it."""
    method = record.method if record.method in _METHODS else "other"
    metrics.REQUESTS.of(record.route, method, str(record.status), record.model_label).value += 1
    metrics.REQUEST_SECONDS.of(record.route, record.model_label).observe(record.seconds, link=record.exemplar())
    # The record of the work in the background counts it.
    if method == "POST" and not record.receipt.is_handed_over:
        metrics.OUTCOMES.of(record.model_label, str(record.outcome)).value += 1
    log_event(_log, "request", record.fields())
    if record.trace is not None:
        request_spans.end(record.trace, record)
