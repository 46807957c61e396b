"""The gateway watches the heartbeats of an embeddings worker."""

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
    """Behaves as the test asks: `lives`, `silent`, `drains` or `rejects`."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.watches = 0

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Any
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        self.watches += 1
        try:
            if self.behaviour == "rejects":
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
async def heartbeat_of(worker: Worker) -> AsyncIterator[WorkerHeartbeat]:
    server = grpc.aio.server()
    embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server(worker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield WorkerHeartbeat(embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel), idle_seconds=IDLE)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("behaviour", ["lives", "drains", "rejects"])
async def test_calls_of_a_live_or_draining_worker_do_not_time_out(behaviour: str) -> None:
    async with heartbeat_of(Worker(behaviour)) as heartbeat, heartbeat.required():
        await asyncio.sleep(IDLE * 2)


async def test_calls_of_a_silent_worker_time_out_and_it_is_watched_only_during_calls() -> None:
    worker = Worker("lives")
    async with heartbeat_of(worker) as heartbeat:

        async def call(seconds: float) -> str:
            try:
                async with heartbeat.required():
                    await asyncio.sleep(seconds)
            except IdleTimeoutError:
                return "given up"
            return "whole"

        assert await asyncio.gather(call(IDLE), call(IDLE * 2)) == ["whole"] * 2
        await until(lambda: not worker.watches, LONG / 2, "the worker is not watched")
        worker.behaviour = "silent"
        assert await asyncio.wait_for(asyncio.gather(call(LONG), call(LONG)), LONG / 2) == ["given up"] * 2
