"""Every API that generates is metered, limited, queued, cancelled and ended by budgets in the same way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import Limits
from tests.contract.tenancy.conftest import client_of, holds_nothing, records, state_of, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.generating_apis import APIS, Api, event_of
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]
RESET: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
every_api: Final = pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])


def body(api: Api, tokens: int, **fields: Any) -> dict[str, Any]:
    return api.body("hello", "small", tokens=tokens, **fields)


@every_api
async def test_requests_are_metered_and_limited(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, api: Api
) -> None:
    key, secret = await new_key(limits=Limits(rpm=2, tpm=10_000))
    prefix = "anthropic-ratelimit-requests-" if api.name == "messages" else "x-ratelimit-"
    suffix = "" if api.name == "messages" else "-requests"
    async with client_of(gateways[0], secret) as client:
        for stream in (False, True):
            response = await client.post(f"/api{api.path}", json=body(api, 4, stream=stream))
            assert response.status_code == 200
            assert response.headers[f"{prefix}limit{suffix}"] == "2"
        assert response.headers[f"{prefix}remaining{suffix}"] == "0"
        rejected = await client.post(f"/api{api.path}", json=body(api, 4))
    assert (rejected.status_code, rejected.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(rejected.headers["retry-after"]) > 0
    assert rejected.headers[f"{prefix}remaining{suffix}"] == "0"
    if api.name == "messages":
        assert RESET.fullmatch(response.headers["anthropic-ratelimit-tokens-reset"])
        assert rejected.json()["type"] == "error"
    await until(lambda: holds_nothing(redis, key))
    counts = await used(redis, key)
    assert (counts.requests, counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens) == (2, 10, 8, 2)


@every_api
async def test_a_stream_waits_in_the_queue(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, api: Api
) -> None:
    key, secret = await new_key(tier="patient")
    worker.going.clear()
    async with client_of(gateways[0], secret) as client:
        first = asyncio.create_task(client.post(f"/api{api.path}", json=body(api, 2)))
        await until(lambda: bool(worker.running))
        lines: list[str] = []
        async with client.stream("POST", f"/api{api.path}", json=body(api, 2, stream=True)) as response:
            async for line in response.aiter_lines():
                lines.append(line)
                if line == ": queued 1":
                    worker.going.set()
        assert (await first).status_code == 200
    events = [event for line in lines if (event := event_of(line)) is not None]
    first_event = next(index for index, line in enumerate(lines) if line.startswith("data: "))
    assert lines.index(": queued 1") < first_event
    assert "".join(map(api.text_of, events[:-1])) == "xx"
    assert api.last in {event.get("type") for event in events}
    await until(lambda: holds_nothing(redis, key))


@every_api
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_cancels_its_request_and_pays_for_what_it_got(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, api: Api, stream: bool
) -> None:
    key, secret = await new_key()
    worker.pace = 0.02
    async with client_of(gateways[0], secret) as client:
        request = client.build_request("POST", f"/api{api.path}", json=body(api, 10_000, stream=stream))
        asking = asyncio.create_task(client.send(request, stream=True))
        await until(lambda: any(entry.completion > 2 for entry in worker.books.values()))
        if stream:
            response = await asking
            async for line in response.aiter_lines():
                event = event_of(line)
                if event is not None and api.text_of(event):
                    break
            await response.aclose()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: not worker.running)
    await until(lambda: holds_nothing(redis, key))
    (entry,) = worker.books.values()
    assert 0 < (await used(redis, key)).completion_tokens <= entry.completion < 10_000
    assert [bill["outcome"] for bill in await records(redis, key)] == ["client gone"]


@every_api
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_spent_budget_ends_an_answer_and_bills_it_exactly(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, api: Api, stream: bool
) -> None:
    worker.pace = 0.005
    key, secret = await new_key(limits={"daily_tokens": 60})
    async with client_of(gateways[0], secret) as client:
        response = await client.post(f"/api{api.path}", json=body(api, 200, stream=stream))
        assert response.status_code == 200
        await until(lambda: holds_nothing(redis, key))
        refused = await client.post(f"/api{api.path}", json=body(api, 200, stream=stream))
        assert (refused.status_code, message_id_of(refused)) == (429, "daily_budget_exceeded")
    counts = await used(redis, key)
    if stream:
        events = [event for line in response.text.splitlines() if (event := event_of(line)) is not None]
        texts = [api.text_of(event) for event in events if event.get("type") != "[DONE]"]
        reasons = [api.finish_of(event) for event in events if event.get("type") != "[DONE]"]
        assert [reason for reason in reasons if reason is not None] == [api.cut]
        assert "".join(texts) == "x" * counts.completion_tokens
    else:
        usage = response.json()["usage"]
        prompt = usage[api.usage_names[0]] + usage.get("cache_read_input_tokens", 0)
        assert (prompt, usage[api.usage_names[1]]) == (counts.prompt_tokens, counts.completion_tokens)
        assert f'"{api.cut}"' in response.text
    assert '"vilix":{"ended_by":"daily_tokens","scope":"key"}' in response.text
    assert (await state_of(redis, key))["key"].daily == counts.prompt_tokens + counts.completion_tokens
    assert [bill["outcome"] for bill in await records(redis, key)] == ["budget"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_background_response_holds_its_slot_until_it_has_ended(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, stream: bool
) -> None:
    key, secret = await new_key(limits=Limits(concurrency=1))
    worker.going.clear()
    fields = {"model": "small", "input": "hello", "max_output_tokens": 3}
    async with client_of(gateways[0], secret) as client, client_of(gateways[1], secret) as another:
        request = client.build_request("POST", "/api/responses", json={**fields, "background": True, "stream": stream})
        # Its client leaves at once.
        await (await client.send(request, stream=True)).aclose()
        await until(lambda: bool(worker.running))
        refused = await another.post("/api/responses", json=fields)
        assert refused.status_code == 429
        worker.going.set()
        await until(lambda: holds_nothing(redis, key))
        assert (await another.post("/api/responses", json=fields)).status_code == 200
    await until(lambda: holds_nothing(redis, key))
    counts = await used(redis, key)
    assert (counts.requests, counts.completion_tokens) == (2, 6)
