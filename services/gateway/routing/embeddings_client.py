"""Calls embeddings workers. No other module of the gateway uses their gRPC service."""

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
from services.runtime.tracing.trace_context import TraceContext

SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmbeddingsService"].full_name
METHOD: Final = f"{SERVICE}/Embed"
MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""2,048 vectors of 4,096 numbers have 32 MiB."""

EmbedCall = grpc.aio.UnaryUnaryCall[pb.EmbedRequest, pb.EmbedResponse]


class EmbeddingsClient:
    """A connection to one worker."""

    def __init__(self, channel: grpc.aio.Channel, status_channel: grpc.aio.Channel, timeouts: Timeouts) -> None:
        """Use open channels: `channel` for requests, `status_channel` for lists of models and heartbeats."""
        self._seconds: Final = timeouts.stream_seconds
        self._stub: Final = embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel)
        self._status_stub: Final = embeddings_service_pb2_grpc.EmbeddingsServiceStub(status_channel)
        self.heartbeat: Final = WorkerHeartbeat(self._status_stub, idle_seconds=timeouts.idle_seconds)
        """Heartbeats of the worker, to be required while a call is awaited."""

    def embed(self, request: pb.EmbedRequest, *, request_id: str, traced: TraceContext | None = None) -> EmbedCall:
        """Begin a call, which raises grpc.aio.AioRpcError when it is awaited. `traced` is its span, if it is traced.

        Raises ApiError (413) for a request that is larger than a message may be.
        """
        check_size(request.ByteSize(), MAX_MESSAGE_BYTES)
        metadata: tuple[tuple[str, str], ...] = (("x-request-id", request_id),)
        if traced is not None:
            metadata = (*metadata, *traced.headers().items())
        return self._stub.Embed(request, metadata=metadata, timeout=self._seconds)

    async def list_models(self) -> list[pb.Model]:
        """Return the models of the worker. Raises grpc.aio.AioRpcError."""
        response = await self._status_stub.ListModels(pb.ListModelsRequest(), timeout=LIST_SECONDS)
        return list(response.models)

    async def close(self) -> None:
        """Do nothing, because closing the channel ends the calls."""


EmbeddingsWorker = Worker[EmbeddingsClient, pb.Model]
EmbeddingsPool = WorkerPool[EmbeddingsClient, pb.Model, pb.EmbedRequest]


def embeddings_service(timeouts: Timeouts) -> Service[EmbeddingsClient]:
    """Return the description of embeddings workers for a pool."""

    def connect(channel: grpc.aio.Channel, status_channel: grpc.aio.Channel) -> EmbeddingsClient:
        return EmbeddingsClient(channel, status_channel, timeouts)

    return Service(SERVICE, connect, [*channel_options(MAX_MESSAGE_BYTES), NO_RETRIES])
