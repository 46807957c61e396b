"""Generations of a real worker process with a real Triton."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.servicer import SERVICE
from services.runtime.failure import Reason, failure_of
from services.runtime.messages.message import Message
from tests.contract.inference.conftest import MODEL, PERSIAN, REPLAY, ask
from tests.contract.triton.subjects import QUESTION
from tests.support.workers import Worker


async def events_of(call: Any) -> list[pb.Event]:
    return [event async for response in call for event in response.events]


def text(events: list[pb.Event], index: int = 0) -> str:
    return "".join(e.delta.content for e in events if e.HasField("delta") and e.delta.index == index)


async def test_a_real_model_answers(stub: Any) -> None:
    events = await events_of(
        stub.Generate(ask(MODEL, prompt_token_ids=QUESTION, sampling=pb.SamplingParams(temperature=0)))
    )
    assert text(events) == "The capital of France is Paris."
    assert next(e.finish.reason for e in events if e.HasField("finish")) == pb.FINISH_REASON_STOP
    usage = events[-1].usage
    assert usage.prompt_tokens == len(QUESTION)
    assert usage.completion_tokens == sum(e.delta.token_count for e in events)
    assert usage.timings.first_token.ToMicroseconds() > usage.timings.render.ToMicroseconds() > 0
    served_by = usage.served_by
    assert (served_by.worker, served_by.engine) == (socket.gethostname(), "llamacpp")
    assert served_by.engine_version


async def test_log_probabilities_of_a_real_model_spell_its_text(stub: Any) -> None:
    request = ask(
        MODEL,
        prompt_token_ids=QUESTION,
        sampling=pb.SamplingParams(temperature=0),
        logprobs=pb.LogprobsOptions(top=3),
    )
    events = await events_of(stub.Generate(request))
    entries = [entry for e in events for entry in e.delta.logprobs]
    assert b"".join(entry.token_bytes for entry in entries).decode() == text(events)
    for entry in entries:
        assert len(entry.top) == 3
        assert (entry.top[0].token_id, entry.top[0].logprob) == (entry.token_id, entry.logprob)
        assert entry.logprob <= 0


async def test_persian_text_is_preserved_and_every_token_is_counted(stub: Any, persian_ids: list[int]) -> None:
    events = await events_of(stub.Generate(ask()))
    assert text(events) == PERSIAN
    assert not any("\ufffd" in e.delta.content for e in events)
    assert events[-1].usage.completion_tokens == sum(e.delta.token_count for e in events) == len(persian_ids) + 1


async def test_a_stop_string_across_tokens_is_removed_and_stops_the_engine(stub: Any) -> None:
    events = await events_of(stub.Generate(ask(sampling=pb.SamplingParams(stop=["ببینم؛ END"]))))
    assert text(events) == PERSIAN[: PERSIAN.index("ببینم؛ END")]
    assert next(e.finish.stop_string for e in events if e.HasField("finish")) == "ببینم؛ END"


async def test_each_choice_is_complete(stub: Any) -> None:
    events = await events_of(stub.Generate(ask(n=3)))
    assert [text(events, index) for index in range(3)] == [PERSIAN] * 3


async def test_max_tokens_ends_a_choice_with_length(stub: Any) -> None:
    events = await events_of(stub.Generate(ask(sampling=pb.SamplingParams(max_tokens=5))))
    assert next(e.finish.reason for e in events if e.HasField("finish")) == pb.FINISH_REASON_LENGTH
    assert events[-1].usage.completion_tokens == 5


async def test_a_cancelled_call_releases_the_engine(stub: Any) -> None:
    watch = stub.WatchStatus(pb.WatchStatusRequest(interval=duration_pb2.Duration(nanos=100_000_000)))

    async def replay_reaches(in_flight: int) -> pb.ModelStatus:
        async with asyncio.timeout(10):
            async for report in watch:
                state: pb.ModelStatus = next(m for m in report.models if m.model == REPLAY)
                if state.in_flight == in_flight:
                    return state
        raise AssertionError("the reports ended")

    before = await replay_reaches(0)
    call = stub.Generate(ask(n=2, prompt_token_ids=[7, 7]))
    await call.read()
    await replay_reaches(2)
    call.cancel()
    after = await replay_reaches(0)
    watch.cancel()
    assert after.cancelled_total == before.cancelled_total + 2


async def test_a_prompt_that_is_too_long_is_rejected_with_its_numbers(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(stub.Generate(ask(MODEL, prompt_token_ids=[5] * 250, sampling=pb.SamplingParams(max_tokens=7))))
    found = failure_of(caught.value)
    assert found is not None
    assert found.reason is Reason.CONTEXT_LENGTH_EXCEEDED
    assert found.message == Message(
        "context_exceeded", field="prompt_token_ids", model=MODEL, prompt=250, requested=7, value=257, limit=256
    )


async def test_a_message_of_megabytes_is_rejected_by_the_worker_and_not_by_the_transport(stub: Any) -> None:
    huge = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="x" * (20 * 2**20))])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(stub.Generate(ask(messages=[huge])))
    found = failure_of(caught.value)
    assert found is not None
    assert (found.reason, found.message.field) == (Reason.INVALID_ARGUMENT, "messages")


async def test_both_models_are_described(stub: Any) -> None:
    models = {model.id: model for model in (await stub.ListModels(pb.ListModelsRequest())).models}
    assert models.keys() == {MODEL, REPLAY}
    assert models[MODEL].context_length == 256
    assert models[MODEL].engine.name == "llamacpp"


async def test_reflection_names_the_services(worker: Worker) -> None:
    def names() -> set[str]:
        with grpc.insecure_channel(worker.target) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {SERVICE, "grpc.health.v1.Health"} <= await asyncio.to_thread(names)
