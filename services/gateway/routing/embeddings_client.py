"""Calls embeddings workers: the only place in the gateway that speaks gRPC to them."""

from __future__ import annotations

from typing import Final

import grpc
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.gateway.routing.inference_client import LIST_SECONDS, NO_RETRIES, Timeouts
from services.gateway.routing.message_size import check_size
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Service, Worker
from services.gateway.routing.worker_heartbeat import WorkerHeartbeat
from services.runtime.grpc_channel import channel_options

SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmbeddingsService"].full_name
# 2,048 vectors of 4,096 numbers are 32 MiB by themselves.
MAX_MESSAGE_BYTES: Final = 64 * 2**20

EmbedCall = grpc.aio.UnaryUnaryCall[pb.EmbedRequest, pb.EmbedResponse]


class EmbeddingsClient:
    """A connection to one worker."""

    def __init__(self, channel: grpc.aio.Channel, status_channel: grpc.aio.Channel, timeouts: Timeouts) -> None:
        """Over open channels; `status_channel` is for what the worker says of itself."""
        self._seconds: Final = timeouts.stream_seconds
        self._stub: Final = embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel)
        self._status_stub: Final = embeddings_service_pb2_grpc.EmbeddingsServiceStub(status_channel)
        self.heartbeat: Final = WorkerHeartbeat(self._status_stub, idle_seconds=timeouts.idle_seconds)
        """What waits for a call is to require them."""

    def embed(self, request: pb.EmbedRequest, *, request_id: str) -> EmbedCall:
        """Begin to embed; awaiting the call raises grpc.aio.AioRpcError. Raises ApiError (413)."""
        check_size(request.ByteSize(), MAX_MESSAGE_BYTES)
        metadata = (("x-request-id", request_id),)
        return self._stub.Embed(request, metadata=metadata, timeout=self._seconds)

    async def list_models(self) -> list[pb.Model]:
        """Return the models of the worker. Raises grpc.aio.AioRpcError."""
        answer = await self._status_stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(answer.models)

    async def close(self) -> None:
        """Do nothing: closing the channel ends the calls."""


EmbeddingsWorker = Worker[EmbeddingsClient, pb.Model]
EmbeddingsPool = WorkerPool[EmbeddingsClient, pb.Model]


def embeddings_service(timeouts: Timeouts) -> Service[EmbeddingsClient]:
    """Describe the workers that embed."""

    def connect(channel: grpc.aio.Channel, status_channel: grpc.aio.Channel) -> EmbeddingsClient:
        return EmbeddingsClient(channel, status_channel, timeouts)

    return Service(SERVICE, connect, [*channel_options(MAX_MESSAGE_BYTES), NO_RETRIES])
