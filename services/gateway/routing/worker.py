"""One worker: its health, the models that it serves, and the connections to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway.routing.worker_connection import Connection
from services.runtime.end_tasks import end_tasks

RETRY_SECONDS: Final = 0.2
REFRESH_SECONDS: Final = 2.0
"""Seconds between two lists of a worker's models, because a model can fail while its worker lives."""
REJECTED_SECONDS: Final = 0.5
"""Seconds from a request that the worker has rejected to the next list of its models."""
MAX_REJECTIONS: Final = 10
"""After so many rejected status calls in a row, a worker counts as lost."""
_REJECTED: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Statuses of an overloaded worker, which still serves the requests that it has."""
_log: Final = logging.getLogger(__name__)


class Client(Protocol):
    """A connection to one worker."""

    async def list_models(self) -> Sequence[Any]:
        """Return the models of the worker, which have an `id`. Raises grpc.aio.AioRpcError."""
        ...

    async def close(self) -> None:
        """End all running calls. The channel is closed afterwards."""
        ...


C = TypeVar("C", bound=Client)
M = TypeVar("M")


@dataclass(frozen=True)
class Service(Generic[C]):
    """A kind of workers."""

    name: str
    """The full name of the gRPC service, by which the worker's health is queried."""
    connect: Callable[[grpc.aio.Channel, grpc.aio.Channel], C]
    """Creates a client from a channel for requests and a channel for the worker's status."""
    options: Sequence[tuple[str, Any]]
    """The options of both channels."""


class Worker(Generic[C, M]):
    """One worker, whose health is watched until `close`."""

    def __init__(
        self,
        address: str,
        service: Service[C],
        connection: Connection,
        on_models: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """Connect to the worker at `address`, IP:PORT. `on_models` is called with the ids of the models it serves."""
        self._on_models: Final = on_models
        self.address: Final = address
        self.connection: Final = connection
        self._service: Final = service.name
        self._channel: Final = connection.open(address, service.options)
        # A separate connection: workers limit the calls on each, and a status must not wait behind requests.
        own = ("grpc.use_local_subchannel_pool", 1)
        self._status_channel: Final = connection.open(address, [*service.options, own])
        self.client: Final[C] = service.connect(self._channel, self._status_channel)
        self.models: dict[str, M] = {}
        """The models that it serves, by id; empty while it is not healthy."""
        self.was_reached = False
        """Whether the worker has reported its models or its state once, or could not be reached once."""
        self.in_flight = 0
        """The number of generations or embeddings of this gateway that run on it. Rendered prompts do not count."""
        self._rejections = 0
        """The number of calls about its health that the worker has rejected in a row."""
        self._refresh: asyncio.Task[None] | None = None
        self._has_lost_model: Final = asyncio.Event()
        self._tasks = {asyncio.create_task(self._watch())}

    def lose_model(self, model: str) -> None:
        """Stop sending requests for a model that the worker has just rejected, until its status lists it again."""
        self.models.pop(model, None)
        self._has_lost_model.set()

    async def close(self) -> None:
        """Stop watching, and close the connection once its calls have ended."""
        await end_tasks(*self._tasks)
        await self.client.close()
        await self._channel.close(grace=None)
        await self._status_channel.close(grace=None)

    async def _watch(self) -> None:
        try:
            while True:
                try:
                    await self._follow_health()
                except grpc.aio.AioRpcError as error:
                    self._rejections += 1
                    if error.code() not in _REJECTED or self._rejections > MAX_REJECTIONS:
                        self._stop_refreshing()
                        self._lose(error.code())
                        self.was_reached = True
                else:
                    self._stop_refreshing()
                    self.models = {}
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._stop_refreshing()

    def _lose(self, code: grpc.StatusCode) -> None:
        if self.models:
            _log.warning("worker lost", extra={"worker": self.address, "code": code.name})
        self.models = {}

    async def _follow_health(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._service)
        # The types of the package miss the method.
        call = health_pb2_grpc.HealthStub(self._status_channel).Watch(request)  # type: ignore[attr-defined]
        try:
            async for response in call:
                self._rejections = 0
                self._stop_refreshing()
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    self._refresh = asyncio.create_task(self._keep_models())
                else:
                    self.models = {}
                    self.was_reached = True
        finally:
            call.cancel()

    def _stop_refreshing(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None

    async def _keep_models(self) -> None:
        rejections = 0
        while True:
            self._has_lost_model.clear()
            try:
                models = await self.client.list_models()
            except grpc.aio.AioRpcError as error:
                # A frozen process keeps its TCP connection; only a failed call reveals it.
                rejections += 1
                if error.code() not in _REJECTED or rejections > MAX_REJECTIONS:
                    self._lose(error.code())
                await asyncio.sleep(RETRY_SECONDS)
                continue
            rejections = 0
            if models and not self.models:
                # The models were listed over the status channel; requests use the other one.
                await self._channel.channel_ready()
                names = ", ".join(model.id for model in models)
                _log.info("worker found", extra={"worker": self.address, "models": names})
            self.models = {model.id: model for model in models}
            self._on_models(self.models)
            self.was_reached = True
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS if models else RETRY_SECONDS):
                    await self._has_lost_model.wait()
                    await asyncio.sleep(REJECTED_SECONDS)
