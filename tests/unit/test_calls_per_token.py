"""A guard of the cost of a token: the number of calls that it takes, which is repeatable, unlike time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.request import ChatCall
from services.gateway.edge.body import RequestBody
from services.gateway.edge.body_budget import BodyBudget
from services.gateway.edge.direct_writer import DirectWriter
from services.gateway.limit_status import NO_LIMITS
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.token_path import TokenPath
from services.gateway.record import RequestRecord
from services.gateway.routing.call_multiplexer import CallMultiplexer
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.inference.call_demultiplexer import CallDemultiplexer
from services.inference.generation.choice import Choice
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.inference.token_path import TokenPath as WorkerTokenPath
from services.worker.step_stream import StepStream
from tests.support.call_counter import counted
from tests.support.models import smollm2

STREAMS = 100
MOST_IN_GATEWAY = 17
MOST_IN_WORKER = 21
MESSAGES = 200
MOST_OF_SMALL_MESSAGE = 43
"""Calls of a message with one token, which short requests and few streams have; the fake stream is among them."""
MOST_OF_SMALL_BODY = 31


class Rpc:
    """A stream to a worker that sends nothing."""

    async def read(self) -> None:
        await asyncio.Event().wait()

    async def write(self, message: Any) -> None:
        pass

    def cancel(self) -> None:
        pass


async def test_a_token_takes_few_calls_in_the_gateway() -> None:
    rpc: Any = Rpc()
    multiplexer = CallMultiplexer(rpc)
    written: list[bytes] = []
    readers = []
    for _ in range(STREAMS):
        call = multiplexer.call(pb.StartCall(), idle_seconds=60)
        call.offer_to(_path(written))
        readers.append(asyncio.ensure_future(_read(call)))
    await asyncio.sleep(0)
    numbers = list(range(1, STREAMS + 1))
    columns = pb.TextDeltas(calls=numbers, texts=[" word"] * STREAMS, token_counts=[1] * STREAMS)
    for _ in range(2):
        written.clear()
        unwritten: dict[Any, None] = {}
        with counted() as calls:
            multiplexer._receive(pb.GenerateManyResponse(contents=columns), unwritten)
            for each in unwritten:
                each.flush()
        assert len(written) == STREAMS
        assert all(b'"content":" word"' in data for data in written)
    assert calls() <= MOST_IN_GATEWAY * STREAMS, calls() / STREAMS
    for reader in readers:
        reader.cancel()
    await multiplexer.close()


class Messages(Rpc):
    """A stream to a worker that has sent messages."""

    def __init__(self, messages: list[pb.GenerateManyResponse]) -> None:
        self.messages = messages
        self.all_read = asyncio.Event()

    async def read(self) -> Any:
        if not self.messages:
            self.all_read.set()
            await super().read()
        await asyncio.sleep(0)
        return self.messages.pop()


async def test_a_small_message_takes_few_calls_in_the_gateway() -> None:
    columns = pb.TextDeltas(calls=[1], texts=[" word"], token_counts=[1])
    rpc: Any = Messages([pb.GenerateManyResponse(contents=columns) for _ in range(MESSAGES)])
    multiplexer = CallMultiplexer(rpc)
    call = multiplexer.call(pb.StartCall(), idle_seconds=60)
    taken: Any = SimpleNamespace(take_text=lambda *_: True, flush=lambda: None)
    call.offer_to(taken)
    reader = asyncio.ensure_future(_read(call))
    await asyncio.sleep(0)
    with counted() as calls:
        await rpc.all_read.wait()
    assert calls() <= MOST_OF_SMALL_MESSAGE * MESSAGES, calls() / MESSAGES
    reader.cancel()
    await multiplexer.close()


async def test_a_body_that_came_with_its_headers_takes_few_calls() -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    served: Any = SimpleNamespace(complete_body_bytes=2)
    gate: Any = None
    budget = BodyBudget(total=10**6, per_key=10**6)
    bodies = [(RequestBody({}, receive, served), budget.open("key")) for _ in range(MESSAGES)]
    with counted() as calls:
        for body, share in bodies:
            await body.read(max_bytes=100, share=share, gate=gate)
            body.release()
    assert budget.used == 0
    assert calls() <= MOST_OF_SMALL_BODY * MESSAGES, calls() / MESSAGES


async def _read(call: Any) -> None:
    async for _ in call:
        pass


def _path(written: list[bytes]) -> TokenPath:
    cycle: Any = SimpleNamespace(
        response_started=True,
        chunked_encoding=True,
        response_complete=False,
        disconnected=False,
        flow=SimpleNamespace(write_paused=False),
        transport=SimpleNamespace(write=written.append),
    )
    call = ChatCall(generate=pb.GenerateRequest(model="m"), stream=True)
    chat: Any = OpenAIChat()
    encoder = chat.encoder(call, ResponseHead("chatcmpl-1", 1, "req-1", "fp_1"))
    generation: Any = SimpleNamespace(model="m", has_begun=True, began_at=0.0)
    absent: Any = None
    estimate = TokenEstimate(model="m", prompt=1, output=100, max_output=100)
    subject: Any = SimpleNamespace(
        limits=SimpleNamespace(daily_tokens=1, monthly_tokens=1),
        model_limits=SimpleNamespace(daily_tokens=1, monthly_tokens=1),
        price=None,
    )
    reservation = Reservation(absent, subject, estimate, absent, NO_LIMITS)
    metered = MeteredGeneration(generation, reservation, RequestRecord("req-1", "POST"), choices=1)
    return TokenPath(encoder, metered, DirectWriter(cycle), [])


class TritonCall:
    """A call of Triton that answers nothing."""

    async def read(self) -> None:
        await asyncio.Event().wait()

    async def write(self, message: Any) -> None:
        pass

    def cancel(self) -> None:
        pass


class Idle:
    """A generation whose reader waits, and the count of its usage."""

    has_started = True

    def claim(self, choice: int) -> bool:
        return True

    def note_tokens(self, value: int) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> ServedModel:
    from services.inference.model.catalog import load_model

    return ServedModel.load(load_model("smollm2-135m"), smollm2())


async def test_a_token_takes_few_calls_in_the_worker(model: ServedModel) -> None:
    token = model.tokenizer.encode(" word")[0]
    ids = iter(map(str, range(1000)))
    stream = StepStream(TritonCall(), "m", lambda: next(ids))

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()
        yield []

    demultiplexer = CallDemultiplexer(never, asyncio.Event())
    idle: Any = Idle()
    readers = []
    for number in range(1, STREAMS + 1):
        start = pb.StartCall(credit=1000, accepts_text_deltas=True, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
        demultiplexer._start(number, start)
        outlet = demultiplexer._calls[number]
        choice = Choice(0, pb.GenerateRequest(), model, Prompt("", [1], 100))
        request = stream.begin(
            lambda _: service_pb2.ModelInferRequest(), window=1024, sink=WorkerTokenPath(choice, idle, idle, outlet)
        )
        readers.append(asyncio.ensure_future(request.read()))
    await asyncio.sleep(0)
    answer = service_pb2.ModelInferResponse()
    for name, values in (
        ("step_requests", range(1, STREAMS + 1)),
        ("step_counts", [1] * STREAMS),
        ("token_ids", [token] * STREAMS),
    ):
        answer.outputs.add(name=name)
        answer.raw_output_contents.append(np.array(values, "<i4").tobytes())
    for _ in range(2):
        with counted() as calls:
            stream._dispatch(answer)
            (response,) = demultiplexer._message.responses()
        assert list(response.contents.texts)[-STREAMS:] == [" word"] * STREAMS
    assert calls() <= MOST_IN_WORKER * STREAMS, calls() / STREAMS
    for reader in readers:
        reader.cancel()
    for task in demultiplexer._tasks.values():
        task.cancel()
    await stream.close(seconds=0.01)
