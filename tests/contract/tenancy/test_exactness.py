"""Three gateways on one Valkey: no limit is exceeded, no reservation leaks, and every token is billed once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy.key import Key
from tests.contract.tenancy.conftest import ROUNDS, URL, body, client_of, holds_nothing, records, state_of, used
from tests.contract.tenancy.counting_worker import FAILS_AT, CountingWorker
from tests.support.fault_table import record
from tests.support.generating_apis import APIS, event_of
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]
Asking = tuple[list[httpx.AsyncClient], CountingWorker, Redis]


@pytest.fixture
async def clients(gateways: list[str]) -> Any:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client_of(url)) for url in gateways]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def asking(clients: list[httpx.AsyncClient], worker: CountingWorker, redis: Redis) -> Asking:
    return clients, worker, redis


@pytest.mark.timeout(60 + 3 * ROUNDS)
@pytest.mark.parametrize(
    ("limit", "draft", "rounds"),
    [
        ("rpm", {"limits": {"rpm": 5}}, ROUNDS // 4),
        ("concurrency", {"limits": {"concurrency": 5}}, ROUNDS),
        ("concurrency of a model", {"model_limits": {"small": {"concurrency": 5}}}, ROUNDS // 4),
    ],
    ids=["rpm", "concurrency", "concurrency of a model"],
)
async def test_of_a_hundred_parallel_requests_exactly_the_limit_succeed(
    asking: Asking, new_key: NewKey, limit: str, draft: dict[str, Any], rounds: int
) -> None:
    clients, worker, redis = asking
    for _ in range(rounds):
        worker.going.clear()
        key, secret = await new_key(**draft)
        statuses: Counter[int] = Counter()

        async def ask(number: int, secret: str, statuses: Counter[int]) -> None:
            client = clients[number % len(clients)]
            api = APIS[number // len(clients) % len(APIS)]
            content = api.body("hello", "small", tokens=3)
            statuses[(await client.post(f"/api{api.path}", json=content, headers=bearer(secret))).status_code] += 1
            if statuses[429] == 95:
                worker.going.set()

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(ask(number, secret, statuses))
        assert statuses == {200: 5, 429: 95}
        await until(lambda key=key: holds_nothing(redis, key))  # type: ignore[misc]  # its type is clear
    record(
        f"Limits are exact: 100 parallel requests to {len(clients)} gateways, {limit} of 5",
        f"exactly 5 answered, {rounds} times",
        f"5 of 100, {rounds} of {rounds} times",
        met=True,
    )


async def test_random_disconnects_and_errors_release_everything_and_bill_what_was_produced(
    clients: list[httpx.AsyncClient], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    worker.pace = 0.002
    key, secret = await new_key(limits={"concurrency": 20, "tpm": 1_000_000, "monthly_tokens": 1_000_000})
    chance = random.Random(6)
    received: dict[str, int] = {}

    async def ask(number: int) -> None:
        request_id = f"r-{number}"
        api, stream, text = chance.choice(APIS), chance.random() < 0.8, "x" * chance.randrange(1, 60)
        tokens, disconnect_after = chance.randrange(1, 60), chance.choice([None, chance.randrange(0, 40)])
        if chance.random() < 0.3:
            text += f"{FAILS_AT}{chance.randrange(1, 60)}"
        headers = {**bearer(secret), "x-request-id": request_id}
        content = api.body(text, "small", tokens=tokens, stream=stream)
        request = clients[number % 3].build_request("POST", f"/api{api.path}", json=content, headers=headers)
        while True:
            response = await clients[number % 3].send(request, stream=True)
            if response.status_code != 429:
                break
            await response.aclose()
            await asyncio.sleep(0.2)
        received[request_id] = 0
        async for line in response.aiter_lines():
            event = event_of(line)
            received[request_id] += event is not None and len(api.text_of(event))
            if disconnect_after is not None and received[request_id] >= disconnect_after:
                worker.left.add(request_id)
                break
        await response.aclose()

    async def some(first: int) -> None:
        for number in range(first, 300, 30):
            await ask(number)

    await asyncio.gather(*(some(first) for first in range(30)))
    await until(lambda: holds_nothing(redis, key))
    assert worker.most_running <= 20
    billed = {record["request_id"]: record for record in await records(redis, key)}
    assert len(await records(redis, key)) == len(billed) == 300, "one record each"
    assert {entry.ended for entry in worker.books.values()} == {"complete", "broken", "cancelled"}
    for request_id, bill in billed.items():
        entry = worker.books[request_id]
        prompt, completion = int(bill["prompt_tokens"]), int(bill["completion_tokens"])
        if bill["outcome"] == "client gone":
            # Tokens in flight to the gateway when the client disconnected are not billed.
            assert received[request_id] <= completion <= entry.completion
            assert prompt in (0, entry.prompt)
        else:
            assert (prompt, completion) == (entry.prompt, entry.completion), bill
    total = await used(redis, key)
    assert total.requests == 300
    assert total.prompt_tokens == sum(int(record["prompt_tokens"]) for record in billed.values())
    assert total.completion_tokens == sum(int(record["completion_tokens"]) for record in billed.values())
    scope = (await state_of(redis, key))["key"]
    assert scope.daily == scope.monthly == total.prompt_tokens + total.completion_tokens


async def test_a_budget_is_never_overspent_by_requests_that_fit_their_reservation(
    clients: list[httpx.AsyncClient], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key(limits={"daily_tokens": 200})
    responses = await asyncio.gather(
        *(
            clients[number % 3].post(
                f"/api{api.path}", json=api.body("hello", "small", tokens=5), headers=bearer(secret)
            )
            for number, api in zip(range(60), itertools.cycle(APIS))
        )
    )
    rejected = [response for response in responses if response.status_code == 429]
    assert rejected
    assert {message_id_of(response) for response in rejected} == {"daily_budget_exceeded"}
    assert {response.headers["x-should-retry"] for response in rejected} == {"false"}
    while (await clients[0].post(URL, json=body(5), headers=bearer(secret))).status_code == 200:
        pass
    assert (await used(redis, key)).completion_tokens <= 200
    assert 170 <= (await state_of(redis, key))["key"].daily <= 200
