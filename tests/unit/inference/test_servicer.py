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
from services.runtime.messages.message import Message
from services.worker.grpc_server import WorkerServer
from services.worker.triton_client import DeadModelError, EngineOutput
from tests.support.waits import until
from tests.unit.inference.scripted import MODEL, EngineRequest, ScriptedTriton, output, outputs

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
    tritons = dict.fromkeys(models, triton)
    # The client is a stand-in.
    status = EngineStatus(tritons, models, interval=0.05, stall_seconds=20)  # type: ignore[arg-type]
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
    error = failure_of(caught.value)
    assert error is not None, caught.value
    return error


def kinds(events: list[pb.Event]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


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


async def test_an_invalid_request_does_not_reach_the_engine(worker: Worker) -> None:
    error = await failure(worker.stub.Generate(ask(sampling=pb.SamplingParams(temperature=3))))
    assert error.message.field == "sampling.temperature"
    assert (await failure(worker.stub.Generate(ask(model="gpt-7")))).reason is Reason.MODEL_NOT_FOUND
    assert worker.triton.requests == []


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


async def test_the_model_reports_its_capabilities(worker: Worker) -> None:
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
    assert worker.triton.requests == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.RenderPrompt(pb.RenderPromptRequest(request=ask(n=100)))
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


async def test_the_status_is_the_one_that_the_engine_reports(worker: Worker) -> None:
    call = worker.stub.WatchStatus(pb.WatchStatusRequest(interval=duration_pb2.Duration(nanos=100_000_000)))
    await until(lambda: worker.triton.described > 0)
    reports = [await asyncio.wait_for(call.read(), 5) for _ in range(3)]
    call.cancel()
    state = reports[-1].models[0]
    assert (state.model, state.ready, state.in_flight, state.queued, state.slots) == (MODEL, True, 3, 2, 4)
    assert (state.cancelled_total, state.generated_tokens_total) == (11, 1234)
    assert state.last_token_age.ToMilliseconds() == 1500


async def test_the_use_of_the_cache_is_reported_only_if_the_engine_knows_it(worker: Worker) -> None:
    def reported() -> float | None:
        return REGISTRY.get_sample_value("vilix_engine_kv_cache_use", {"model": MODEL})

    await until(lambda: reported() == 0.5)
    worker.triton.kv_cache_use = None
    await until(lambda: reported() is None)
    assert worker.model.description is not None


@pytest.mark.parametrize("seconds", [0.05, 4000])
async def test_an_interval_out_of_range_is_rejected(worker: Worker, seconds: float) -> None:
    interval = duration_pb2.Duration()
    interval.FromMilliseconds(int(seconds * 1000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.WatchStatus(pb.WatchStatusRequest(interval=interval)).read()
    error = failure_of(caught.value)
    assert error is not None
    assert error.message.field == "interval"


async def test_all_watchers_share_one_poll(model: ServedModel) -> None:
    triton = ScriptedTriton()
    # The client is a stand-in.
    status = EngineStatus({MODEL: triton}, {MODEL: model}, interval=60, stall_seconds=20)  # type: ignore[arg-type]
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


async def test_each_model_has_its_own_health(worker: Worker) -> None:
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
