"""What an answer notes of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.answer import Answer
from services.gateway.dialects.openai_chat.chat_request import ChatRequest
from services.gateway.tenancy.limits import Produced

MODEL = "model-of-this-test"


class Call:
    """A worker that answers in these groups."""

    def __init__(self, *groups: list[pb.Event]) -> None:
        self.started = pb.Started(prompt_tokens=7)
        self._groups = groups

    async def start(self, *, seconds: float | None) -> bool:
        return seconds is None

    async def __aiter__(self) -> AsyncIterator[list[pb.Event]]:
        for group in self._groups:
            yield group

    def cancel(self) -> None:
        pass


class Lease:
    def __init__(self) -> None:
        self.produced = Produced()
        self.spent = None

    def ends_answer_with(self, end: object) -> None:
        pass

    def count(self, events: list[pb.Event]) -> None:
        self.produced.completion += sum(event.delta.token_count for event in events)

    async def settle(self, outcome: str) -> None:
        pass


def token() -> list[pb.Event]:
    return [pb.Event(delta=pb.Delta(content="a", token_count=1))]


def observed(name: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_count", {"model": MODEL}) or 0.0


@pytest.mark.parametrize("seconds", [None, 0.0], ids=["waited for its beginning", "not"])
@pytest.mark.parametrize("tokens", [1, 5])
async def test_n_tokens_one_after_the_other_have_one_gap_less(tokens: int, seconds: float | None) -> None:
    first, *others = (token() for _ in range(tokens))
    started, usage = pb.Event(started=pb.Started(prompt_tokens=7)), pb.Event(usage=pb.Usage(completion_tokens=tokens))
    call: Any = Call([started, *first], *others, [usage])
    log: dict[str, Any] = {}
    settings = SimpleNamespace(log_content=False)
    request: Any = SimpleNamespace(
        state=SimpleNamespace(request_id="r", log=log),
        app=SimpleNamespace(state=SimpleNamespace(dependencies=SimpleNamespace(settings=settings))),
    )
    chat = ChatRequest(
        generate=pb.GenerateRequest(model=MODEL), stream=True, include_usage=False, continuous_usage=False, ignored=[]
    )
    worker: Any = SimpleNamespace(in_flight=0)
    answer = Answer(request, chat, Lease(), worker=worker, call=call, hang_up=Any)  # type: ignore[arg-type]
    gaps, firsts = observed("vilix_inter_token_seconds"), observed("vilix_first_token_seconds")
    await answer.begin(seconds=seconds)
    assert [events async for events in answer.events()]
    answer.abandon()
    assert observed("vilix_inter_token_seconds") - gaps == tokens - 1
    assert observed("vilix_first_token_seconds") - firsts == 1
    assert log["completion_tokens"] == tokens
