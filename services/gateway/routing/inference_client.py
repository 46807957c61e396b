"""Calls inference workers: the only place in the gateway that speaks gRPC to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.routing.call_multiplexer import CallMultiplexer, MultiplexedCall
from services.gateway.routing.message_size import check_size
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Service, Worker
from services.runtime.grpc_channel import channel_options

MAX_MESSAGE_BYTES: Final = 32 * 2**20
SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
LIST_SECONDS: Final = 5.0
NO_RETRIES: Final = ("grpc.enable_retries", 0)
"""We decide about retries ourselves: none once a client has seen a token."""


@dataclass(frozen=True)
class Timeouts:
    """How long a worker may take."""

    idle_seconds: float
    """Between two signs of life."""
    stream_seconds: float
    """For a whole answer."""


class InferenceClient:
    """A connection to one worker."""

    def __init__(
        self, channel: grpc.aio.Channel, timeouts: Timeouts, status_channel: grpc.aio.Channel | None = None
    ) -> None:
        """Over open channels; `status_channel` is for what the worker says of itself, by default the same."""
        self._timeouts: Final = timeouts
        self._timeout: Final = duration_pb2.Duration()
        self._timeout.FromMilliseconds(round(timeouts.stream_seconds * 1000))
        self._stub: Final = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self._status_stub: Final = inference_service_pb2_grpc.InferenceServiceStub(status_channel or channel)
        self._multiplexer: CallMultiplexer | None = None

    def generate(self, request: pb.GenerateRequest, *, request_id: str, size: int | None = None) -> MultiplexedCall:
        """Begin an answer. Raises ApiError (413) for a request that would end the stream that all answers share.

        `size` is the request's in bytes, if it is known: to find it out takes long for a large one.
        """
        check_size(request.ByteSize() if size is None else size, MAX_MESSAGE_BYTES)
        if self._multiplexer is None or not self._multiplexer.open:
            self._multiplexer = CallMultiplexer(self._stub.GenerateMany())
        start = pb.StartCall(request=request, request_id=request_id, timeout=self._timeout)
        return self._multiplexer.call(start, idle_seconds=self._timeouts.idle_seconds)

    async def close(self) -> None:
        """End what is still running."""
        if self._multiplexer is not None:
            await self._multiplexer.close()

    async def render(
        self, request: pb.GenerateRequest, *, request_id: str, size: int | None = None
    ) -> pb.RenderPromptResponse:
        """Return the prompt of a request. Raises ApiError (413), grpc.aio.AioRpcError. `size` is as above."""
        check_size(request.ByteSize() if size is None else size, MAX_MESSAGE_BYTES)
        metadata = (("x-request-id", request_id),)
        asked = pb.RenderPromptRequest(request=request)
        return await self._stub.RenderPrompt(asked, metadata=metadata, timeout=self._timeouts.idle_seconds)

    async def list_models(self) -> list[pb.Model]:
        """Return the models of the worker. Raises grpc.aio.AioRpcError."""
        answer = await self._status_stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(answer.models)


InferenceWorker = Worker[InferenceClient, pb.Model]
InferencePool = WorkerPool[InferenceClient, pb.Model]


def inference_service(timeouts: Timeouts) -> Service[InferenceClient]:
    """Describe the workers that answer prompts."""

    def connect(channel: grpc.aio.Channel, status_channel: grpc.aio.Channel) -> InferenceClient:
        return InferenceClient(channel, timeouts, status_channel)

    return Service(SERVICE, connect, [*channel_options(MAX_MESSAGE_BYTES), NO_RETRIES])
