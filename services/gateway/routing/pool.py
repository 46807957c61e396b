"""The pool of workers of one kind: finds them by DNS, and chooses one for each call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

from services.gateway import metrics
from services.gateway.errors import ApiError, unavailable
from services.gateway.routing.policy import Policy, RoutedRequest, least_load
from services.gateway.routing.worker import RETRY_SECONDS, C, M, Service, Worker
from services.gateway.routing.worker_connection import Connection, Connections
from services.runtime.end_tasks import end_tasks
from services.runtime.messages.message import Message

REPLACE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 10.0
"""The time that a new gateway has to find workers before it counts as ready without them."""
R = TypeVar("R", bound=RoutedRequest)
_log: Final = logging.getLogger(__name__)


def _unserved(model: str) -> ApiError:
    return unavailable(Message("model_unavailable", model=model))


class WorkerPool(Generic[C, M, R]):
    """All workers of one kind that this gateway knows. `R` is the type of the requests to them."""

    def __init__(
        self,
        service: Service[C],
        targets: Sequence[str],
        *,
        endpoint: str,
        expected: Sequence[str],
        resolve_seconds: float,
        connections: Connections,
        policy: Policy[R] = least_load,
    ) -> None:
        """Watch the workers of one kind.

        Args:
            service: The kind of workers.
            targets: HOST:PORT of each; a name with several addresses stands for all of them.
            endpoint: The path of the API for the models of these workers, for error messages.
            expected: The ids of models that are listed even if no worker serves them.
            resolve_seconds: Seconds between two look-ups of names.
            connections: Opens connections to workers.
            policy: Chooses one of several workers for a request.
        """
        self.endpoint: Final = endpoint
        self._service: Final = service
        self._policy: Final = policy
        self._connections: Final = connections
        self._targets: Final = targets
        self._expected: Final = dict.fromkeys(expected)
        """These, and all models that were ever served: one that has lost its worker is unavailable, not unknown."""
        self._resolve_seconds: Final = resolve_seconds
        self._workers: dict[str, Worker[C, M]] = {}
        self._replaced: set[Worker[C, M]] = set()
        """Workers of connections that are no longer used for new requests."""
        self._task: asyncio.Task[None] | None = None
        self._opened = 0.0
        self._unresolved: set[str] = set(targets)
        """The targets whose names have not been resolved yet. A name without addresses is resolved."""

    async def open(self) -> None:
        """Begin to find and watch workers."""
        self._opened = time.monotonic()
        metrics.WORKERS.labels(self._service.name).set_function(self._count_serving)
        for model in self._expected:
            self._show(model)
        await self._resolve()
        self._task = asyncio.create_task(self._keep_resolving())

    async def close(self) -> None:
        """Close the connections to all workers."""
        if self._task is not None:
            await end_tasks(self._task)
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
        metrics.prepare_model(model)
        metrics.MODEL_AVAILABLE.labels(model).set_function(lambda: bool(self._count_workers(model)))
        metrics.MODEL_WORKERS.labels(model).set_function(lambda: self._count_workers(model))

    def _count_workers(self, model: str) -> int:
        # Called from the thread that serves the metrics.
        return sum(model in worker.models for worker in tuple(self._workers.values()))

    def any_ready(self) -> bool:
        """Return whether some worker serves some model."""
        return any(worker.models for worker in self._workers.values())

    def has_looked(self) -> bool:
        """Return whether all names were resolved, and all workers there have reported their models or failed to.

        A gateway that is ready earlier would reject requests for models that other gateways serve. It does not wait
        for ever, because the names or workers may be out of order.
        """
        found = not self._unresolved and all(worker.was_reached for worker in self._workers.values())
        return found or time.monotonic() - self._opened > LOOK_SECONDS

    def models(self) -> dict[str, M | None]:
        """Return every model that is served, was served or is expected, by id; None stands for one without a worker."""
        models: dict[str, M | None] = dict.fromkeys(self._expected)
        for worker in self._workers.values():
            models.update(worker.models)
        return dict(sorted(models.items()))

    def model(self, model: str) -> M | None:
        """Return the description of a model by one of its workers; None if none serves it at the moment."""
        return next((worker.models[model] for worker in self._workers.values() if model in worker.models), None)

    def workers(self) -> list[Worker[C, M]]:
        """Return the workers that serve a model, by address."""
        return [worker for _, worker in sorted(self._workers.items()) if worker.models]

    def has_another(self, model: str, *, excluded: Worker[C, M]) -> bool:
        """Return whether a worker other than `excluded` serves the model."""
        return any(model in worker.models for worker in self._workers.values() if worker is not excluded)

    def choose(self, request: R, *, excluded: Worker[C, M] | None = None) -> Worker[C, M]:
        """Return the worker that the policy chooses for `request`. `excluded` is chosen only if it is the only one.

        Raises ApiError (503) if no worker serves the model at the moment.
        """
        able = [worker for worker in self._workers.values() if request.model in worker.models]
        others = [worker for worker in able if worker is not excluded]
        if not able:
            raise _unserved(request.model)
        return self._policy(others or able, request)

    def knows(self, model: str) -> bool:
        """Return whether the model is served, was served, or is expected."""
        return model in self._expected or any(model in worker.models for worker in self._workers.values())

    async def _keep_resolving(self) -> None:
        while True:
            # At the start of a pod, the network may not be there yet.
            soon = self._unresolved and time.monotonic() - self._opened < LOOK_SECONDS
            await asyncio.sleep(min(RETRY_SECONDS, self._resolve_seconds) if soon else self._resolve_seconds)
            await self._resolve()

    async def _resolve(self) -> None:
        connection = await asyncio.to_thread(self._connections.current)
        addresses: list[str] = []
        for target in self._targets:
            found = await _addresses(target)
            addresses += found or []
            if found is not None:
                self._unresolved.discard(target)
        for address in addresses:
            if address not in self._workers:
                self._workers[address] = Worker(address, self._service, connection, self._find)
        for address in self._workers.keys() - set(addresses):
            # A healthy worker stays if its name cannot be resolved at the moment.
            if not self._workers[address].models and not self._workers[address].in_flight:
                await self._workers.pop(address).close()
        stale = [worker for worker in self._workers.values() if worker.connection != connection]
        await asyncio.gather(*(self._replace(worker, connection) for worker in stale))
        for worker in [worker for worker in self._replaced if not worker.in_flight]:
            self._replaced.remove(worker)
            await worker.close()

    async def _replace(self, worker: Worker[C, M], connection: Connection) -> None:
        """Move a worker to a new connection without a moment of unavailability and without ending a request."""
        successor: Worker[C, M] = Worker(worker.address, self._service, connection, self._find)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPLACE_SECONDS):
                while worker.models and not successor.models:  # noqa: ASYNC110  # a worker has no event for it
                    await asyncio.sleep(RETRY_SECONDS)
        if worker.models and not successor.models:
            _log.warning("worker does not take the new certificate", extra={"worker": worker.address})
            await successor.close()
            return
        _log.info("connected with the new certificate", extra={"worker": worker.address})
        self._workers[worker.address] = successor
        self._replaced.add(worker)


async def _addresses(target: str) -> list[str] | None:
    """Return the addresses of a target; None if the servers of names did not answer."""
    host, _, port = target.rpartition(":")
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        _log.warning("worker name cannot be resolved", extra={"target": target, "error": str(error)})
        is_absent = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return [] if is_absent else None
    return sorted(
        {f"[{info[4][0]}]:{port}" if info[0] == socket.AF_INET6 else f"{info[4][0]}:{port}" for info in infos}
    )
