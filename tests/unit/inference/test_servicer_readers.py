"""Callers of the service that disconnect or read slowly, and a worker that is blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2_grpc

from services.worker.triton_messages import EngineOutput
from tests.support.waits import until
from tests.unit.inference.running_worker import CHANNEL, IDLE_SECONDS, Worker, ask, events_of, kinds
from tests.unit.inference.scripted import EngineRequest, output


@pytest.mark.parametrize("how", ["cancel", "deadline", "channel closed"])
@pytest.mark.parametrize("when", ["before the first token", "while it streams", "with a reader that does not read"])
async def test_a_client_disconnect_cancels_every_choice(worker: Worker, how: str, when: str) -> None:
    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if when == "before the first token":
            await asyncio.Event().wait()
        while True:
            yield output([EIGHTY_LETTERS] * 500)
            await asyncio.sleep(0 if when == "with a reader that does not read" else 0.005)

    worker.triton.script = script
    channel = grpc.aio.insecure_channel(worker.target, CHANNEL)
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Generate(ask(n=2), timeout=1 if how == "deadline" else 60)
    await until(lambda: len(worker.triton.requests) == 2)
    if when != "before the first token":
        await call.read()
    if how == "cancel":
        call.cancel()
    elif how == "channel closed":
        await channel.close()
    for engine_request in worker.triton.requests:
        await asyncio.wait_for(engine_request.closed.wait(), 20)
    await channel.close()


EIGHTY_LETTERS = 45855


async def test_a_slow_reader_pauses_the_reading_from_triton(worker: Worker) -> None:
    produced = 0

    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        nonlocal produced
        while True:
            produced += 1
            yield output([EIGHTY_LETTERS] * 500)

    worker.triton.script = script
    call = worker.stub.Generate(ask())
    await call.read()

    async def stalled() -> bool:
        before = produced
        await asyncio.sleep(0.2)
        return produced == before

    async with asyncio.timeout(20):
        while not await stalled():
            pass
    call.cancel()


async def test_an_output_that_arrived_while_the_worker_was_blocked_is_in_time(worker: Worker) -> None:
    async def late(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        yield output([1])
        # Wait until the worker waits for the next output.
        await asyncio.sleep(0.01)
        time.sleep(2 * IDLE_SECONDS)  # noqa: ASYNC251  # the loop is to stand still
        for _turn in range(20):
            # Messages that arrived meanwhile are read some iterations of the loop later.
            await asyncio.sleep(0)
        yield output([2], finish="length")

    worker.triton.script = late
    events = await events_of(worker.stub.Generate(ask()))
    assert kinds(events)[-1] == "usage"
