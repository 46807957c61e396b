"""Serves stand-ins for workers, with the health that a gateway asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference.call_demultiplexer import CallDemultiplexer

INFERENCE_SERVICE = "vilix.inference.v1.InferenceService"


class InferenceStandIn(inference_service_pb2_grpc.InferenceServiceServicer):
    """Base of stand-ins for an inference worker, which implement `generate` for each call of a connection."""

    def __init__(self) -> None:
        self.address = ""
        """HOST:PORT, once it is served."""
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        """Yield the events of one call."""
        raise NotImplementedError

    async def GenerateMany(  # noqa: N802
        self, requests: AsyncIterator[pb.GenerateManyRequest], context: Any
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        calls = CallDemultiplexer(lambda request, name, _: self.generate(request, name), asyncio.Event())
        async with aclosing(calls.responses(requests)) as responses:
            async for response in responses:
                yield response


@asynccontextmanager
async def serving_inference(worker: InferenceStandIn, port: int) -> AsyncIterator[None]:
    """Serve a stand-in for an inference worker on 127.0.0.1:`port`."""
    worker.address = f"127.0.0.1:{port}"
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(worker, worker.server)
    async with serving(worker.server, INFERENCE_SERVICE, worker.address):
        yield


@asynccontextmanager
async def serving(server: grpc.aio.Server, service: str, address: str) -> AsyncIterator[None]:
    """Serve at `address` until the context ends. The health of `service` is SERVING."""
    healthy = health.aio.HealthServicer()
    await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
