"""The status of an engine by WatchStatus, as an internal service reads it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import duration_pb2
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from tests.faults.chat_stream import MODEL
from tests.faults.process import Process
from tests.support.waits import until


class EngineWatch:
    """The last reported status."""

    def __init__(self) -> None:
        self.status = pb.ModelStatus()

    @property
    def at_work(self) -> int:
        """The number of running and queued requests."""
        return self.status.in_flight + self.status.queued

    async def follow(self, address: str) -> None:
        interval = duration_pb2.Duration(nanos=100_000_000)
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
            async for report in stub.WatchStatus(pb.WatchStatusRequest(interval=interval)):
                (self.status,) = [model for model in report.models if model.model == MODEL]


@contextlib.asynccontextmanager
async def watched_engine(worker: Process) -> AsyncIterator[EngineWatch]:
    """Yield a watch of a worker's engine, with ten reports per second."""
    watch = EngineWatch()
    following = asyncio.create_task(watch.follow(worker.address))
    try:
        await until(lambda: watch.status.ready or following.done(), what="the worker reports its engine")
        yield watch
        assert not following.done(), "the reports have ended"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
