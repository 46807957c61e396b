"""The service over real gRPC, with a stand-in for Triton."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference.generation.generation import Timeouts
from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits
from services.inference.servicer import SERVICE, InferenceServicer
from services.runtime.failure import Failure, Reason, failure_of
from services.worker.grpc_server import WorkerServer
from services.worker.triton_client import DeadModelError, EngineOutput
from tests.support.waits import until
from tests.unit.inference.scripted import MODEL, Asked, ScriptedTriton, output, outputs

IDLE_SECONDS = 0.5
CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Worker:
    """A worker that serves one model."""

    triton: ScriptedTriton
    model: ServedModel
    target: str
    stub: Any
    server: WorkerServer


@pytest.fixture
async def worker(model: ServedModel) -> AsyncIterator[Worker]:
    triton = ScriptedTriton()
    models = {MODEL: model}
    status = EngineStatus(dict.fromkeys(models, triton), models, interval=0.05, stall_seconds=20)  # type: ignore[arg-type]  # a stand-in
    server = WorkerServer(SERVICE, models=models)
    servicer = InferenceServicer(
        models,
        {MODEL: triton},  # type: ignore[dict-item]  # as above
        status,
        limits=RequestLimits(),
        timeouts=Timeouts(idle_seconds=IDLE_SECONDS, first_token_seconds=2),
        server=server,
    )
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.grpc.start()
    polling = asyncio.create_task(status.run(server.set_serving, server.set_model_serving))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", CHANNEL) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        yield Worker(triton, model, f"127.0.0.1:{port}", stub, server)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    await server.grpc.stop(None)


def ask(**fields: Any) -> pb.GenerateRequest:
    messages = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])]
    return pb.GenerateRequest(**({"model": MODEL, "messages": messages} | fields))


async def events_of(call: Any) -> list[pb.Event]:
    return [event async for response in call for event in response.events]


async def failure(call: Any) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(call)
    found = failure_of(caught.value)
    assert found is not None, caught.value
    return found


def kinds(events: list[pb.Event]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


async def test_events_come_in_order_and_add_up(worker: Worker) -> None:
    ids = worker.model.tokenizer.encode("The answer")
    worker.triton.script = lambda _: outputs(ids[:1], ids[1:], [2], finish="stop")
    events = await events_of(worker.stub.Generate(ask()))
    assert kinds(events)[0] == "started"
    assert kinds(events)[-2:] == ["finish", "usage"]
    assert "".join(event.delta.content for event in events) == "The answer"
    usage = events[-1].usage
    assert usage.completion_tokens == sum(event.delta.token_count for event in events) == len(ids) + 1
    assert usage.prompt_tokens == events[0].started.prompt_tokens == len(worker.triton.asked[0].prompt_token_ids)
    assert usage.cached_tokens == 3
    assert usage.timings.queued.ToMilliseconds() == 500
    assert usage.timings.first_token.ToMicroseconds() > 0
    assert worker.triton.asked[0].params["temperature"] == pytest.approx(0.2)


async def test_what_is_ready_together_travels_together(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs(*([50 + i] for i in range(40)), finish="length")
    responses = [response async for response in worker.stub.Generate(ask())]
    assert len(responses) < 10
    deltas = [event.delta for response in responses for event in response.events if event.HasField("delta")]
    assert sum(delta.token_count for delta in deltas) == 40


async def test_each_token_is_sent_as_soon_as_it_is_there(worker: Worker) -> None:
    steps: asyncio.Queue[EngineOutput] = asyncio.Queue()

    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        while True:
            yield await steps.get()

    worker.triton.script = script
    call = worker.stub.Generate(ask())
    for token_id in (50, 51, 52):
        steps.put_nowait(output([token_id]))
        response = await asyncio.wait_for(call.read(), 5)
        assert response.events[-1].delta.token_count == 1
    call.cancel()


async def test_choices_are_requests_of_their_own_with_one_usage(worker: Worker) -> None:
    texts = ["first", "second", "third"]
    ids = [worker.model.tokenizer.encode(text) for text in texts]
    worker.triton.script = lambda asked: outputs(*([i] for i in ids[int(asked.request_id[-1])]), finish="length")
    call = worker.stub.Generate(ask(n=3, sampling=pb.SamplingParams(seed=7)), metadata=(("x-request-id", "abc"),))
    events = await events_of(call)
    for index, text in enumerate(texts):
        assert "".join(e.delta.content for e in events if e.HasField("delta") and e.delta.index == index) == text
    assert sorted(e.finish.index for e in events if e.HasField("finish")) == [0, 1, 2]
    assert kinds(events).count("usage") == kinds(events).count("started") == 1
    assert events[-1].usage.completion_tokens == sum(map(len, ids))
    assert [asked.request_id for asked in worker.triton.asked] == ["abc.0", "abc.1", "abc.2"]
    assert [asked.params["seed"] for asked in worker.triton.asked] == [7, 8, 9]


async def test_a_stop_string_stops_the_engine_and_the_other_choices_go_on(worker: Worker) -> None:
    ids = worker.model.tokenizer.encode("one two three")
    go_on = asyncio.Event()

    async def script(asked: Asked) -> AsyncGenerator[EngineOutput, None]:
        if asked.request_id.endswith(".1"):
            await go_on.wait()
            yield output([50], finish="length")
        for token_id in itertools.cycle(ids):
            yield output([token_id])
            await asyncio.sleep(0)

    worker.triton.script = script
    call = worker.stub.Generate(ask(n=2, sampling=pb.SamplingParams(stop=["two"])))
    await until(lambda: bool(worker.triton.asked))
    await asyncio.wait_for(worker.triton.asked[0].closed.wait(), 5)
    assert not worker.triton.asked[1].closed.is_set()
    go_on.set()
    events = await events_of(call)
    first = [e for e in events if e.delta.index == 0 and e.HasField("delta")]
    assert "".join(e.delta.content for e in first) == "one "
    finish = next(e.finish for e in events if e.HasField("finish") and e.finish.index == 0)
    assert (finish.reason, finish.stop_string) == (pb.FINISH_REASON_STOP, "two")
    assert events[-1].usage.completion_tokens == sum(e.delta.token_count for e in events)


@pytest.mark.parametrize("how", ["cancel", "deadline", "channel closed"])
@pytest.mark.parametrize("when", ["before the first token", "while it streams", "with a reader that does not read"])
async def test_whoever_hangs_up_stops_every_choice(worker: Worker, how: str, when: str) -> None:
    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        if when == "before the first token":
            await asyncio.Event().wait()
        while True:
            yield output([EIGHTY_LETTERS] * 500)
            await asyncio.sleep(0 if when == "with a reader that does not read" else 0.005)

    worker.triton.script = script
    channel = grpc.aio.insecure_channel(worker.target, CHANNEL)
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Generate(ask(n=2), timeout=1 if how == "deadline" else 60)
    await until(lambda: len(worker.triton.asked) == 2)
    if when != "before the first token":
        await call.read()
    if how == "cancel":
        call.cancel()
    elif how == "channel closed":
        await channel.close()
    for asked in worker.triton.asked:
        await asyncio.wait_for(asked.closed.wait(), 20)
    await channel.close()


EIGHTY_LETTERS = 45855


async def test_a_reader_that_does_not_read_stops_the_reading_from_triton(worker: Worker) -> None:
    produced = 0

    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
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


REJECTIONS = [
    Failure(Reason.CONTEXT_LENGTH_EXCEEDED, "too long"),
    Failure(Reason.OVERLOADED, "full", retry_after=1.0),
    Failure(Reason.MODEL_UNAVAILABLE, "gone", retry_after=1.0),
]


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda rejection: str(rejection.reason))
async def test_a_rejection_of_the_engine_is_a_status_and_nothing_was_started(
    worker: Worker, rejection: Failure
) -> None:
    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        raise rejection
        yield

    worker.triton.script = script
    call = worker.stub.Generate(ask(n=2))
    found = await failure(call)
    assert (found.reason, str(found), found.retry_after) == (
        rejection.reason,
        str(rejection),
        rejection.retry_after,
    )
    for asked in worker.triton.asked:
        await asyncio.wait_for(asked.closed.wait(), 20)


async def test_what_came_before_a_failure_is_sent_and_then_the_failure(worker: Worker) -> None:
    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        yield output([50])
        yield output([51])
        raise Failure(Reason.ENGINE_FAILED, "broken")

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
    found = failure_of(caught.value)
    assert found is not None
    assert found.reason is Reason.ENGINE_FAILED


async def test_an_answer_that_the_engine_cancelled_is_a_failure_and_no_end(worker: Worker) -> None:
    worker.triton.script = lambda _: outputs([50], finish="cancelled")
    assert (await failure(worker.stub.Generate(ask()))).reason is Reason.ENGINE_FAILED


async def test_a_fault_of_ours_tells_the_caller_nothing_and_the_log_everything(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        raise KeyError("secret detail")
        yield

    worker.triton.script = script
    found = await failure(worker.stub.Generate(ask(), metadata=(("x-request-id", "find-me"),)))
    assert found.reason is Reason.INTERNAL
    assert "secret" not in str(found)
    logged = next(record for record in caplog.records if record.exc_info)
    assert vars(logged)["request_id"] == "find-me"


async def test_every_request_is_logged_once_without_its_content(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await events_of(worker.stub.Generate(ask(), metadata=(("x-request-id", "r1"),)))
    await failure(worker.stub.Generate(ask(n=100), metadata=(("x-request-id", "r2"),)))
    lines = {vars(r)["request_id"]: vars(r) for r in caplog.records if r.getMessage() == "generate"}
    assert (lines["r1"]["outcome"], lines["r1"]["completion_tokens"]) == ("ok", 2)
    assert lines["r2"]["outcome"] == "INVALID_ARGUMENT"
    assert "Hello" not in caplog.text


async def test_a_bad_request_reaches_no_engine(worker: Worker) -> None:
    found = await failure(worker.stub.Generate(ask(sampling=pb.SamplingParams(temperature=3))))
    assert found.message.field == "sampling.temperature"
    assert (await failure(worker.stub.Generate(ask(model="gpt-7")))).reason is Reason.MODEL_NOT_FOUND
    assert worker.triton.asked == []


async def test_a_model_whose_engine_is_away_is_unavailable_and_comes_back(worker: Worker) -> None:
    await worker.stub.GetModel(pb.GetModelRequest(model=MODEL))
    worker.triton.down = True
    await until(lambda: worker.model.description is None)
    found = await failure(worker.stub.Generate(ask()))
    assert found.reason is Reason.MODEL_UNAVAILABLE
    assert found.retry_after is not None
    assert (await worker.stub.ListModels(pb.ListModelsRequest())).models == []
    worker.triton.down = False
    await until(lambda: worker.model.description is not None)
    assert await events_of(worker.stub.Generate(ask()))


async def test_the_model_says_what_it_can_do(worker: Worker) -> None:
    (listed,) = (await worker.stub.ListModels(pb.ListModelsRequest())).models
    assert listed == (await worker.stub.GetModel(pb.GetModelRequest(model=MODEL))).model
    assert (listed.id, listed.context_length, listed.engine.slots) == (MODEL, 256, 4)
    assert {"sampling.top_k", "sampling.stop", "logprobs", "tenant"} <= set(listed.supported_parameters)
    assert not listed.capabilities.tools
    assert not listed.capabilities.reasoning
    assert listed.capabilities.chat
    assert set(listed.descriptions) == {"en", "fa"}
    assert listed.sampling_defaults.top_p == pytest.approx(0.9)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.GetModel(pb.GetModelRequest(model="gpt-7"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_prompt_is_rendered_and_counted_without_an_engine(worker: Worker) -> None:
    rendered = await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask()))
    assert rendered.prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert rendered.prompt_tokens == len(rendered.token_ids) == 256 - rendered.remaining_tokens
    assert worker.triton.asked == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask(n=100)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_ignored_advice_is_said(worker: Worker) -> None:
    worker.triton.supported -= {"priority"}
    await until(lambda: worker.model.description is not None and not worker.model.supports("priority"))
    events = await events_of(worker.stub.Generate(ask(priority=3)))
    assert list(events[0].started.ignored_parameters) == ["priority"]
    rendered = await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask(priority=3)))
    assert list(rendered.ignored_parameters) == ["priority"]
    found = await failure(worker.stub.Generate(ask(priority=3, refuse_ignored_parameters=True)))
    assert found.reason is Reason.UNSUPPORTED_PARAMETER


async def test_status_is_what_the_engine_says(worker: Worker) -> None:
    call = worker.stub.WatchStatus(pb.WatchStatusRequest(interval=duration_pb2.Duration(nanos=100_000_000)))
    await until(lambda: worker.triton.described > 0)
    reports = [await asyncio.wait_for(call.read(), 5) for _ in range(3)]
    call.cancel()
    state = reports[-1].models[0]
    assert (state.model, state.ready, state.in_flight, state.queued, state.slots) == (MODEL, True, 3, 2, 4)
    assert (state.cancelled_total, state.generated_tokens_total) == (11, 1234)
    assert state.last_token_age.ToMilliseconds() == 1500


async def test_how_full_the_cache_is_is_shown_only_where_the_engine_knows(worker: Worker) -> None:
    def shown() -> float | None:
        return REGISTRY.get_sample_value("vilix_engine_kv_cache_use", {"model": MODEL})

    await until(lambda: shown() == 0.5)
    worker.triton.kv_cache_use = None
    await until(lambda: shown() is None)
    assert worker.model.description is not None


@pytest.mark.parametrize("seconds", [0.05, 4000])
async def test_an_interval_out_of_range_is_rejected(worker: Worker, seconds: float) -> None:
    interval = duration_pb2.Duration()
    interval.FromMilliseconds(int(seconds * 1000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.WatchStatus(pb.WatchStatusRequest(interval=interval)).read()
    found = failure_of(caught.value)
    assert found is not None
    assert found.message.field == "interval"


async def test_all_watchers_share_one_poll(model: ServedModel) -> None:
    triton = ScriptedTriton()
    status = EngineStatus({MODEL: triton}, {MODEL: model}, interval=60, stall_seconds=20)  # type: ignore[arg-type]  # a stand-in
    ready: list[bool] = []
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch, status.watched(0.3), status.watched(0.1), status.watched(0.2):
        patch.setattr("services.worker.engine_poll.asyncio.sleep", nap)
        with pytest.raises(asyncio.CancelledError):
            await status.run(ready.append)
    assert naps == [0.1] * 4
    assert triton.described == 4
    assert ready == [True]


@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "in the middle"])
async def test_a_dead_model_ends_its_open_answers_at_once(worker: Worker, begun: bool) -> None:
    async def script(_: Asked) -> AsyncIterator[EngineOutput]:
        if begun:
            yield output([1])
        await asyncio.sleep(60)
        yield output([2], finish="stop")

    worker.triton.script = script
    await until(lambda: worker.model.description is not None)
    call = worker.stub.Generate(ask())
    await until(lambda: bool(worker.triton.asked) and bool(worker.model.open_requests))
    if begun:
        assert (await call.read()).events
    worker.triton.trouble = DeadModelError(MODEL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_read_to_end(call), 5)
    found = failure_of(caught.value)
    assert found is not None
    assert found.reason is Reason.MODEL_UNAVAILABLE
    assert found.retry_after
    assert not worker.model.open_requests


async def test_each_model_has_a_health_of_its_own(worker: Worker) -> None:
    async with grpc.aio.insecure_channel(worker.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)

        async def sets_reasoning(wanted: int) -> bool:
            return await status(name) == wanted

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        name = f"{SERVICE}/{MODEL}"
        await until(lambda: sets_reasoning(serving), what="the model is served")
        worker.triton.trouble = DeadModelError(MODEL)
        await until(lambda: sets_reasoning(not_serving), what="the model is away")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(f"{SERVICE}/another")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def _read_to_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_an_output_that_came_while_the_worker_stood_still_is_in_time(worker: Worker) -> None:
    async def late(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        yield output([1])
        # Until the worker waits for the next one.
        await asyncio.sleep(0.01)
        time.sleep(2 * IDLE_SECONDS)  # noqa: ASYNC251  # the loop is to stand still
        for _turn in range(20):
            # What came meanwhile is read some turns of the loop later.
            await asyncio.sleep(0)
        yield output([2], finish="length")

    worker.triton.script = late
    events = await events_of(worker.stub.Generate(ask()))
    assert kinds(events)[-1] == "usage"
