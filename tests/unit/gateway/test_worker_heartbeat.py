"""What the gateway makes of an embeddings worker's signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.gateway.routing.worker_heartbeat import WorkerHeartbeat
from services.runtime.heartbeat import IdleTimeoutError
from tests.support.waits import until

IDLE = 0.4
LONG = 30.0


class Worker(embeddings_service_pb2_grpc.EmbeddingsServiceServicer):
    """Behaves as the test says: `lives`, `silent`, `drains`, `refuses`."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.watches = 0

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Any
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        self.watches += 1
        try:
            if self.behaviour == "refuses":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "about to stop")
            if self.behaviour == "drains":
                yield pb.WatchStatusResponse(draining=True)
                return
            while self.behaviour == "lives":
                yield pb.WatchStatusResponse()
                await asyncio.sleep(IDLE / 10)
            await asyncio.sleep(LONG)
        finally:
            self.watches -= 1


@asynccontextmanager
async def signs_of(worker: Worker) -> AsyncIterator[WorkerHeartbeat]:
    server = grpc.aio.server()
    embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server(worker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield WorkerHeartbeat(embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel), idle_seconds=IDLE)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("behaviour", ["lives", "drains", "refuses"])
async def test_a_worker_that_lives_or_finishes_what_it_has_is_waited_for(behaviour: str) -> None:
    async with signs_of(Worker(behaviour)) as signs, signs.required():
        await asyncio.sleep(IDLE * 2)


async def test_a_silent_worker_is_given_up_and_watched_only_while_calls_run() -> None:
    worker = Worker("lives")
    async with signs_of(worker) as signs:

        async def call(seconds: float) -> str:
            try:
                async with signs.required():
                    await asyncio.sleep(seconds)
            except IdleTimeoutError:
                return "given up"
            return "whole"

        assert await asyncio.gather(call(IDLE), call(IDLE * 2)) == ["whole"] * 2
        await until(lambda: not worker.watches, LONG / 2, "nobody watches the worker")
        worker.behaviour = "silent"
        assert await asyncio.wait_for(asyncio.gather(call(LONG), call(LONG)), LONG / 2) == ["given up"] * 2
