"""A worker's gRPC server: message limits, health, reflection, refusals as statuses, and an orderly end."""

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
from grpc_reflection.v1alpha import reflection

from services.runtime.certificates import Certificates
from services.runtime.failure import Failure, Reason
from services.runtime.loop_watch import INTERVAL_SECONDS, watched_loop
from services.runtime.telemetry import without_keys
from services.worker.malformed_messages import MalformedMessages
from services.worker.peer_connections import limited_peers

MAX_MESSAGE_BYTES: Final = 32 * 2**20
REQUEST_ID_KEY: Final = "x-request-id"
LIVENESS: Final = "liveness"
"""A name that the health service knows: SERVING for as long as the process can answer at all."""
LONGEST_REQUEST_ID: Final = 128
KEEPALIVE_SECONDS: Final = 30.0

_OPTIONS: Final = [
    # Clients may ask whether we are still there, also while nothing else is said, and as often as they like. To count the
    # pings that come too early, as gRPC does by default, costs fifteen times as much as to answer them, and the connection
    # of somebody who sends nothing else is closed only long after.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two servers on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    # Headers: a call with more than the first is refused with a rising probability, and with more than the second always.
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    # A connection that has not become one of HTTP/2 by then is closed, and one without any call after the second.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # Calls that no task has taken up yet. From the default of 1,000 on, gRPC cancels calls at random, those of other
    # connections too. What bounds them here are the limits of connections and of calls on one connection.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # From one connection, gRPC takes up so many new calls before the others have their turn.
    ("grpc.http2.max_requests_per_read", 4),
]
MAX_CONCURRENT_CALLS_DESCRIPTION: Final = (
    "The most calls at the same time on one connection; a gRPC client lets further ones wait."
)
MAX_CONNECTIONS_DESCRIPTION: Final = "The most connections to one port of the worker. Further ones are closed at once."
MAX_PEER_CONNECTIONS_DESCRIPTION: Final = (
    "The most connections from one address to one port of the worker. The newest beyond it are closed."
)
_log: Final = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ConnectionLimits:
    """What callers may hold of a worker's ports. The defaults are those of the settings."""

    calls: int = 256
    """At the same time on one connection."""
    connections: int = 1024
    """To one port."""
    peer_connections: int = 32
    """From one address to one port."""

    def options(self) -> list[tuple[str, int]]:
        """Those that gRPC enforces itself."""
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
    ) -> None:
        """`service` is the full name of what is added to `grpc`. Its health is NOT_SERVING until `set_serving`.

        The health service also knows SERVICE/MODEL for each of `models`, NOT_SERVING until `set_model_serving`.

        The calls of a caller that has given no sign of life for `keepalive_seconds` are cancelled.
        """
        limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
        self._connection_limits: Final = connection_limits
        options = [*_OPTIONS, *connection_limits.options(), *_keepalive(keepalive_seconds), *limits]
        self.grpc: Final = grpc.aio.server(options=options, interceptors=[MalformedMessages()])
        self._service: Final = service
        self._health: Final = _Health(("", service), tuple(f"{service}/{model}" for model in models))
        self.drain: Final = asyncio.Event()
        """Set once it is about to stop."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)

    @property
    def draining(self) -> bool:
        """Whether it is about to stop."""
        return self.drain.is_set()

    async def wait_for_drain(self, *, seconds: float) -> None:
        """Wait `seconds`, or until it is about to stop. For streams that have no end of their own."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drain.wait(), seconds)

    def set_serving(self, serving: bool) -> None:
        """Say over the health service whether requests can be answered. Once it drains, they cannot."""
        if not self.draining:
            self._health.set(serving=serving)

    def set_model_serving(self, model: str, serving: bool) -> None:
        """Say over the health service whether requests for `model` can be answered."""
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

        With `certificates`, only clients that show one are served. `health_listen` serves nothing but health, without TLS,
        for probes that know none. A second signal ends calls at once. Raises OSError when an address cannot be had.
        """
        _bind(self.grpc, listen, certificates)
        async with (
            _signals() as signals,
            self._health_server(health_listen),
            watched_loop(seconds=loop_watch_seconds),
            limited_peers(listen, limit=self._connection_limits.peer_connections),
        ):
            # What there is now stays: to look through it again and again for garbage would stop all calls meanwhile.
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
    # The connection of a process that is frozen, or behind a network that has gone, is not closed: only its silence tells.
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

    Not the one of grpcio-health-checking: there, all other watchers of a service hear nothing more once one of them has
    left, and watches outlive a drain.
    """

    def __init__(self, services: tuple[str, ...], models: tuple[str, ...] = ()) -> None:
        self._services: Final = services
        self._serving = dict.fromkeys((*services, *models), False)
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, *, serving: bool) -> None:
        """The status of all services, from now on."""
        for service in self._services:
            self._serving[service] = serving
        self._notify()

    def set_one(self, name: str, *, serving: bool) -> None:
        """The status of one name, from now on."""
        self._serving[name] = serving
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """Nothing is served any more, and watches end with that."""
        self._ended = True
        self._serving = dict.fromkeys(self._serving, False)
        self._notify()

    async def Check(  # noqa: N802  # the method's name in the proto
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The status of one service, now."""
        if request.service != LIVENESS and request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:128]!r} here")
        return self._status(request.service)

    async def Watch(  # noqa: N802  # as above
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status of one service, now and whenever it changes."""
        told: health_pb2.HealthCheckResponse | None = None
        while True:
            # Read before anything is sent: it may end meanwhile, and the caller is told that, too.
            changed, ended = self._changed, self._ended
            status = self._status(request.service)
            if status != told:
                told = status
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
    """SIGTERM and SIGINT, as they come."""
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
    """The caller's `x-request-id`, cut to 128 characters, or one made up here."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str):
            return as_request_id(value)
    return as_request_id("")


def as_request_id(text: str) -> str:
    """What a caller gave as `x-request-id`, cut to 128 characters, or one made up here for an empty one."""
    return without_keys(text[:LONGEST_REQUEST_ID]) or secrets.token_hex(8)


async def refuse(context: Context, error: Exception, *, request_id: str = "") -> NoReturn:
    """End a call with an error, as `as_failure` makes it."""
    await context.abort_with_status(as_failure(error, request_id=request_id).status())
    raise AssertionError("abort does not return")


def as_failure(error: Exception, *, request_id: str) -> Failure:
    """The failure that a call ends with. What is none is a fault of ours: it is logged, and its text is not sent."""
    if isinstance(error, Failure):
        return error
    _log.error("call failed", exc_info=error, extra={"request_id": request_id})
    return Failure(Reason.INTERNAL, "something went wrong inside the worker; its log has the details")
