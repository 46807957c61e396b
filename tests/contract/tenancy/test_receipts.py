"""Receipts of requests by every API: stages, tokens and outcome, for the key that made the request alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from services.gateway.endpoints.receipt_model import Receipt
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.receipts import name_of
from tests.contract.tenancy.conftest import ADMIN_TOKEN, URL, body, client_of, holds_nothing, records, used
from tests.contract.tenancy.counting_worker import FAILS_AT, CountingWorker
from tests.support.generating_apis import APIS, Api
from tests.support.messages import message_id_of
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]
SECRET_TEXT: Final = "a text of its author"
every_api: Final = pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])


@pytest.fixture
async def admin(gateways: list[str], admin_port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(f"http://127.0.0.1:{admin_port}", ADMIN_TOKEN) as client:
        yield client


async def receipt_of(client: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    """Return a receipt once it is there."""
    found: list[httpx.Response] = []

    async def is_there() -> bool:
        found.append(await client.get(f"/v1/requests/{request_id}"))
        return found[-1].status_code == 200

    await until(is_there)
    receipt: dict[str, Any] = found[-1].json()
    msgspec.convert(receipt, Receipt)
    return receipt


@every_api
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_request_has_a_receipt(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, api: Api, stream: bool
) -> None:
    key, secret = await new_key()
    async with client_of(gateways[0], secret) as client, client_of(gateways[1], secret) as another:
        response = await client.post(
            f"/v1{api.path}", json=api.body(SECRET_TEXT, "configured", tokens=4, stream=stream)
        )
        assert response.status_code == 200
        receipt = await receipt_of(another, response.headers["x-request-id"])
    assert (receipt["object"], receipt["endpoint"], receipt["stream"]) == ("request", f"/v1{api.path}", stream)
    assert (receipt["model"], receipt["alias"]) == ("large", "configured")
    assert (receipt["outcome"], receipt["status"], receipt["error"]) == ("complete", 200, None)
    assert receipt["finish_reasons"] == ["stop"]
    usage = {"prompt_tokens": len(SECRET_TEXT), "completion_tokens": 4, "cached_tokens": 1, "reasoning_tokens": 0}
    assert receipt["usage"] == usage
    stages = ("authenticated", "admitted", "worker_called", "first_token", "last_token", "settled")
    times = [receipt["timings_ms"][stage] for stage in stages]
    assert times == sorted(times)
    assert receipt["retries"] == 0
    kept = await redis.hget(name_of(key.id), receipt["id"])
    assert SECRET_TEXT not in kept
    assert "xxxx" not in kept, "nor the answer"


async def test_another_keys_request_is_unknown(gateways: list[str], worker: CountingWorker, new_key: NewKey) -> None:
    (_, secret), (_, others) = await new_key(), await new_key()
    async with client_of(gateways[0], secret) as client, client_of(gateways[0], others) as other:
        request_id = (await client.post(URL, json=body(1))).headers["x-request-id"]
        assert (await receipt_of(client, request_id))["id"] == request_id
        for path in (f"/api/requests/{request_id}", "/api/requests/req-0"):
            unknown = await other.get(path)
            assert (unknown.status_code, message_id_of(unknown)) == (404, "request_not_found")
            assert unknown.json()["error"]["code"] == "request_not_found"


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"model": SECRET_TEXT}, 404, "model_not_found_or_allowed"),
        ({"temperature": "hot"}, 400, "wrong_type"),
        ({"max_tokens": 100}, 429, "daily_budget_exceeded"),
    ],
    ids=["404", "400", "429"],
)
async def test_a_rejected_request_has_a_receipt(
    gateways: list[str],
    worker: CountingWorker,
    new_key: NewKey,
    *,
    fields: dict[str, Any],
    status: int,
    error: str,
) -> None:
    _, secret = await new_key(limits={"daily_tokens": 5})
    async with client_of(gateways[0], secret) as client:
        response = await client.post(URL, json=body(1) | fields)
        assert response.status_code == status
        receipt = await receipt_of(client, response.headers["x-request-id"])
    assert (receipt["outcome"], receipt["status"], receipt["error"]) == ("rejected", status, error)
    assert receipt["model"] != SECRET_TEXT
    assert "worker_called" not in receipt["timings_ms"]
    assert set(receipt["usage"].values()) == {0}


async def test_a_generation_that_broke_off_has_a_receipt(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, admin: httpx.AsyncClient
) -> None:
    key, secret = await new_key()
    message = [{"role": "user", "content": f"{FAILS_AT}3"}]
    async with client_of(gateways[0], secret) as client:
        response = await client.post(URL, json=body(9, messages=message))
        request_id = response.headers["x-request-id"]
        receipt = await receipt_of(client, request_id)
    assert (receipt["outcome"], receipt["status"], receipt["error"]) == ("broken off", 500, message_id_of(response))
    assert receipt["usage"]["completion_tokens"] == 2
    found = (await admin.get(f"/admin/v1/requests/{request_id}")).json()
    assert (found["key"], found["key_name"]) == (key.id, key.name)
    assert found["receipt"]["addresses"] == [worker_address(found)]
    missing = await admin.get("/admin/v1/requests/req-0")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "request_not_found")


def worker_address(found: dict[str, Any]) -> str:
    (address,) = found["receipt"]["addresses"]
    assert address.startswith("127.0.0.1:")
    return str(address)


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("/api/tokenize", {"prompt": "hello"}),
        (URL, {"messages": [{"role": "user", "content": "hello"}], "dry_run": True}),
        ("/api/messages/count_tokens", {"messages": [{"role": "user", "content": "hello"}]}),
    ],
    ids=["tokenize", "dry_run", "count_tokens"],
)
async def test_a_rendered_prompt_has_a_receipt_with_its_worker(
    gateways: list[str],
    worker: CountingWorker,
    new_key: NewKey,
    admin: httpx.AsyncClient,
    *,
    url: str,
    fields: dict[str, Any],
) -> None:
    _, secret = await new_key()
    async with client_of(gateways[0], secret) as client:
        response = await client.post(url, json={"model": "small", **fields})
        assert response.status_code == 200
        request_id = response.headers["x-request-id"]
        receipt = await receipt_of(client, request_id)
    assert receipt["timings_ms"]["admitted"] <= receipt["timings_ms"]["worker_called"]
    found = (await admin.get(f"/admin/v1/requests/{request_id}")).json()
    assert found["receipt"]["addresses"] == [worker_address(found)]


async def test_support_is_asked_for_the_key_of_an_id_that_two_have_chosen(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, admin: httpx.AsyncClient
) -> None:
    both = [await new_key(), await new_key()]
    for _, secret in both:
        async with client_of(gateways[0], secret) as client:
            await client.post(URL, json=body(1), headers={"x-request-id": "chosen"})
            await receipt_of(client, "chosen")
    shared = await admin.get("/admin/v1/requests/chosen")
    assert (shared.status_code, shared.json()["error"]["code"]) == (409, "request_of_several_keys")
    for key, _ in both:
        assert key.id in shared.json()["error"]["message"]
        assert (await admin.get("/admin/v1/requests/chosen", params={"key": key.id})).json()["key"] == key.id


async def test_a_background_response_has_one_receipt(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key()
    fields = {"model": "small", "input": "hello", "max_output_tokens": 3, "background": True}
    async with client_of(gateways[0], secret) as client:
        request_id = (await client.post("/api/responses", json=fields)).headers["x-request-id"]
        receipt = await receipt_of(client, request_id)
    assert (receipt["background"], receipt["endpoint"]) == (True, "/api/responses")
    assert receipt["usage"]["completion_tokens"] == 3
    times = receipt["timings_ms"]
    assert 0 <= times["authenticated"] <= times["admitted"] <= times["settled"]
    assert await redis.hlen(name_of(key.id)) == 1


async def test_a_wait_in_the_queue_is_in_the_receipt(
    gateways: list[str], worker: CountingWorker, new_key: NewKey
) -> None:
    _, secret = await new_key(tier="patient")
    worker.going.clear()
    async with client_of(gateways[0], secret) as client:
        first = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: bool(worker.running))
        headers = {"x-request-id": "waits"}
        async with client.stream("POST", URL, json=body(2, stream=True), headers=headers) as response:
            async for line in response.aiter_lines():
                if line == ": queued 1":
                    worker.going.set()
        await first
        times = (await receipt_of(client, "waits"))["timings_ms"]
    assert times["authenticated"] <= times["queued"] < times["admitted"]


async def test_receipts_records_and_usage_add_up_to_the_token(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key()
    async with client_of(gateways[0], secret) as client:
        posts = [
            client.post(f"/api{api.path}", json=api.body("x" * number, "small", tokens=number))
            for number in range(1, 8)
            for api in APIS
        ]
        ids = [response.headers["x-request-id"] for response in await asyncio.gather(*posts)]
        await until(lambda: holds_nothing(redis, key))
        receipts = [await receipt_of(client, request_id) for request_id in ids]
        today = (await client.get("/api/usage")).json()["today"]
    bills = await records(redis, key)
    assert today["requests"] == len(ids) == len(bills)
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"):
        of_receipts = sum(receipt["usage"][name] for receipt in receipts)
        assert of_receipts == sum(int(bill[name]) for bill in bills) == today[name]
    assert "cost" not in today
    assert not any("cost" in each for each in (*receipts, *bills))
    assert (await used(redis, key)).cost is None
