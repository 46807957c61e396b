"""The short way of tokens through the worker, which must send the same as the way through the task of the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf import duration_pb2
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.inference.token_path import TokenPath
from services.runtime.failure import Reason, from_proto
from services.worker.triton_messages import EngineOutput
from tests.support.waits import until
from tests.unit.inference.running_worker import Worker, ask, running_worker
from tests.unit.inference.scripted import EngineRequest, Script, output, outputs

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "تهران"}}\n</tool_call>'
WEATHER = pb.Tool(name="weather", description="هوا", parameters_json='{"type": "object"}')
PARTS = [
    "<think>\n",
    "\n</think>\n\n",
    "</think>",
    CALL,
    "<tool_call>",
    "a < b\n",
    "\n\n",
    "سلام 👨‍👩‍👧",
    " word",
    "END",
    "E",
    "\r\n",
]
LIMIT = 10.0


class Always:
    """A generation whose reader waits, and the count of its usage."""

    has_started = True

    def claim(self, choice: int) -> bool:
        return True

    def note_tokens(self, value: int) -> None:
        pass

    def stop(self, choice: int) -> None:
        pass


@dataclass
class Received:
    """What a caller has received of one choice."""

    content: str = ""
    reasoning: str = ""
    calls: str = ""
    tokens: list[int] = field(default_factory=list)
    finishes: list[int] = field(default_factory=list)
    credit: int = 10**6

    def send_text(self, text: str, tokens: int, *, is_reasoning: bool) -> None:
        if is_reasoning:
            self.reasoning += text
        else:
            self.content += text
        self.tokens.append(tokens)

    def send_events(self, events: Sequence[pb.Event]) -> None:
        count = 0
        for event in events:
            self.content += event.delta.content
            self.reasoning += event.delta.reasoning_content
            self.calls += event.delta.tool_call.name + event.delta.tool_call.arguments_json
            count += event.delta.token_count
            if event.HasField("finish"):
                self.finishes.append(event.finish.reason)
        self.tokens.append(count)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    text=st.lists(st.sampled_from(PARTS), max_size=10).map("".join),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    stop=st.booleans(),
    hides=st.booleans(),
    opened=st.booleans(),
)
def test_the_short_way_sends_what_the_long_way_sends(
    reasoning_model: ServedModel, *, text: str, sizes: list[int], stop: bool, hides: bool, opened: bool
) -> None:
    request = ask(tools=[WEATHER], reasoning=pb.ReasoningOptions(exclude=hides))
    if stop:
        request.sampling.stop.append("END")
    prompt = Prompt(text="", token_ids=[1], remaining_tokens=100, opens_reasoning=opened)
    long, short = (Choice(0, request, reasoning_model, prompt) for _ in range(2))
    by_long, by_short = Received(), Received()
    always: Any = Always()
    path = TokenPath(short, always, always, by_short)
    ids = reasoning_model.tokenizer.encode(text)
    position, turn = 0, 0
    while position < len(ids) and not long.stopped:
        group = ids[position : position + sizes[turn % len(sizes)]]
        position, turn = position + len(group), turn + 1
        step = output(group)
        texts = long.detokenize(step)
        by_long.send_events(long.events(step, texts, long.parse(texts, at_end=False)))
        assert path.take(group)
    assert by_short == by_long
    assert (short.stopped, short.reasoning_tokens) == (long.stopped, long.reasoning_tokens)
    end = output([2], finish="stop")
    by_long, by_short = Received(), Received()
    for choice, received in ((long, by_long), (short, by_short)):
        texts = choice.detokenize(end)
        received.send_events(choice.events(end, texts, choice.parse(texts, at_end=True)))
    assert by_short == by_long


class Call:
    """One call in a stream of its own."""

    def __init__(self, rpc: Any) -> None:
        self.rpc = rpc
        self.messages: list[pb.GenerateManyResponse] = []
        self.received = Received()
        self.in_columns = 0
        self.usage = pb.Usage()
        self.status: status_pb2.Status | None = None

    async def read(self) -> bool:
        """Read a message. Return whether the call goes on."""
        response = await self.rpc.read()
        for column, is_reasoning in ((response.reasoning_contents, True), (response.contents, False)):
            for text, tokens in zip(column.texts, column.token_counts, strict=True):
                self.received.send_text(text, tokens, is_reasoning=is_reasoning)
                self.in_columns += 1
        for each in response.outputs:
            if each.HasField("status"):
                self.status = status_pb2.Status.FromString(each.status)
            elif each.events:
                self.received.send_events(each.events)
                self.usage.MergeFrom(each.events[-1].usage)
        return self.status is None

    async def read_all(self) -> None:
        while await self.read():
            pass


@pytest.fixture
async def stepping(model: ServedModel) -> AsyncIterator[Worker]:
    """A worker whose engine sends its steps in one stream."""
    async with running_worker(model) as worker:
        worker.triton.supported |= {"step"}
        # The worker may have asked for the engine's description before.
        await until(lambda: model.description is not None and model.supports("step"))
        yield worker


@asynccontextmanager
async def calling(
    worker: Worker, script: Script, *, credit: int = 100, columns: bool = True, **fields: Any
) -> AsyncIterator[Call]:
    worker.triton.script = script
    rpc = worker.stub.GenerateMany()
    timeout = duration_pb2.Duration(seconds=60)
    start = pb.StartCall(request=ask(**fields), timeout=timeout, credit=credit, accepts_text_deltas=columns)
    await rpc.write(pb.GenerateManyRequest(call=1, start=start))
    yield Call(rpc)
    rpc.cancel()


async def test_tokens_between_the_first_and_the_last_come_in_columns(stepping: Worker) -> None:
    ids = stepping.model.tokenizer.encode(" one two three four five six")
    async with calling(stepping, lambda _: slowly([*([i] for i in ids)])) as call:
        await call.read_all()
    assert call.received.content == " one two three four five six"
    assert call.in_columns == len(ids) - 1
    assert sum(call.received.tokens) == call.usage.completion_tokens == len(ids) + 1
    assert call.status is not None
    assert call.status.code == 0


async def test_a_caller_that_does_not_know_columns_gets_events(stepping: Worker) -> None:
    ids = stepping.model.tokenizer.encode(" one two three four five six")
    async with calling(stepping, lambda _: slowly([*([i] for i in ids)]), columns=False) as call:
        await call.read_all()
    assert call.received.content == " one two three four five six"
    assert call.in_columns == 0


async def test_without_credit_tokens_wait_and_none_is_lost(stepping: Worker) -> None:
    ids = stepping.model.tokenizer.encode(" one two three four five six seven eight")
    async with calling(stepping, lambda _: slowly([*([i] for i in ids)]), credit=3) as call:
        while len(call.received.tokens) < 3:
            await call.read()
        assert call.received.content == " one two three"
        await call.rpc.write(pb.GenerateManyRequest(call=1, credit=100))
        await call.read_all()
    assert call.received.content == " one two three four five six seven eight"
    assert call.usage.completion_tokens == len(ids) + 1


async def test_a_stop_string_on_the_short_way_ends_the_generation_and_the_engine(stepping: Worker) -> None:
    async def endless(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        for token_id in [*stepping.model.tokenizer.encode(" one two END"), *([50] * 10_000)]:
            yield output([token_id])
            await turns()

    async with calling(stepping, endless, sampling=pb.SamplingParams(stop=["END"])) as call:
        await call.read_all()
    assert call.received.content == " one two "
    assert call.received.finishes == [pb.FINISH_REASON_STOP]
    assert call.usage.completion_tokens > 0
    assert call.status is not None
    assert call.status.code == 0
    async with asyncio.timeout(LIMIT):
        await stepping.triton.requests[0].closed.wait()


async def test_an_engine_that_falls_silent_on_the_short_way_times_out(stepping: Worker) -> None:
    async def silent(_: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        for token_id in (50, 51, 52):
            yield output([token_id])
            await turns()
        await asyncio.Event().wait()

    async with calling(stepping, silent) as call, asyncio.timeout(LIMIT):
        await call.read_all()
    assert call.status is not None
    failure = from_proto(call.status)
    assert failure is not None
    assert failure.reason is Reason.TIMEOUT
    assert failure.message.id == "engine_silent"
    assert sum(call.received.tokens) == 3


async def turns() -> None:
    for _ in range(20):
        # Enough turns of the event loop for the reader to wait again.
        await asyncio.sleep(0)


async def slowly(batches: list[list[int]]) -> AsyncGenerator[EngineOutput, None]:
    async for each in outputs(*batches, [2], finish="stop"):
        yield each
        await turns()
