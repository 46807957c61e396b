"""Generations over real gRPC, with a stand-in for Triton."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import AsyncGenerator

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Reason
from services.worker.triton_messages import EngineOutput
from tests.support.waits import until
from tests.unit.inference.running_worker import (
    FIRST_TOKEN_SECONDS,
    IDLE_SECONDS,
    Worker,
    ask,
    events_of,
    failure,
    kinds,
)
from tests.unit.inference.scripted import EngineRequest, output, outputs


async def test_events_are_in_order_and_their_counts_add_up(worker: Worker) -> None:
    ids = worker.model.tokenizer.encode("The answer")
    worker.triton.script = lambda _: outputs(ids[:1], ids[1:], [2], finish="stop")
    events = await events_of(worker.stub.Generate(ask()))
    assert kinds(events)[0] == "started"
    assert kinds(events)[-2:] == ["finish", "usage"]
    assert "".join(event.delta.content for event in events) == "The answer"
    usage = events[-1].usage
    assert usage.completion_tokens == sum(event.delta.token_count for event in events) == len(ids) + 1
    assert usage.prompt_tokens == events[0].started.prompt_tokens == len(worker.triton.requests[0].prompt_token_ids)
    assert usage.cached_tokens == 3
    assert usage.timings.queued.ToMilliseconds() == 500
    assert usage.timings.first_token.ToMicroseconds() > 0
    assert worker.triton.requests[0].params["temperature"] == pytest.approx(0.2)


async def test_the_first_event_has_the_cached_tokens_if_the_engine_knows_them(worker: Worker) -> None:
    first = dataclasses.replace(output([50]), cached_tokens=4)
    worker.triton.script = lambda _: given(first, output([51], finish="length"))
    events = await events_of(worker.stub.Generate(ask()))
    assert events[0].started.cached_tokens == 4


async def given(*steps: EngineOutput) -> AsyncGenerator[EngineOutput, None]:
    for step in steps:
        yield step


async def test_max_tokens_are_limited_to_the_context_and_reported(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs([50], finish="length")
    for asked in (10, 100_000):
        request = ask(clamp_max_tokens=True, sampling=pb.SamplingParams(max_tokens=asked))
        started = (await events_of(worker.stub.Generate(request)))[0].started
        left = 256 - started.prompt_tokens
        assert started.HasField("max_tokens") is (asked > left)
        assert worker.triton.requests[-1].params["max_tokens"] == min(asked, left)
        assert started.max_tokens in (0, left)


async def test_a_request_to_read_the_prompt_alone_returns_no_tokens(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs([50], finish="stop")
    request = ask(prefill_only=True, sampling=pb.SamplingParams(max_tokens=9, min_tokens=3))
    events = await events_of(worker.stub.Generate(request))
    assert kinds(events) == ["started", "finish", "usage"]
    assert events[1].finish.reason == pb.FINISH_REASON_LENGTH
    assert events[2].usage.completion_tokens == 0
    assert worker.triton.requests[0].params["max_tokens"] == 1
    assert "min_tokens" not in worker.triton.requests[0].params


async def test_outputs_that_are_ready_together_share_a_message(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs(*([50 + i] for i in range(40)), finish="length")
    responses = [response async for response in worker.stub.Generate(ask())]
    assert len(responses) < 10
    deltas = [event.delta for response in responses for event in response.events if event.HasField("delta")]
    assert sum(delta.token_count for delta in deltas) == 40


async def test_each_token_is_sent_as_soon_as_it_is_generated(worker: Worker) -> None:
    steps: asyncio.Queue[EngineOutput] = asyncio.Queue()

    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        while True:
            yield await steps.get()

    worker.triton.script = script
    call = worker.stub.Generate(ask())
    for token_id in (50, 51, 52):
        steps.put_nowait(output([token_id]))
        response = await asyncio.wait_for(call.read(), 5)
        assert response.events[-1].delta.token_count == 1
    call.cancel()


async def test_each_choice_is_a_request_and_usage_is_reported_once(worker: Worker) -> None:
    texts = ["first", "second", "third"]
    ids = [worker.model.tokenizer.encode(text) for text in texts]
    worker.triton.script = lambda engine_request: outputs(
        *([i] for i in ids[int(engine_request.request_id[-1])]), finish="length"
    )
    call = worker.stub.Generate(ask(n=3, sampling=pb.SamplingParams(seed=7)), metadata=(("x-request-id", "abc"),))
    events = await events_of(call)
    for index, text in enumerate(texts):
        assert "".join(e.delta.content for e in events if e.HasField("delta") and e.delta.index == index) == text
    assert sorted(e.finish.index for e in events if e.HasField("finish")) == [0, 1, 2]
    assert kinds(events).count("usage") == kinds(events).count("started") == 1
    assert events[-1].usage.completion_tokens == sum(map(len, ids))
    assert [engine_request.request_id for engine_request in worker.triton.requests] == ["abc.0", "abc.1", "abc.2"]
    assert [engine_request.params["seed"] for engine_request in worker.triton.requests] == [7, 8, 9]


async def test_a_stop_string_ends_its_choice_and_the_others_go_on(worker: Worker) -> None:
    ids = worker.model.tokenizer.encode("one two three")
    go_on = asyncio.Event()

    async def script(engine_request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if engine_request.request_id.endswith(".1"):
            await go_on.wait()
            yield output([50], finish="length")
        for token_id in itertools.cycle(ids):
            yield output([token_id])
            await asyncio.sleep(0)

    worker.triton.script = script
    call = worker.stub.Generate(ask(n=2, sampling=pb.SamplingParams(stop=["two"])))
    await until(lambda: bool(worker.triton.requests))
    await asyncio.wait_for(worker.triton.requests[0].closed.wait(), 5)
    assert not worker.triton.requests[1].closed.is_set()
    go_on.set()
    events = await events_of(call)
    first = [e for e in events if e.delta.index == 0 and e.HasField("delta")]
    assert "".join(e.delta.content for e in first) == "one "
    finish = next(e.finish for e in events if e.HasField("finish") and e.finish.index == 0)
    assert (finish.reason, finish.stop_string) == (pb.FINISH_REASON_STOP, "two")
    assert events[-1].usage.completion_tokens == sum(e.delta.token_count for e in events)


async def test_every_request_is_logged_once_without_its_content(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await events_of(worker.stub.Generate(ask(), metadata=(("x-request-id", "r1"),)))
    await failure(worker.stub.Generate(ask(n=200), metadata=(("x-request-id", "r2"),)))
    lines = {vars(r)["request_id"]: vars(r) for r in caplog.records if r.getMessage() == "generate"}
    assert (lines["r1"]["outcome"], lines["r1"]["completion_tokens"]) == ("ok", 2)
    assert lines["r2"]["outcome"] == "INVALID_ARGUMENT"
    assert "Hello" not in caplog.text


async def test_an_invalid_request_does_not_reach_the_engine(worker: Worker) -> None:
    error = await failure(worker.stub.Generate(ask(sampling=pb.SamplingParams(temperature=3))))
    assert error.message.field == "sampling.temperature"
    assert (await failure(worker.stub.Generate(ask(model="gpt-7")))).reason is Reason.MODEL_NOT_FOUND
    assert worker.triton.requests == []


async def test_a_prompt_is_rendered_and_counted_without_an_engine(worker: Worker) -> None:
    rendered = await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask()))
    assert rendered.prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert rendered.prompt_tokens == len(rendered.token_ids) == 256 - rendered.remaining_tokens
    assert worker.triton.requests == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask(n=200)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_ignored_advisory_fields_are_reported(worker: Worker) -> None:
    worker.triton.supported -= {"priority"}
    await until(lambda: worker.model.description is not None and not worker.model.supports("priority"))
    events = await events_of(worker.stub.Generate(ask(priority=3)))
    assert list(events[0].started.ignored_parameters) == ["priority"]
    rendered = await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask(priority=3)))
    assert list(rendered.ignored_parameters) == ["priority"]
    error = await failure(worker.stub.Generate(ask(priority=3, refuse_ignored_parameters=True)))
    assert error.reason is Reason.UNSUPPORTED_PARAMETER


async def test_a_prompt_that_is_being_read_does_not_time_out(worker: Worker) -> None:
    async def script(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        began = time.monotonic()
        while time.monotonic() - began < FIRST_TOKEN_SECONDS + 3 * IDLE_SECONDS:
            yield output([])
            await asyncio.sleep(IDLE_SECONDS / 5)
        yield output([50], finish="length")

    worker.triton.script = script
    responses = [response async for response in worker.stub.Generate(ask())]
    assert [kinds(list(response.events))[:1] for response in responses[:-1]] == [[]] * (len(responses) - 1)
    assert len(responses) > 5, "heartbeats come meanwhile"
    assert kinds(list(responses[-1].events)) == ["started", "delta", "finish", "usage"]
