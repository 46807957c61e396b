"""Heartbeats of an embeddings worker. Its calls have none: each has a single response, which may take minutes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf import duration_pb2
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.runtime.heartbeat import Heartbeat
from services.runtime.lasting_task import lasting_task

SHORTEST_INTERVAL: Final = 0.1


class WorkerHeartbeat:
    """The heartbeats of one worker, which are watched while calls to it run."""

    def __init__(self, stub: Any, *, idle_seconds: float) -> None:
        """Watch the worker of `stub`. Calls time out after `idle_seconds` without a heartbeat."""
        self._stub: Final = stub
        self._interval: Final = max(idle_seconds / 4, SHORTEST_INTERVAL)
        self._heartbeat: Final = Heartbeat(idle_seconds=idle_seconds)
        self._calls = 0
        self._watching: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def required(self) -> AsyncIterator[None]:
        """Cancel the code inside the context and raise IdleTimeoutError if the worker is silent for too long."""
        if self._watching is None:
            self._heartbeat.note_heartbeat()
            self._watching = lasting_task(self._watch())
        self._calls += 1
        try:
            async with self._heartbeat.required():
                yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._watching.cancel()
                self._watching = None

    async def _watch(self) -> None:
        interval = duration_pb2.Duration()
        interval.FromMilliseconds(round(self._interval * 1000))
        while True:
            # Most calls end before the first interval and need no status stream.
            await asyncio.sleep(self._interval)
            reports = self._stub.WatchStatus(pb.WatchStatusRequest(interval=interval))
            try:
                async for report in reports:
                    self._heartbeat.note_heartbeat()
                    if report.draining:
                        # A draining worker rejects new status streams and finishes its calls: expect no heartbeats.
                        self._heartbeat.pause()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    # The worker is draining, or the connection is lost, which has already ended the calls.
                    self._heartbeat.pause()
                else:
                    # Any other gRPC status proves that the worker is alive.
                    self._heartbeat.note_heartbeat()
            finally:
                reports.cancel()
