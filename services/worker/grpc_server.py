"""A worker's gRPC server: message limits, health, reflection, errors as statuses, and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.runtime.certificates import Certificates
from services.runtime.failure import Failure, Reason
from services.runtime.loop_watch import INTERVAL_SECONDS, watched_loop
from services.runtime.messages.message import Message
from services.runtime.telemetry import without_keys
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.trace_context import CURRENT, TRACEPARENT, TRACESTATE, parse
from services.worker.malformed_messages import MalformedMessages
from services.worker.peer_connections import limited_peers
from services.worker.reflection import add_reflection

MAX_MESSAGE_BYTES: Final = 32 * 2**20
REQUEST_ID_KEY: Final = "x-request-id"
LIVENESS: Final = "liveness"
"""The name under which the health service reports SERVING for as long as the process answers at all."""
LONGEST_REQUEST_ID: Final = 128
KEEPALIVE_SECONDS: Final = 30.0

_OPTIONS: Final = [
    # Clients may send keepalive pings as often as they like, also on a connection without calls. Counting pings that
    # come too early, gRPC's default, costs fifteen times as much as answering them, and the connection of a client that
    # sends only pings would be closed much later.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two servers on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    # Bytes of headers: a call with more than the first is rejected with a rising probability, and with more than the
    # second always.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    # A connection is closed if its HTTP/2 handshake takes longer than the first, or after the second without any call.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # Calls that no task has accepted yet. Beyond the default of 1,000, gRPC cancels calls at random, also those of
    # other connections. Here the limits of connections and of calls on one connection bound them.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # The most new calls of one connection that gRPC accepts before it turns to the other connections.
    ("grpc.http2.max_requests_per_read", 4),
]
_log: Final = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on the connections and calls of a worker's ports. The defaults are those of the settings."""

    calls: int = 256
    """The most calls at the same time on one connection."""
    connections: int = 1024
    """The most connections to one port."""
    peer_connections: int = 32
    """The most connections from one address to one port."""

    def options(self) -> list[tuple[str, int]]:
        """Return the limits that gRPC enforces itself, as options of a server."""
        return [
            ("grpc.max_concurrent_streams", self.calls),
            ("grpc.max_allowed_incoming_connections", self.connections),
        ]


DEFAULT_LIMITS: Final = ConnectionLimits()


class WorkerServer:
    """A gRPC server with one service beside health and reflection."""

    def __init__(
        self,
        service: str,
        *,
        models: Iterable[str] = (),
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        connection_limits: ConnectionLimits = DEFAULT_LIMITS,
        tracer: Tracer | None = None,
    ) -> None:
        """Create a server for the service with the full name `service`, whose servicer the caller adds to `grpc`.

        Its health is NOT_SERVING until `set_serving`. The health service also reports on SERVICE/MODEL for each of
        `models`, which is NOT_SERVING until `set_model_serving`. The calls of a peer that has answered no keepalive
        ping for `keepalive_seconds` are cancelled. With `tracer`, calls are traced.
        """
        limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
        self._connection_limits: Final = connection_limits
        options = [*_OPTIONS, *connection_limits.options(), *_keepalive(keepalive_seconds), *limits]
        self.grpc: Final = grpc.aio.server(options=options, interceptors=[MalformedMessages()])
        self._service: Final = service
        self._health: Final = _Health(("", service), tuple(f"{service}/{model}" for model in models))
        self.tracer: Final = tracer
        self.drain: Final = asyncio.Event()
        """Set when the server is about to stop."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        add_reflection(self.grpc, (service, health.SERVICE_NAME))

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self.drain.is_set()

    async def wait_for_drain(self, *, seconds: float) -> None:
        """Wait `seconds`, or until the server is about to stop. For streams that do not end by themselves."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drain.wait(), seconds)

    def set_serving(self, serving: bool) -> None:
        """Set the health of the service. A server that drains stays NOT_SERVING."""
        if not self.draining:
            self._health.set(serving=serving)

    def set_model_serving(self, model: str, serving: bool) -> None:
        """Set the health of SERVICE/MODEL for `model`. A server that drains stays NOT_SERVING."""
        if not self.draining:
            self._health.set_one(f"{self._service}/{model}", serving=serving)

    async def run(
        self,
        listen: str,
        *,
        drain_seconds: float,
        health_listen: str = "",
        certificates: Certificates | None = None,
        loop_watch_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """Serve on `listen` (HOST:PORT) until SIGTERM or SIGINT, then let running calls finish within `drain_seconds`.

        With `certificates`, only clients with a certificate of the same CA are served. `health_listen` serves nothing
        but health, without TLS, for probes that have no certificate. A second signal ends calls at once. Raises OSError
        for an address that cannot be bound.
        """
        _bind(self.grpc, listen, certificates)
        async with (
            _signals() as signals,
            self._health_server(health_listen),
            watched_loop(seconds=loop_watch_seconds),
            limited_peers(listen, limit=self._connection_limits.peer_connections),
        ):
            # Freeze the objects of the start, so that garbage collection does not scan them and pause all calls.
            gc.collect()
            gc.freeze()
            await self.grpc.start()
            _log.info("listening on %s", listen)
            await anext(signals)
            _log.info("draining: at most %g s for running calls", drain_seconds)
            self.drain.set()
            self._health.end()
            drained = asyncio.ensure_future(self.grpc.stop(drain_seconds))
            second = asyncio.ensure_future(anext(signals))
            await asyncio.wait({drained, second}, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                await self.grpc.stop(None)
            await drained
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
        _log.info("stopped")

    @contextlib.asynccontextmanager
    async def _health_server(self, listen: str) -> AsyncIterator[None]:
        if not listen:
            yield
            return
        options = [*_OPTIONS, *self._connection_limits.options()]
        server = grpc.aio.server(options=options, interceptors=[MalformedMessages()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        _bind(server, listen, None)
        await server.start()
        try:
            async with limited_peers(listen, limit=self._connection_limits.peer_connections):
                yield
        finally:
            await server.stop(None)


def _keepalive(seconds: float) -> list[tuple[str, int]]:
    # The connection of a frozen process, or of one behind a broken network, is not closed: only its silence reveals it.
    half = round(seconds * 500)
    return [
        ("grpc.keepalive_time_ms", half),
        ("grpc.keepalive_timeout_ms", half),
        # Without it, this gRPC waits a minute for the answer, whatever the keepalive's timeout is.
        ("grpc.http2.ping_timeout_ms", half),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _bind(server: grpc.aio.Server, listen: str, certificates: Certificates | None) -> None:
    try:
        if certificates is None:
            server.add_insecure_port(listen)
        else:
            server.add_secure_port(listen, certificates.server_credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: {error}") from None


class _Health(health_pb2_grpc.HealthServicer):
    """The service grpc.health.v1.Health.

    grpcio-health-checking has a defect: when one watcher of a service leaves, the other watchers receive no further
    updates (https://github.com/grpc/grpc/pull/43403 fixes it and is open). Its watches also outlive a drain. This class
    can go when both have changed.
    """

    def __init__(self, services: tuple[str, ...], models: tuple[str, ...] = ()) -> None:
        self._services: Final = services
        self._serving = dict.fromkeys((*services, *models), False)
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, *, serving: bool) -> None:
        """Set the status of all services."""
        for service in self._services:
            self._serving[service] = serving
        self._notify()

    def set_one(self, name: str, *, serving: bool) -> None:
        """Set the status of one name."""
        self._serving[name] = serving
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """Set every status to NOT_SERVING for good, and end all watches after they have reported it."""
        self._ended = True
        self._serving = dict.fromkeys(self._serving, False)
        self._notify()

    async def Check(  # noqa: N802  # the method's name in the proto
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of one service."""
        if request.service != LIVENESS and request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:128]!r} here")
        return self._status(request.service)

    async def Watch(  # noqa: N802  # as above
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """Stream the status of one service, now and whenever it changes."""
        reported: health_pb2.HealthCheckResponse | None = None
        while True:
            # Read before anything is sent: the service may end meanwhile, and that is reported, too.
            changed, ended = self._changed, self._ended
            status = self._status(request.service)
            if status != reported:
                reported = status
                yield status
            if ended:
                return
            await changed.wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        answer = health_pb2.HealthCheckResponse
        if service == LIVENESS:
            return answer(status=answer.SERVING)
        if service not in self._serving:
            return answer(status=answer.SERVICE_UNKNOWN)
        return answer(status=answer.SERVING if self._serving[service] else answer.NOT_SERVING)


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[AsyncIterator[int]]:
    """Yield an iterator over the SIGTERM and SIGINT that the process receives."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, queue.put_nowait, number)

    async def iterate() -> AsyncIterator[int]:
        while True:
            yield await queue.get()

    try:
        yield iterate()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def request_id(context: Context) -> str:
    """Return the caller's `x-request-id`, cut to 128 characters, or a new one for a call without it."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str):
            return as_request_id(value)
    return as_request_id("")


def note_caller(context: Context) -> None:
    """Make the span in the caller's metadata, if there is one, the current one."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    CURRENT.set(parse(metadata.get(TRACEPARENT, ""), metadata.get(TRACESTATE, "")))


def as_request_id(text: str) -> str:
    """Return an `x-request-id`, cut to 128 characters and without API keys, or a new one for an empty one."""
    return without_keys(text[:LONGEST_REQUEST_ID]) or secrets.token_hex(8)


async def reject(context: Context, error: Exception, *, request_id: str = "") -> NoReturn:
    """End a call with the failure that `as_failure` makes of `error`."""
    await context.abort_with_status(as_failure(error, request_id=request_id).status())
    raise AssertionError("abort does not return")


def as_failure(error: Exception, *, request_id: str) -> Failure:
    """Return the failure with which a call ends because of `error`.

    An error that is no Failure is a fault of the worker: it is logged, and its text is not sent to the caller.
    """
    if isinstance(error, Failure):
        return error
    _log.error("call failed", exc_info=error, extra={"request_id": request_id})
    return Failure(Reason.INTERNAL, Message("worker_failed"))
