"""uvicorn's HTTP protocol with the limits that it lacks.

The limits are the number of connections, the number of header bytes, and a deadline for each thing that a client can be
slow at. Middleware comes too late for them, because it runs only after all headers have arrived. Kludex/uvicorn#157
asked uvicorn for such time-outs and was closed without those of a request (docs/adr/0016).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from itertools import chain
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway import metrics
from services.gateway.edge import error_format
from services.gateway.edge.body_budget import SLOW_BYTES_PER_SECOND, SLOW_SECONDS
from services.gateway.edge.deadline import Deadline
from services.gateway.edge.direct_writer import DIRECT_WRITER, DirectWriter
from services.gateway.edge.framing import FramingError, framing_error
from services.gateway.edge.http10 import Http10Response
from services.gateway.edge.lingering_close import LINGER_SECONDS, LingeringTransport
from services.gateway.edge.open_connections import OpenConnections
from services.gateway.edge.served_request import SERVED_REQUEST, ServedRequest
from services.gateway.edge.stalled_writes import WatchedFlow
from services.gateway.errors import ApiError, ErrorKind
from services.gateway.record import new_request_id
from services.gateway.settings import GatewaySettings
from services.runtime.messages.message import Message

UNSENT_BYTES: Final = 64 * 1024
PARSED_BYTES: Final = 16 * 1024
"""The most bytes parsed at once. Bytes that the parser drops within it, such as chunk extensions, escape the limits."""
FRAMING_BYTES_PER_BODY_BYTE: Final = 16
"""Chunk framing that a body may have per byte, beyond `max_header_bytes`: enough for chunks of one byte."""
_log: Final = logging.getLogger(__name__)


class _RejectedError(Exception):
    """Stops the parser at a request that was rejected in one of its callbacks."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limits` and `others` are set by `protocol_for`."""

    limits: GatewaySettings
    others: OpenConnections
    """All connections of the listener, including this one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take uvicorn's arguments."""
        super().__init__(*args, **kwargs)
        self._header_bytes = 0
        self._trailer_bytes = 0
        self._body_bytes = 0
        self._body_since = 0.0
        """When the body began, on the event loop's clock."""
        self._framing_bytes = 0
        """Bytes of chunk framing of the body."""
        self._rejected: FramingError | None = None
        self._in_headers = True
        self._deadline: Final = Deadline(self.loop)
        self._write_deadline: Final = Deadline(self.loop)
        self._served_cycle: Any = None
        self._served_request: ServedRequest | None = None
        self.is_lingering = False
        """Whether received bytes are discarded, because the last response was sent."""

    @property
    def is_receiving(self) -> bool:
        """Whether the rest of a body is still to be received."""
        return not self._in_headers

    @property
    def is_broken(self) -> bool:
        """Whether bytes behind a request that is still being served could not be parsed."""
        return self._rejected is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Accept the connection. If there are too many, close the longest idle one, a slow sender, or else this one."""
        super().connection_made(transport)
        metrics.CONNECTIONS.inc()
        self.transport = LingeringTransport(transport, self)  # type: ignore[assignment]  # it has all that uvicorn uses
        self.flow = WatchedFlow(transport, self)
        # Otherwise the kernel would buffer megabytes for a client that does not read, and the engine would go on.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        is_full = len(self.connections) > self.limits.max_connections
        if is_full and not self.others.close_one():
            self._close("connections")
            return
        self.others.note_idle(self)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        metrics.CONNECTIONS.dec()
        self.others.forget(self)
        self._abandon()
        self._in_headers = True
        self._deadline.cancel()
        self.reader_caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. Reject a request that is not HTTP or whose headers are too long."""
        self._unset_keepalive_if_required()
        parsed = 0
        while parsed < len(data) and not (self.transport.is_closing() or self.is_broken):
            parsed += self._parse(data[parsed : parsed + PARSED_BYTES])
        if not (self._deadline.is_set or self.transport.is_closing() or self.is_broken):
            self._await_rest()

    def _parse(self, data: bytes) -> int:
        """Parse bytes. Return how many were parsed."""
        self._header_bytes += len(data)
        was_receiving, body_bytes = self.is_receiving, self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The client offers HTTP/2 or WebSockets; a server may ignore that.
            return int(upgrade.args[0]) or len(data)
        except httptools.HttpParserError as error:
            if not (self.transport.is_closing() or self.is_broken):
                self._reject_malformed(FramingError(400, _malformed(error)))
        else:
            if was_receiving and self.is_receiving:
                self._framing_bytes += len(data) - (self._body_bytes - body_bytes)
            most = self.limits.max_header_bytes
            # A header without an end never reaches `on_headers_complete`, and a trailer without one never `on_header`.
            if self._header_bytes > most or self._framing_bytes > most + FRAMING_BYTES_PER_BODY_BYTE * self._body_bytes:
                self._reject_headers()
        return len(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_headers = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Discard a trailer, because the request was authenticated without it."""
        if self._in_headers:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + 4
        if self._trailer_bytes > self.limits.max_header_bytes:
            self._reject_headers()
            raise _RejectedError

    def on_headers_complete(self) -> None:
        """Hand the request over, and wait for its body."""
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers))) + 4 * len(self.headers)
        if size > self.limits.max_header_bytes:
            self._reject_headers()
            raise _RejectedError
        version = self.parser.get_http_version()
        rejected = framing_error(version, self.headers)
        if rejected is not None:
            self._reject_malformed(rejected)
            raise _RejectedError
        # HTTP/1.0 has no interim responses.
        self.expect_100_continue = self.expect_100_continue and version == "1.1"
        super().on_headers_complete()
        self.others.note_request(self)
        self._body_since = self.loop.time()
        self._in_headers = False
        self._header_bytes = self._trailer_bytes = self._body_bytes = self._framing_bytes = 0
        self._deadline.cancel()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body. Bytes between two parts, and after the last, are limited as headers are."""
        self._header_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the body is complete."""
        self.others.note_received(self)
        self._deadline.cancel()
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, if there is one. Reject now what could not be parsed behind the last one."""
        super().on_response_complete()
        if self._served_cycle is not None and not self._served_cycle.response_complete:
            return
        if self._rejected is not None and not self.transport.is_closing():
            self._reject(self._rejected.status, "malformed", self._rejected.message)
        self._note_idle()

    def reader_is_behind(self) -> None:
        """Start the deadline for a client that reads more slowly than the response is written."""
        if not self._write_deadline.is_set:
            self._write_deadline.set(self.limits.write_seconds, self._reader_is_stuck)

    def reader_caught_up(self) -> None:
        """Cancel the deadline, because the client has read."""
        self._write_deadline.cancel()

    def _await_rest(self) -> None:
        """Set the deadline for what is incomplete. A request that arrived at once, as most do, needs no timer."""
        if not self._in_headers:
            self._deadline.set(self.limits.body_seconds, self._body_is_late)
        elif self._header_bytes:
            self._await_headers()
        elif self.cycle.response_complete and not self.pipeline:
            # The body has ended after its response: the connection is idle, and uvicorn has just stopped its timer.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _await_headers(self) -> None:
        self._deadline.set(self.limits.header_seconds, self._headers_are_late)

    def _headers_are_late(self) -> None:
        if self._is_responding():
            # The incomplete request is behind one that is still being served, whose response must not be cut off.
            self._await_headers()
        elif self._header_bytes:
            self._reject(408, "header_time", Message("headers_timed_out", limit=self.limits.header_seconds))
        else:
            self._close("header_time")

    def _body_is_late(self) -> None:
        if self.flow.read_paused:
            # Reading is paused by flow control, so the client is not late.
            self._deadline.set(self.limits.body_seconds, self._body_is_late)
        elif self.cycle.response_complete:
            self._close("body_time")
        else:
            self._reject(408, "body_time", Message("body_timed_out", limit=self.limits.body_seconds))

    def linger(self) -> None:
        """End the connection, but let a client that is still sending read its response.

        To close the connection at once would reset it.
        """
        self.is_lingering = True
        self._abandon()
        self._note_idle()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline.set(LINGER_SECONDS, self.transport.abort)

    def _note_idle(self) -> None:
        if self in self.connections:
            self.others.note_idle(self)

    @property
    def sends_slowly(self) -> bool:
        """Whether this client sends its body more slowly than SLOW_BYTES_PER_SECOND, after the first SLOW_SECONDS."""
        seconds = self.loop.time() - self._body_since - SLOW_SECONDS
        return seconds > 0 and not self.flow.read_paused and self._body_bytes < seconds * SLOW_BYTES_PER_SECOND

    def give_up_body(self) -> None:
        """Reject the request whose body is being received, to free its connection for a new one."""
        if self.cycle.response_complete:
            self._close("evicted")
        else:
            self._reject(408, "evicted", Message("body_slow_among_connections"))

    @property
    def has_unsent_bytes(self) -> bool:
        """Whether a part of a response waits for the client to read."""
        return self.transport.get_write_buffer_size() > 0

    def evict(self) -> None:
        """Close this connection, which has no request, to free it for a new one."""
        metrics.CONNECTIONS_REJECTED.labels("evicted").inc()
        self._deadline.cancel()
        self.transport.abort()

    def _reader_is_stuck(self) -> None:
        metrics.CONNECTIONS_REJECTED.labels("write_time").inc()
        # `close` would wait until the buffer is written, which this client prevents.
        self.transport.abort()

    def _reject(self, status: int, cause: str, message: Message) -> None:
        if self._is_responding():
            self._close(cause)
            return
        metrics.CONNECTIONS_REJECTED.labels(cause).inc()
        error = ApiError(status, ErrorKind.INVALID_REQUEST, message, code=cause)
        path = self.url.partition(b"?")[0].decode("latin-1")
        reply = error_format.render(error, path=path, headers={}, request_id=new_request_id())
        headers = {**reply.headers, "content-length": str(len(reply.body)), "connection": "close"}
        head = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n"
        self.transport.write(start.encode("latin-1") + reply.body)
        self.linger()

    def _reject_malformed(self, rejected: FramingError) -> None:
        """Reject bytes that cannot be parsed, after the requests before them have been served."""
        if self.is_receiving and self.cycle.response_started:
            self._close("malformed")
            return
        if self.is_receiving and self.pipeline:
            # The malformed bytes belong to the body of this request.
            self.pipeline.popleft()
        elif self.is_receiving or not self._is_responding():
            self._reject(rejected.status, "malformed", rejected.message)
            return
        self._rejected = rejected
        self._in_headers = True
        self._deadline.cancel()

    def _reject_headers(self) -> None:
        if self.is_receiving and self.cycle.response_complete:
            # The request already has its response, which the client must be able to read.
            metrics.CONNECTIONS_REJECTED.labels("header_bytes").inc()
            self.linger()
            return
        limit = self.limits.max_header_bytes
        self._reject(431, "header_bytes", Message("headers_too_large", limit=limit))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served_cycle = cycle
        self._served_request = ServedRequest(cycle)
        cycle.scope["extensions"] = {DIRECT_WRITER: DirectWriter(cycle), SERVED_REQUEST: self._served_request}
        if cycle.scope["http_version"] in ("0.9", "1.0"):
            app = Http10Response(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _abandon(self) -> None:
        """Tell the request that is being served that its client has disconnected, and drop the rest of its response.

        uvicorn tells only the last request, which waits behind this one if requests are pipelined.
        """
        if self._served_cycle is not None and not self._served_cycle.response_complete:
            self._served_cycle.disconnected = True
            self._served_cycle.message_event.set()
            if self._served_request is not None:
                self._served_request.disconnected()

    def _is_responding(self) -> bool:
        """Return whether a response written now would interrupt, or be taken for, that of an earlier request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return bool(self.pipeline)
        return cycle.response_started or not cycle.more_body or bool(self.pipeline)

    def _close(self, cause: str) -> None:
        metrics.CONNECTIONS_REJECTED.labels(cause).inc()
        self._abandon()
        self._in_headers = True
        self._deadline.cancel()
        self.transport.close()


def _malformed(error: httptools.HttpParserError) -> Message:
    if isinstance(error, httptools.HttpParserCallbackError | httptools.HttpParserInvalidURLError):
        # uvicorn raises it for targets that are not a path, such as those of CONNECT.
        return Message("http_target_not_valid")
    return Message("http_not_valid", reason=type(error).__name__)


def protocol_for(settings: GatewaySettings) -> type[LimitedProtocol]:
    """Return a protocol class with the limits of `settings`. uvicorn creates one object of it per connection."""
    return type("GatewayProtocol", (LimitedProtocol,), {"limits": settings, "others": OpenConnections()})
