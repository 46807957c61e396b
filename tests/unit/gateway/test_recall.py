"""The responses that a request recalls: bounded before they are unpacked, and counted as a part of its body."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.edge.body import RequestBody
from services.gateway.edge.body_budget import BodyBudget
from services.gateway.errors import ApiError
from services.gateway.key_ring import KeyRing
from services.gateway.operations.recall import MAX_TOKENS, recalled_for
from services.gateway.operations.response_state import ResponseState
from services.gateway.redis.script import Script
from services.gateway.stored_responses import scripts
from services.gateway.stored_responses.packing import pack
from services.gateway.stored_responses.store import KEY_READS, Budgets, ResponseStore
from services.gateway.tenancy.key import Key

MOST = 100_000
KEY = cast(Key, type("KeyStandIn", (), {"id": "key", "tenant": "tenant"})())


class StoreStandIn(ResponseStore):
    """A store with one response."""

    def __init__(self, *, text: str = "a", is_lost: bool = False) -> None:
        super().__init__("redis://127.0.0.1:1/0", lease_ms=1000)
        self.is_lost = is_lost
        self.running = self.most_running = 0
        self.ended: list[str] = []
        self._items = pack([{"type": "message", "text": text}], most=10**9)

    async def _run(self, script: Script, *arguments: str) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if script is scripts.END:
            self.ended.append(arguments[0])
            self.is_lost = False
            return "stored"
        output = [{"type": "message", "id": f"msg_{'1' * 32}000{number}"} for number in range(2)]
        document = pack({"id": "resp_1", "output": output}, most=10**9)
        status = "in_progress" if self.is_lost else "completed"
        return [status, document, self._items, int(self.is_lost), 0, []]


async def body_of(budget: BodyBudget) -> RequestBody:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    class Open:
        async def check(self) -> None:
            pass

    body = RequestBody({}, receive)
    await body.read(max_bytes=100, share=budget.open("key"), gate=Open())
    return body


async def recall(store: ResponseStore, budget: BodyBudget | None = None, **fields: Any) -> Any:
    state = ResponseState(store, KeyRing(), cast(Any, None), Budgets(1, 10**6, 10**6), MOST, cast(Any, None))
    call = ResponsesCall(generate=pb.GenerateRequest(model="m"), **fields)
    body = await body_of(budget or BodyBudget(total=10**7, per_key=10**7))
    return await recalled_for(call, KEY, state, body)


async def test_a_previous_response_with_too_many_bytes_is_rejected_before_it_is_unpacked() -> None:
    store, budget = StoreStandIn(text="a" * MOST), BodyBudget(total=10**7, per_key=10**7)
    with pytest.raises(ApiError) as raised:
        await recall(store, budget, previous_response_id="resp_1")
    error = raised.value
    assert (error.status, error.message.id, error.field) == (400, "recalled_too_large", "previous_response_id")
    assert budget.used == len("{}")


async def test_what_is_recalled_counts_as_a_part_of_the_body() -> None:
    budget = BodyBudget(total=10**7, per_key=10**7)
    recalled = await recall(StoreStandIn(text="a" * 50_000), budget, previous_response_id="resp_1")
    assert len(recalled.history) == 3
    assert 50_000 < budget.used < 60_000
    small = BodyBudget(total=10**6, per_key=10**6, wait_seconds=0.01)
    filling = small.open("key")
    await small.grow(filling, 10**6 - 2**17 - 10_000)
    with pytest.raises(ApiError) as raised:
        await recall(StoreStandIn(text="a" * 90_000), small, previous_response_id="resp_1")
    assert raised.value.status == 503


async def test_only_what_is_referred_to_is_recalled() -> None:
    wanted = f"msg_{'1' * 32}0001"
    recalled = await recall(StoreStandIn(), references=[wanted])
    assert list(recalled.references) == [wanted]


async def test_a_previous_response_whose_gateway_died_is_ended() -> None:
    store = StoreStandIn(is_lost=True)
    assert len((await recall(store, previous_response_id="resp_1")).history) == 3
    assert store.ended == ["resp_1"]


async def test_tokens_of_reasoning_are_bounded_and_repeated_ones_count_once() -> None:
    await recall(StoreStandIn(), sealed=["a"] * (MAX_TOKENS + 1))
    with pytest.raises(ApiError) as raised:
        await recall(StoreStandIn(), sealed=[str(number) for number in range(MAX_TOKENS + 1)])
    assert (raised.value.status, raised.value.message.id) == (400, "too_many_sealed_items")


async def test_few_documents_of_a_key_are_read_at_the_same_time() -> None:
    store = StoreStandIn()
    await asyncio.gather(*(store.read("resp_1", "key", with_items=True) for _ in range(3 * KEY_READS)))
    assert store.most_running == KEY_READS
