"""Calls inference workers. No other module of the gateway uses their gRPC service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.record import RequestRecord
from services.gateway.routing.call_multiplexer import CallMultiplexer, MultiplexedCall
from services.gateway.routing.message_size import check_size
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Service, Worker
from services.runtime.grpc_channel import channel_options
from services.runtime.tracing.trace_context import TraceContext

MAX_MESSAGE_BYTES: Final = 32 * 2**20
SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
METHOD: Final = f"{SERVICE}/Generate"
"""The method that spans name. All generations share a stream of GenerateMany."""
LIST_SECONDS: Final = 5.0
NO_RETRIES: Final = ("grpc.enable_retries", 0)
"""Switches gRPC's retries off, because failover must not retry once a client has received a token."""


@dataclass(frozen=True)
class Timeouts:
    """The timeouts of a call of a worker."""

    idle_seconds: float
    """Between two heartbeats."""
    stream_seconds: float
    """For a whole call."""


class InferenceClient:
    """A connection to one worker."""

    def __init__(
        self, channel: grpc.aio.Channel, timeouts: Timeouts, status_channel: grpc.aio.Channel | None = None
    ) -> None:
        """Use open channels: `channel` for requests, `status_channel` (by default the same) for lists of models."""
        self._timeouts: Final = timeouts
        self._timeout: Final = duration_pb2.Duration()
        self._timeout.FromMilliseconds(round(timeouts.stream_seconds * 1000))
        self._stub: Final = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self._status_stub: Final = inference_service_pb2_grpc.InferenceServiceStub(status_channel or channel)
        self._multiplexer: CallMultiplexer | None = None

    def generate(
        self,
        request: pb.GenerateRequest,
        *,
        request_id: str,
        size: int | None = None,
        traced: TraceContext | None = None,
    ) -> MultiplexedCall:
        """Begin a generation.

        Args:
            request: The request.
            request_id: The id of the client's request, for the worker's log.
            size: The size of `request` in bytes, if known, because computing it takes long for a large request.
            traced: The span of the call; None if it is not traced.

        Raises:
            ApiError: The request is larger than a message may be, and would end the shared stream (413).
        """
        check_size(request.ByteSize() if size is None else size, MAX_MESSAGE_BYTES)
        if self._multiplexer is None or not self._multiplexer.open:
            self._multiplexer = CallMultiplexer(self._stub.GenerateMany())
        start = pb.StartCall(request=request, request_id=request_id, timeout=self._timeout, accepts_text_deltas=True)
        if traced is not None:
            start.traceparent, start.tracestate = traced.traceparent(), traced.state
        return self._multiplexer.call(start, idle_seconds=self._timeouts.idle_seconds)

    async def close(self) -> None:
        """End all running generations."""
        if self._multiplexer is not None:
            await self._multiplexer.close()

    async def render(
        self, request: pb.GenerateRequest, *, request_id: str, size: int | None = None
    ) -> pb.RenderPromptResponse:
        """Return the rendered prompt of a request. The arguments are those of `generate`.

        Raises ApiError (413) and grpc.aio.AioRpcError.
        """
        check_size(request.ByteSize() if size is None else size, MAX_MESSAGE_BYTES)
        metadata = (("x-request-id", request_id),)
        message = pb.RenderPromptRequest(request=request)
        return await self._stub.RenderPrompt(message, metadata=metadata, timeout=self._timeouts.idle_seconds)

    async def list_models(self) -> list[pb.Model]:
        """Return the models of the worker. Raises grpc.aio.AioRpcError."""
        response = await self._status_stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(response.models)

    async def status(self, *, seconds: float) -> pb.WatchStatusResponse:
        """Return the worker's present load. Raises grpc.aio.AioRpcError, also if it takes longer than `seconds`."""
        call = self._status_stub.WatchStatus(pb.WatchStatusRequest(), timeout=seconds)
        try:
            async for status in call:
                return status
            return pb.WatchStatusResponse(draining=True)
        finally:
            call.cancel()


InferenceWorker = Worker[InferenceClient, pb.Model]
InferencePool = WorkerPool[InferenceClient, pb.Model, pb.GenerateRequest]


def note_call(record: RequestRecord, worker: InferenceWorker, model: str, now: float) -> None:
    """Note in a request's record that a worker is called, and the engine that it has for `model`."""
    notes = record.receipt
    notes.note_call(worker.address, now)
    if (served := worker.models.get(model)) is not None:
        notes.engine, notes.engine_version = served.engine.name, served.engine.version


def inference_service(timeouts: Timeouts) -> Service[InferenceClient]:
    """Return the description of inference workers for a pool."""

    def connect(channel: grpc.aio.Channel, status_channel: grpc.aio.Channel) -> InferenceClient:
        return InferenceClient(channel, timeouts, status_channel)

    return Service(SERVICE, connect, [*channel_options(MAX_MESSAGE_BYTES), NO_RETRIES])
