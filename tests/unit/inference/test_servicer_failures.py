"""Failures of the engine and of the worker, as callers of the service get them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason, failure_of
from services.runtime.messages.message import Message
from services.worker.triton_failures import DeadModelError
from services.worker.triton_messages import EngineOutput
from tests.support.waits import until
from tests.unit.inference.running_worker import Worker, ask, events_of, failure, kinds
from tests.unit.inference.scripted import MODEL, EngineRequest, output, outputs

REJECTIONS = [
    Failure(Reason.CONTEXT_LENGTH_EXCEEDED, Message.verbatim("too long")),
    Failure(Reason.OVERLOADED, Message.verbatim("full"), retry_after=1.0),
    Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("gone"), retry_after=1.0),
]


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda rejection: str(rejection.reason))
async def test_a_rejection_of_the_engine_is_a_status_without_a_started_event(
    worker: Worker, rejection: Failure
) -> None:
    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        raise rejection
        yield

    worker.triton.script = script
    call = worker.stub.Generate(ask(n=2))
    error = await failure(call)
    assert (error.reason, str(error), error.retry_after) == (
        rejection.reason,
        str(rejection),
        rejection.retry_after,
    )
    for engine_request in worker.triton.requests:
        await asyncio.wait_for(engine_request.closed.wait(), 20)


async def test_outputs_before_a_failure_are_sent_before_it(worker: Worker) -> None:
    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        yield output([50])
        yield output([51])
        raise Failure(Reason.ENGINE_FAILED, Message.verbatim("broken"))

    worker.triton.script = script
    call = worker.stub.Generate(ask())
    received: list[pb.Event] = []

    async def read() -> None:
        async for response in call:
            received.extend(response.events)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    assert sum(event.delta.token_count for event in received) == 2
    assert "finish" not in kinds(received)
    assert "usage" not in kinds(received)
    error = failure_of(caught.value)
    assert error is not None
    assert error.reason is Reason.ENGINE_FAILED


async def test_a_generation_that_the_engine_cancelled_is_a_failure(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs([50], finish="cancelled")
    assert (await failure(worker.stub.Generate(ask()))).reason is Reason.ENGINE_FAILED


async def test_an_internal_error_is_logged_and_its_text_is_not_sent_to_the_caller(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        raise KeyError("secret detail")
        yield

    worker.triton.script = script
    error = await failure(worker.stub.Generate(ask(), metadata=(("x-request-id", "find-me"),)))
    assert error.reason is Reason.INTERNAL
    assert "secret" not in str(error)
    logged = next(record for record in caplog.records if record.exc_info)
    assert vars(logged)["request_id"] == "find-me"


async def test_a_model_is_unavailable_while_its_engine_does_not_answer(worker: Worker) -> None:
    await worker.stub.GetModel(pb.GetModelRequest(model=MODEL))
    worker.triton.down = True
    await until(lambda: worker.model.description is None)
    error = await failure(worker.stub.Generate(ask()))
    assert error.reason is Reason.MODEL_UNAVAILABLE
    assert error.retry_after is not None
    assert (await worker.stub.ListModels(pb.ListModelsRequest())).models == []
    worker.triton.down = False
    await until(lambda: worker.model.description is not None)
    assert await events_of(worker.stub.Generate(ask()))


async def test_a_request_that_does_not_begin_in_time_is_not_to_be_sent_again_at_once(worker: Worker) -> None:
    async def script(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        yield output([])
        await request.closed.wait()

    worker.triton.script = script
    error = await failure(worker.stub.Generate(ask()))
    assert (error.reason, error.message.id, error.retry_after) == (Reason.TIMEOUT, "engine_not_begun", None)


@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "in the middle"])
async def test_the_open_requests_of_a_dead_model_end_at_once(worker: Worker, begun: bool) -> None:
    async def script(_: EngineRequest) -> AsyncIterator[EngineOutput]:
        if begun:
            yield output([1])
        await asyncio.sleep(60)
        yield output([2], finish="stop")

    worker.triton.script = script
    await until(lambda: worker.model.description is not None)
    call = worker.stub.Generate(ask())
    await until(lambda: bool(worker.triton.requests) and bool(worker.model.open_requests))
    if begun:
        assert (await call.read()).events
    worker.triton.trouble = DeadModelError(MODEL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_read_to_end(call), 5)
    error = failure_of(caught.value)
    assert error is not None
    assert error.reason is Reason.MODEL_UNAVAILABLE
    assert error.retry_after
    assert not worker.model.open_requests


async def _read_to_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
