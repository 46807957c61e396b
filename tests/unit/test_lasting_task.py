"""Tasks that many requests share do not keep the trace of the request that happened to start them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.routing.call_multiplexer import CallMultiplexer
from services.gateway.routing.worker_heartbeat import WorkerHeartbeat
from services.runtime.tracing.trace_context import CURRENT, TraceContext
from services.worker.step_stream import StepStream
from tests.support.waits import until

REQUEST = TraceContext("a" * 32, "b" * 16, is_sampled=True)


class Connection:
    """Stands in for a connection, and notes the trace in which it is used."""

    def __init__(self) -> None:
        self.traces: dict[str, TraceContext | None] = {}

    def note(self, use: str) -> None:
        self.traces[use] = CURRENT.get()

    async def until_used(self, *uses: str) -> None:
        await until(lambda: self.traces.keys() >= {*uses}, what="the connection was used")
        assert {use: self.traces[use] for use in uses} == dict.fromkeys(uses)


class Stream(Connection):
    async def read(self) -> Any:
        self.note("read")
        await asyncio.Event().wait()

    async def write(self, message: Any) -> None:
        self.note("write")

    async def done_writing(self) -> None: ...

    def cancel(self) -> None: ...


class Stub(Stream):
    def WatchStatus(self, request: Any) -> Any:  # noqa: N802  # the name of the method
        self.note("watch")
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


class Redis(Connection):
    async def ping(self) -> None:
        self.note("ping")

    async def aclose(self) -> None: ...


@pytest.fixture(autouse=True)
def _request() -> Iterator[None]:
    CURRENT.set(REQUEST)
    yield
    CURRENT.set(None)


async def test_the_stream_of_a_worker() -> None:
    stream = Stream()
    multiplexer = CallMultiplexer(stream)
    multiplexer.call(pb.StartCall(), idle_seconds=100)
    try:
        await stream.until_used("read", "write")
    finally:
        await multiplexer.close()


async def test_the_stream_of_an_engine() -> None:
    stream = Stream()
    steps = StepStream(stream, "m", lambda: "id")
    try:
        await stream.until_used("read", "write")
    finally:
        await steps.close(seconds=0)


async def test_the_heartbeats_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub()
    heartbeat = WorkerHeartbeat(stub, idle_seconds=100)
    monkeypatch.setattr(heartbeat, "_interval", 0.0)
    async with heartbeat.required():
        await stub.until_used("watch")


async def test_the_probe_of_redis() -> None:
    redis = Redis()
    link = RedisLink(redis, timeout=100)  # type: ignore[arg-type]  # a stand-in

    async def fail(_: Any) -> None:
        raise RedisConnectionError

    with pytest.raises(RedisAwayError):
        await link.run(fail)
    try:
        await redis.until_used("ping")
    finally:
        await link.close()
