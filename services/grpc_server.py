"""A worker's gRPC server: message limits, health, reflection, refusals as statuses, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.failure import Failure, Reason

MAX_MESSAGE_BYTES: Final = 32 * 2**20
REQUEST_ID_KEY: Final = "x-request-id"

_OPTIONS: Final = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Clients may ask whether we are still there, also while nothing else is said.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two servers on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
]
_log: Final = logging.getLogger(__name__)


class WorkerServer:
    """A gRPC server with one service beside health and reflection."""

    def __init__(self, service: str, register: Callable[[grpc.aio.Server], None]) -> None:
        """`service` is the full name of what `register` adds. Its health is NOT_SERVING until `set_serving`."""
        self._service: Final = service
        self._server: Final = grpc.aio.server(options=_OPTIONS)
        self._health: Final = health.aio.HealthServicer()
        self._draining = False
        register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    @property
    def draining(self) -> bool:
        """Whether it is about to stop."""
        return self._draining

    async def set_serving(self, serving: bool) -> None:
        """Say over the health service whether requests can be answered."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", self._service):
            await self._health.set(name, status)

    async def run(self, listen: str, *, drain_seconds: float) -> None:
        """Serve on `listen` (HOST:PORT) until SIGTERM or SIGINT, then let running calls finish within `drain_seconds`.

        A second signal ends them at once. Raises OSError when the address cannot be had.
        """
        await self.set_serving(False)
        try:
            self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}: {error}") from None
        await self._server.start()
        _log.info("listening on %s", listen)
        async with _signals() as signals:
            await anext(signals)
            self._draining = True
            _log.info("draining: at most %g s for running calls", drain_seconds)
            await self._health.enter_graceful_shutdown()
            drained = asyncio.ensure_future(self._server.stop(drain_seconds))
            second = asyncio.ensure_future(anext(signals))
            await asyncio.wait({drained, second}, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                await self._server.stop(None)
            await drained
            second.cancel()
        _log.info("stopped")


@asynccontextmanager
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


def request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's `x-request-id`, or an empty string."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str):
            return value
    return ""


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End a call with an error. What is no Failure is a fault of ours: it is logged, and its text is not sent."""
    if not isinstance(error, Failure):
        _log.error("call %s failed", request_id(context) or "without id", exc_info=error)
        error = Failure(Reason.INTERNAL, "something went wrong inside the worker; its log has the details")
    await context.abort_with_status(error.status())
    raise AssertionError("abort does not return")
