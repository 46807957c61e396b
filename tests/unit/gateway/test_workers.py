"""A worker that is overloaded, and cancels calls about its status, is not lost as long as it serves requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.routing import worker as worker_module
from services.gateway.routing.inference_client import SERVICE, Timeouts, inference_service
from services.gateway.routing.worker import Worker
from services.gateway.routing.worker_connection import Connection
from tests.support.waits import until

MODEL = "m"
RETRY_SECONDS = 0.02
SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class OverloadedWorker(health_pb2_grpc.HealthServicer, inference_service_pb2_grpc.InferenceServiceServicer):
    """A worker that cancels a number of health watches or lists of models."""

    def __init__(self) -> None:
        self.cancelled_watches = 0
        self.cancelled_lists = 0
        self.watches = 0
        self.lists = 0
        self.end_watch = asyncio.Event()

    async def Watch(  # noqa: N802  # the method's name in the proto
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        assert request.service == SERVICE
        self.watches += 1
        if self.cancelled_watches:
            self.cancelled_watches -= 1
            await context.abort(grpc.StatusCode.CANCELLED, "overloaded")
        yield SERVING
        await self.end_watch.wait()
        self.end_watch.clear()
        await context.abort(grpc.StatusCode.CANCELLED, "overloaded")

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        self.lists += 1
        if self.cancelled_lists:
            self.cancelled_lists -= 1
            await context.abort(grpc.StatusCode.CANCELLED, "overloaded")
        return pb.ListModelsResponse(models=[pb.Model(id=MODEL)])


@pytest.fixture
async def overloaded(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[OverloadedWorker, Worker[Any, Any]]]:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", RETRY_SECONDS)
    servicer = OverloadedWorker()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    service = inference_service(Timeouts(idle_seconds=5, stream_seconds=60))
    worker: Worker[Any, Any] = Worker(f"127.0.0.1:{port}", service, Connection(None, ""))
    try:
        await until(lambda: MODEL in worker.models)
        yield servicer, worker
    finally:
        await worker.close()
        await server.stop(None)


async def models_until(worker: Worker[Any, Any], condition: Callable[[], bool]) -> bool:
    """Return whether the worker has its models at all times until a condition holds."""
    kept = True

    def look() -> bool:
        nonlocal kept
        kept = kept and MODEL in worker.models
        return condition()

    await until(look)
    return kept


async def test_cancelled_health_watches_do_not_lose_the_worker(
    overloaded: tuple[OverloadedWorker, Worker[Any, Any]],
) -> None:
    servicer, worker = overloaded
    servicer.cancelled_watches = 3
    servicer.end_watch.set()
    assert await models_until(worker, lambda: servicer.watches == 5)


async def test_cancelled_lists_of_models_do_not_lose_the_worker(
    overloaded: tuple[OverloadedWorker, Worker[Any, Any]],
) -> None:
    servicer, worker = overloaded
    servicer.cancelled_lists = 3
    # A new watch lists the models again.
    servicer.end_watch.set()
    assert await models_until(worker, lambda: servicer.lists == 5)


async def test_a_worker_that_cancels_too_many_calls_is_lost(
    overloaded: tuple[OverloadedWorker, Worker[Any, Any]],
) -> None:
    servicer, worker = overloaded
    servicer.cancelled_watches = 10_000
    servicer.end_watch.set()
    await until(lambda: not worker.models, what="the worker is lost")
    servicer.cancelled_watches = 0
    await until(lambda: MODEL in worker.models)


async def test_a_model_that_was_lost_by_a_rejected_request_is_found_before_the_next_regular_list(
    overloaded: tuple[OverloadedWorker, Worker[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, worker = overloaded
    monkeypatch.setattr(worker_module, "REFRESH_SECONDS", 3600)
    lists = servicer.lists
    await until(lambda: servicer.lists > lists, what="the next pause is the long one")
    await until(lambda: MODEL in worker.models)
    worker.lose_model(MODEL)
    assert MODEL not in worker.models
    await until(lambda: MODEL in worker.models, what="the model is listed again")
