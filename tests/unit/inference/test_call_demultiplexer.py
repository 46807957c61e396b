"""Many calls in one stream, over real gRPC, with scripted generations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference import call_demultiplexer, step_message
from services.inference.call_demultiplexer import MOST_CREDITS, CallDemultiplexer
from services.inference.outlet import Outlet
from services.runtime.failure import Failure, Reason, failure_of, from_proto
from services.runtime.messages.message import Message
from services.worker.grpc_server import MAX_MESSAGE_BYTES
from tests.support.waits import until

LIMIT = 10.0
STEPS = 10


class Servicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Generates by the request's model: `endless`, `waits`, `steps`, `fails`, `breaks`, or a number of tokens."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.going = asyncio.Event()
        self.produced = 0
        self.running = 0
        self.step = 0

    async def GenerateMany(  # noqa: N802  # the method's name in the proto
        self, requests: AsyncIterator[pb.GenerateManyRequest], context: Any
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        try:
            async with aclosing(CallDemultiplexer(self._generate, self.drain).responses(requests)) as responses:
                async for response in responses:
                    yield response
        except Failure as failure:
            await context.abort_with_status(failure.status())

    async def _generate(
        self, request: pb.GenerateRequest, _: str, outlet: Outlet
    ) -> AsyncGenerator[list[pb.Event], None]:
        self.running += 1
        try:
            if request.model == "fails":
                raise Failure(Reason.OVERLOADED, Message.verbatim("the queue is full"), retry_after=2.0)
            if request.model == "breaks":
                raise RuntimeError("a secret of ours")
            if request.model == "steps":
                async for event in self._stepwise(late=request.n):
                    yield [event]
                return
            if request.model == "waits":
                yield []
                await self.going.wait()
            for number in range(int(request.model) if request.model.isdecimal() else 10**6):
                self.produced += 1
                yield [pb.Event(delta=pb.Delta(content="x", token_count=number))]
        finally:
            self.running -= 1

    async def _stepwise(self, *, late: int) -> AsyncGenerator[pb.Event, None]:
        """Yield a token per step, `late` iterations of the event loop after the step begins."""
        for step in range(1, 10 * STEPS):
            while self.step < step:  # noqa: ASYNC110  # the test counts iterations of the event loop
                await asyncio.sleep(0)
            for _ in range(late):
                await asyncio.sleep(0)
            yield pb.Event(delta=pb.Delta(content="x", token_count=1))


class Caller:
    """One stream, from the caller's side. `texts` and `ends` are by call."""

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc
        self.messages = 0
        self.accepts_credits: list[bool] = []
        self.texts: dict[int, str] = {}
        self.ends: dict[int, Failure | None] = {}
        self.heartbeat = 0

    async def start(
        self, call: int, model: str, *, credit: int = 1000, seconds: float | None = None, n: int = 0
    ) -> None:
        start = pb.StartCall(request=pb.GenerateRequest(model=model, n=n), credit=credit)
        if seconds is not None:
            start.timeout.FromMilliseconds(round(seconds * 1000))
        await self.rpc.write(pb.GenerateManyRequest(call=call, start=start))

    async def read_until(self, condition: Any) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                response = await self.rpc.read()
                assert response is not grpc.aio.EOF, "the stream has ended"
                self.messages += 1
                self.accepts_credits.append(response.accepts_credits)
                for output in response.outputs:
                    self._note(output)

    def _note(self, output: pb.CallOutput) -> None:
        if output.HasField("status"):
            status = status_pb2.Status.FromString(output.status)
            self.ends[output.call] = from_proto(status) if status.code else None
        elif output.events:
            texts = "".join(event.delta.content for event in output.events)
            self.texts[output.call] = self.texts.get(output.call, "") + texts
        else:
            self.heartbeat += 1


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@asynccontextmanager
async def stream_to(servicer: Servicer) -> AsyncIterator[Caller]:
    server = grpc.aio.server()
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
            yield Caller(stub.GenerateMany())
    finally:
        await server.stop(None)


@pytest.fixture
async def caller(servicer: Servicer) -> AsyncIterator[Caller]:
    async with stream_to(servicer) as caller:
        yield caller


async def test_every_call_gets_its_own_output_and_outputs_share_messages(caller: Caller) -> None:
    for call in range(1, 41):
        await caller.start(call, str(call))
    await caller.read_until(lambda: len(caller.ends) == 40)
    assert caller.texts == {call: "x" * call for call in range(1, 41)}
    assert set(caller.ends.values()) == {None}
    assert caller.messages < 820 / 4, "outputs of many calls share a message"


@pytest.fixture
def long_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the end of a step takes longer than the test may."""
    monkeypatch.setattr(call_demultiplexer, "GATHER_SECONDS", 10 * LIMIT)


@pytest.mark.usefixtures("long_steps")
async def test_the_outputs_of_a_step_share_a_message_although_some_are_late(servicer: Servicer, caller: Caller) -> None:
    for call in (1, 2, 3):
        await caller.start(call, "steps", n=call * 5)
    await until(lambda: servicer.running == 3)
    for step in range(1, STEPS + 1):
        servicer.step = step
        await caller.read_until(lambda step=step: list(caller.texts.values()) == ["x" * step] * 3)
    # Outputs of the first step may come one by one, since the calls in the step are not known yet.
    assert caller.messages <= 3 + STEPS - 1


@pytest.mark.usefixtures("long_steps")
async def test_first_and_last_outputs_do_not_wait_for_a_call_that_pauses(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "steps")
    servicer.step = 1
    await caller.read_until(lambda: caller.texts.get(1) == "x")
    await caller.start(2, "3")
    await caller.read_until(lambda: 2 in caller.ends)
    assert caller.texts == {1: "x", 2: "xxx"}


async def test_a_call_without_credit_pauses_until_it_has_more(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "endless", credit=3)
    await caller.start(2, "5")
    await caller.read_until(lambda: caller.texts.get(1) == "xxx" and 2 in caller.ends)
    assert servicer.produced == 3 + 1 + 5, "the generation is one output ahead of its credit"
    await caller.rpc.write(pb.GenerateManyRequest(call=1, credit=2))
    await caller.read_until(lambda: caller.texts[1] == "xxxxx")
    assert servicer.produced == 5 + 1 + 5


async def test_one_message_gives_credit_to_several_calls(servicer: Servicer, caller: Caller) -> None:
    for call in (1, 2, 3):
        await caller.start(call, "endless", credit=1)
    await caller.read_until(lambda: caller.texts == {1: "x", 2: "x", 3: "x"})
    columns = pb.Credits(calls=[1, 3, 99], credits=[2, 1, 5])
    await caller.rpc.write(pb.GenerateManyRequest(credits=columns))
    await caller.read_until(lambda: caller.texts == {1: "xxx", 2: "x", 3: "xx"})
    assert servicer.produced == 6 + 3, "each generation is one output ahead of its credit"


async def test_the_number_of_calls_that_get_credit_in_a_message_is_limited(caller: Caller) -> None:
    await caller.start(1, "waits")
    columns = pb.Credits(calls=[1] * (MOST_CREDITS + 1), credits=[1] * (MOST_CREDITS + 1))
    await caller.rpc.write(pb.GenerateManyRequest(credits=columns))
    with pytest.raises(grpc.aio.AioRpcError, match="credits has 10001 entries"):
        await caller.read_until(lambda: False)


async def test_only_the_first_message_says_that_credit_of_several_calls_is_read(caller: Caller) -> None:
    await caller.start(1, "5")
    await caller.read_until(lambda: 1 in caller.ends)
    await caller.start(2, "5")
    await caller.read_until(lambda: 2 in caller.ends)
    assert caller.accepts_credits[0]
    assert not any(caller.accepts_credits[1:])


async def test_a_cancelled_call_ends_and_the_others_go_on(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "waits")
    await caller.start(2, "waits")
    await caller.read_until(lambda: caller.heartbeat == 2)
    await caller.rpc.write(pb.GenerateManyRequest(call=1, cancel=pb.CancelCall()))
    await until(lambda: servicer.running == 1)
    servicer.going.set()
    await caller.rpc.write(pb.GenerateManyRequest(call=2, cancel=pb.CancelCall()))
    await until(lambda: servicer.running == 0)
    assert 1 not in caller.ends, "a cancelled call has no further output"


async def test_a_failure_ends_only_its_call(caller: Caller) -> None:
    await caller.start(1, "fails")
    await caller.start(2, "breaks")
    await caller.start(3, "4")
    await caller.read_until(lambda: len(caller.ends) == 3)
    failed, broken = caller.ends[1], caller.ends[2]
    assert failed is not None
    assert (failed.reason, str(failed), failed.retry_after) == (Reason.OVERLOADED, "the queue is full", 2.0)
    assert broken is not None
    assert broken.reason is Reason.INTERNAL
    assert "secret" not in str(broken)
    assert caller.ends[3] is None


async def test_a_call_ends_at_its_timeout(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "waits", seconds=0.05)
    await caller.read_until(lambda: 1 in caller.ends)
    ended = caller.ends[1]
    assert ended is not None
    assert ended.reason is Reason.TIMEOUT
    assert ended.retry_after is None, "it would take as long again"
    assert servicer.running == 0


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e9])
async def test_an_invalid_timeout_is_rejected(caller: Caller, seconds: float) -> None:
    await caller.start(1, "1", seconds=seconds)
    await caller.read_until(lambda: 1 in caller.ends)
    rejected = caller.ends[1]
    assert rejected is not None
    assert rejected.message.field == "timeout"


async def test_a_call_number_that_was_used_ends_the_stream(servicer: Servicer, caller: Caller) -> None:
    await caller.start(5, "waits")
    await caller.start(5, "waits")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.read_until(lambda: False)
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.message.field == "call"
    await until(lambda: servicer.running == 0)


async def test_a_draining_worker_finishes_its_calls_and_rejects_new_ones(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "waits")
    await caller.read_until(lambda: caller.heartbeat == 1)
    servicer.drain.set()
    await caller.start(2, "1")
    await caller.read_until(lambda: 2 in caller.ends)
    rejected = caller.ends[2]
    assert rejected is not None
    assert rejected.reason is Reason.DRAINING
    assert 1 not in caller.ends
    await caller.start(3, "1")
    await caller.rpc.write(pb.GenerateManyRequest(call=1, cancel=pb.CancelCall()))
    async with asyncio.timeout(LIMIT):
        while await caller.rpc.read() is not grpc.aio.EOF:
            pass
        assert await caller.rpc.code() is grpc.StatusCode.OK


async def test_a_disconnected_caller_ends_all_its_calls(servicer: Servicer, caller: Caller) -> None:
    await caller.start(1, "waits")
    await caller.start(2, "endless", credit=1)
    await caller.read_until(lambda: caller.heartbeat == 1 and 2 in caller.texts)
    caller.rpc.cancel()
    await until(lambda: servicer.running == 0)


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_outputs_that_exceed_a_message_are_sent_in_several(parts: int) -> None:
    size = 2 * MAX_MESSAGE_BYTES // parts if parts > 2 else 1000
    outputs = [
        pb.CallOutput(call=number, events=[pb.Event(delta=pb.Delta(content="a" * size))]) for number in range(parts)
    ]
    responses = list(step_message.responses_of(outputs))
    assert all(response.ByteSize() <= MAX_MESSAGE_BYTES for response in responses)
    assert [output for response in responses for output in response.outputs] == outputs
    assert len(responses) == (1 if parts == 1 else 3 if parts == 3 else 4)


def test_a_single_output_that_exceeds_a_message_ends_its_call_only() -> None:
    events = [pb.Event(delta=pb.Delta(content="a" * MAX_MESSAGE_BYTES))]
    outputs = [pb.CallOutput(call=number, events=events if number == 2 else events[:0]) for number in (1, 2, 3)]
    sent = [output for response in step_message.responses_of(outputs) for output in response.outputs]
    assert [output.call for output in sent] == [1, 2, 3]
    failure = from_proto(status_pb2.Status.FromString(sent[1].status))
    assert failure is not None
    assert failure.reason is Reason.INTERNAL
    assert [sent[0], sent[2]] == [outputs[0], outputs[2]]
