"""The base of both workers' servicers: finds a request's model, and times the reports of the load."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.worker.grpc_server import Context, WorkerServer, reject
from services.worker.served_model import ServedModel

DEFAULT_STATUS_SECONDS: Final = 1.0
STATUS_SECONDS: Final = (0.1, 3600.0)
Model = TypeVar("Model", bound=ServedModel[Any, Any])


class WatchStatusRequest(Protocol):
    """The request of WatchStatus, which both services have."""

    @property
    def interval(self) -> Duration:
        """Time between two reports."""

    def HasField(self, field_name: Literal["interval"], /) -> bool:  # noqa: N802  # the method's name in protobuf
        """Return whether the caller has set it."""


class WorkerServicer(Generic[Model]):
    """Base of a worker's servicer."""

    def __init__(self, models: Mapping[str, Model], server: WorkerServer) -> None:
        """Serve `models`, by id. `server` reports when the worker is about to stop."""
        self._models: Final = models
        self._served: Final = [models[model_id] for model_id in sorted(models)]
        self._server: Final = server
        self._tracer: Final = server.tracer

    def _find(self, model_id: str) -> Model:
        """Return the model of a request, whose engine answers. Raises MODEL_NOT_FOUND and MODEL_UNAVAILABLE."""
        model = self._models.get(model_id)
        if model is None:
            known = ", ".join(sorted(self._models))
            message = Message("model_not_found", field="model", model=repr(model_id[:128]), known=known)
            raise Failure(Reason.MODEL_NOT_FOUND, message)
        model.engine()
        return model

    def _available(self) -> list[Model]:
        """Return the models whose engines answer, sorted by id."""
        return [model for model in self._served if model.description is not None]

    async def _interval(self, request: WatchStatusRequest, context: Context) -> float:
        """Return the time between two reports in seconds. Ends the call when it is outside STATUS_SECONDS."""
        if not request.HasField("interval"):
            return DEFAULT_STATUS_SECONDS
        seconds = request.interval.seconds + request.interval.nanos / 1e9
        least, most = STATUS_SECONDS
        if not least <= seconds <= most:
            message = Message("out_of_range", field="interval", value=f"{seconds:g} s", least=least, most=most)
            await reject(context, invalid(message))
        return seconds

    async def _reports(self, interval: float) -> AsyncGenerator[bool, None]:
        """Yield when a report is due: False every `interval` seconds, and at last True, when the worker is to stop."""
        while not self._server.draining:
            yield False
            await self._server.wait_for_drain(seconds=interval)
        yield True
