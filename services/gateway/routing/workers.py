"""The workers of a service: which there are, which are healthy, what they serve, and which one takes a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway import metrics
from services.gateway.errors import ApiError, bad_request, unavailable
from services.gateway.routing.worker_connection import Connection, Connections

RETRY_SECONDS: Final = 0.2
REFRESH_SECONDS: Final = 1.0
"""Between two looks at what a worker serves: a model of it that has died is not served, though the worker lives."""
REPLACE_SECONDS: Final = 10.0
MAX_REFUSALS: Final = 10
"""After so many in a row, a worker that refuses to answer about itself counts as lost."""
_REFUSED: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""What a worker answers that is there, and overloaded. Its answers go on meanwhile."""
_log: Final = logging.getLogger(__name__)


class Client(Protocol):
    """A connection to one worker."""

    async def list_models(self) -> Sequence[Any]:
        """The models of the worker, which have an `id`. Raises grpc.aio.AioRpcError."""
        ...

    async def close(self) -> None:
        """End what is still running. The channel is closed afterwards."""
        ...


C = TypeVar("C", bound=Client)
M = TypeVar("M")


@dataclass(frozen=True)
class Service(Generic[C]):
    """A kind of workers."""

    name: str
    """The full name of the gRPC service, under which its health is asked."""
    endpoint: str
    """Where clients use its models."""
    connect: Callable[[grpc.aio.Channel, grpc.aio.Channel], C]
    """Over a channel for requests, and one for what a worker says of itself."""
    options: Sequence[tuple[str, Any]]
    """Of the channels."""


class Worker(Generic[C, M]):
    """One worker, watched while it is known."""

    def __init__(
        self,
        address: str,
        service: Service[C],
        connection: Connection,
        found: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """`address` is IP:PORT; `found` is told the ids of the models that it serves."""
        self._found: Final = found
        self.address: Final = address
        self.connection: Final = connection
        self._service: Final = service.name
        self._channel: Final = connection.open(address, service.options)
        # A connection of its own: a worker limits the calls on each, and what it says of itself must not wait for requests.
        own = ("grpc.use_local_subchannel_pool", 1)
        self._status_channel: Final = connection.open(address, [*service.options, own])
        self.client: Final[C] = service.connect(self._channel, self._status_channel)
        self.models: dict[str, M] = {}
        """What it serves; empty while it is not healthy."""
        self.in_flight = 0
        """Requests of this gateway that it works on."""
        self._refusals = 0
        """Answers about its health that it has refused in a row."""
        self._refresh: asyncio.Task[None] | None = None
        self._tasks = {asyncio.create_task(self._watch())}

    def lose_model(self, model: str) -> None:
        """Give no more requests for a model, until the worker names it again: it has just said that it cannot serve it."""
        self.models.pop(model, None)

    async def close(self) -> None:
        """Stop watching, and close the connection once its calls have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()
        await self._channel.close(grace=None)
        await self._status_channel.close(grace=None)

    async def _watch(self) -> None:
        try:
            while True:
                try:
                    await self._follow_health()
                except grpc.aio.AioRpcError as error:
                    self._refusals += 1
                    if error.code() not in _REFUSED or self._refusals > MAX_REFUSALS:
                        self._stop_refreshing()
                        self._lose(error.code())
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
        call = health_pb2_grpc.HealthStub(self._status_channel).Watch(request)  # type: ignore[attr-defined]  # its types miss it
        try:
            async for answer in call:
                self._refusals = 0
                self._stop_refreshing()
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    self._refresh = asyncio.create_task(self._keep_models())
                else:
                    self.models = {}
        finally:
            call.cancel()

    def _stop_refreshing(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None

    async def _keep_models(self) -> None:
        refusals = 0
        while True:
            try:
                models = await self.client.list_models()
            except grpc.aio.AioRpcError as error:
                # A process that is frozen keeps its connection, and only by its silence is known to be.
                refusals += 1
                if error.code() not in _REFUSED or refusals > MAX_REFUSALS:
                    self._lose(error.code())
                await asyncio.sleep(RETRY_SECONDS)
                continue
            refusals = 0
            if models and not self.models:
                # It was found over the one connection; requests go over the other.
                await self._channel.channel_ready()
                names = ", ".join(model.id for model in models)
                _log.info("worker found", extra={"worker": self.address, "models": names})
            self.models = {model.id: model for model in models}
            self._found(self.models)
            await asyncio.sleep(REFRESH_SECONDS if models else RETRY_SECONDS)


class Workers(Generic[C, M]):
    """All workers of one kind that this gateway knows."""

    def __init__(
        self,
        service: Service[C],
        targets: Sequence[str],
        *,
        expected: Sequence[str],
        resolve_seconds: float,
        connections: Connections,
    ) -> None:
        """`targets` are HOST:PORT, and `expected` the ids of models that there are even while no worker has them."""
        self._service: Final = service
        self.others: Sequence[Workers[Any, Any]] = ()
        """Those of other kinds, whose models must not be called unknown here."""
        self._connections: Final = connections
        self._targets: Final = targets
        self._expected: Final = dict.fromkeys(expected)
        """With every model that some worker has served: one whose only worker is lost is unavailable, and not unknown."""
        self._resolve_seconds: Final = resolve_seconds
        self._workers: dict[str, Worker[C, M]] = {}
        self._replaced: set[Worker[C, M]] = set()
        """Workers of connections that are no longer used for new requests."""
        self._task: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients use the models of these workers."""
        return self._service.endpoint

    async def open(self) -> None:
        """Begin to look for workers."""
        metrics.WORKERS.labels(self._service.name).set_function(self._count_serving)
        for model in self._expected:
            self._show(model)
        await self._resolve()
        self._task = asyncio.create_task(self._keep_resolving())

    async def close(self) -> None:
        """Let go of all workers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in (*self._workers.values(), *self._replaced)))

    def _count_serving(self) -> int:
        # Called from the thread that serves the metrics.
        return sum(bool(worker.models) for worker in tuple(self._workers.values()))

    def _find(self, models: Iterable[str]) -> None:
        for model in models:
            if model not in self._expected:
                self._expected[model] = None
                self._show(model)

    def _show(self, model: str) -> None:
        metrics.MODEL_AVAILABLE.labels(model).set_function(lambda: self._is_served(model))

    def _is_served(self, model: str) -> bool:
        # Called from the thread that serves the metrics.
        return any(model in worker.models for worker in tuple(self._workers.values()))

    def any_ready(self) -> bool:
        """Whether some worker serves some model."""
        return any(worker.models for worker in self._workers.values())

    def models(self) -> dict[str, M | None]:
        """Every model that is served, was served or is expected, by id; None for one that nobody serves at the moment."""
        models: dict[str, M | None] = dict.fromkeys(self._expected)
        for worker in self._workers.values():
            models.update(worker.models)
        return dict(sorted(models.items()))

    def has_another(self, model: str, *, but: Worker[C, M]) -> bool:
        """Whether a worker other than `but` serves the model."""
        return any(model in worker.models for worker in self._workers.values() if worker is not but)

    def choose(self, model: str, *, but: Worker[C, M] | None = None) -> Worker[C, M]:
        """The healthy worker with this model that has the fewest requests of ours; not `but`, if there is another.

        Raises ApiError: 404 for a model that does not exist, 400 for one of another kind, 503 for one that nobody serves
        at the moment.
        """
        able = [worker for worker in self._workers.values() if model in worker.models]
        others = [worker for worker in able if worker is not but]
        if others or able:
            return min(others or able, key=lambda worker: (worker.in_flight, random.random()))  # noqa: S311  # a tie
        self.check(model)
        raise unavailable(f"The model {model} is not available at the moment. Please try again in a few seconds.")

    def knows(self, model: str) -> bool:
        """Whether some worker serves the model, has served it, or is expected to."""
        return model in self._expected or any(model in worker.models for worker in self._workers.values())

    def check(self, model: str) -> None:
        """Raises ApiError: 404 for a model that does not exist, 400 for one of another kind."""
        if self.knows(model):
            return
        for other in self.others:
            if model in other.models():
                raise bad_request(
                    "model", f"The model {model} is not for this endpoint; it is used at {other.endpoint}."
                )
        known = ", ".join(self.models()) or "none at the moment"
        raise ApiError(
            404,
            f"The model {model[:128]!r} does not exist, or you may not use it. There are: {known}.",
            param="model",
            code="model_not_found",
        )

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(self._resolve_seconds)
            await self._resolve()

    async def _resolve(self) -> None:
        connection = await asyncio.to_thread(self._connections.current)
        addresses = [address for target in self._targets for address in await _addresses(target)]
        for address in addresses:
            if address not in self._workers:
                self._workers[address] = Worker(address, self._service, connection, self._find)
        for address in self._workers.keys() - set(addresses):
            # A name that cannot be looked up at the moment does not end a worker that answers.
            if not self._workers[address].models and not self._workers[address].in_flight:
                await self._workers.pop(address).close()
        stale = [worker for worker in self._workers.values() if worker.connection != connection]
        await asyncio.gather(*(self._replace(worker, connection) for worker in stale))
        for worker in [worker for worker in self._replaced if not worker.in_flight]:
            self._replaced.remove(worker)
            await worker.close()

    async def _replace(self, worker: Worker[C, M], connection: Connection) -> None:
        """Go over to a new connection, without a moment in which the worker is not there and without ending a request."""
        successor: Worker[C, M] = Worker(worker.address, self._service, connection, self._find)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPLACE_SECONDS):
                while worker.models and not successor.models:  # noqa: ASYNC110  # what it waits for has no event
                    await asyncio.sleep(RETRY_SECONDS)
        if worker.models and not successor.models:
            _log.warning("worker does not take the new certificate", extra={"worker": worker.address})
            await successor.close()
            return
        _log.info("connected with the new certificate", extra={"worker": worker.address})
        self._workers[worker.address] = successor
        self._replaced.add(worker)


async def _addresses(target: str) -> list[str]:
    host, _, port = target.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        _log.warning("worker name cannot be resolved", extra={"target": target, "error": str(error)})
        return []
    return sorted(
        {f"[{info[4][0]}]:{port}" if info[0] == socket.AF_INET6 else f"{info[4][0]}:{port}" for info in found}
    )
