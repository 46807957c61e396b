"""Budgets that end running generations, and keys over their limits that are rejected before a large body is read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change, Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.secret import digest
from tests.contract.tenancy.conftest import URL, body, client_of, holds_nothing, records, state_of, used
from tests.contract.tenancy.counting_worker import CountingWorker
from tests.support.fault_table import record
from tests.support.generating_apis import CHAT, MESSAGES, RESPONSES, Api
from tests.support.waits import until

NewKey = Callable[..., Awaitable[tuple[Key, str]]]
TEXT_URL = "/api/completions"
READING_URLS = [URL, TEXT_URL, "/api/embeddings", "/api/tokenize", "/api/responses", "/api/messages"]
"""Paths that read a body."""
SPENT = {"ended_by": "daily_tokens", "scope": "key"}
LARGE = 19 * 2**20


async def test_generations_that_exceed_a_budget_end_and_are_billed_exactly(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    worker.pace = 0.005
    key, secret = await new_key(limits={"daily_tokens": 260})

    async def ask(number: int) -> dict[str, Any]:
        async with client_of(gateways[number % len(gateways)], secret) as client:
            return (await client.post(URL, json=body(200))).json()  # type: ignore[no-any-return]

    responses = await asyncio.gather(*(ask(number) for number in range(5)))
    await until(lambda: holds_nothing(redis, key))
    for response in responses:
        assert response["vilix"] == SPENT
        assert response["choices"][0]["finish_reason"] == "length"
        assert response["usage"]["completion_tokens"] == len(response["choices"][0]["message"]["content"])
    spent = (await state_of(redis, key))["key"].daily
    assert spent == sum(response["usage"]["total_tokens"] for response in responses)
    bills = await records(redis, key)
    assert {bill["outcome"] for bill in bills} == {"budget"}
    assert not worker.running, "the engine is stopped"
    # Tokens beyond 260 that may be in flight when Redis reports that the budget is spent.
    met = 230 <= spent <= 286
    record(
        "A budget of 260 tokens a day and five parallel responses of 200 tokens each",
        "all end with `finish_reason: length` and name the budget; at most 10 % more than the budget is used",
        f"{spent} tokens used",
        met=met,
    )
    assert met


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("url", [URL, TEXT_URL])
async def test_the_last_chunk_names_the_budget(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, url: str, choices: int
) -> None:
    worker.pace = 0.005
    key, secret = await new_key(model_limits={"small": {"monthly_tokens": 100}})
    fields = body(200, stream=True, n=choices, stream_options={"include_usage": True})
    if url == TEXT_URL:
        del fields["messages"]
        fields["prompt"] = "hello"
    async with client_of(gateways[0], secret) as client:
        lines = (await client.post(url, json=fields)).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    *finishes, usage = chunks[-choices - 1 :]
    assert {chunk["choices"][0]["index"] for chunk in finishes} == set(range(choices))
    for chunk in finishes:
        assert chunk["choices"][0]["finish_reason"] == "length"
    for chunk in (*finishes, usage):
        assert chunk["vilix"] == {"ended_by": "monthly_tokens", "scope": "model"}
    assert not any("vilix" in chunk for chunk in chunks[: -choices - 1])
    await until(lambda: holds_nothing(redis, key))
    assert (await used(redis, key)).completion_tokens == usage["usage"]["completion_tokens"]
    assert usage["usage"]["total_tokens"] <= 100 + 10 * choices


async def test_openais_sdk_parses_a_response_that_a_budget_ended(
    gateways: list[str], worker: CountingWorker, new_key: NewKey
) -> None:
    worker.pace = 0.005
    _, secret = await new_key(limits={"daily_tokens": 200})
    async with AsyncOpenAI(api_key=secret, base_url=gateways[0] + "/api", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        whole = await client.chat.completions.create(model="small", messages=messages, max_tokens=80)
        assert whole.choices[0].finish_reason == "stop"
        assert not hasattr(whole, "vilix")
        stream = await client.chat.completions.create(model="small", messages=messages, max_tokens=400, stream=True)
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].vilix == SPENT  # type: ignore[attr-defined]  # what OpenAI's API does not have


async def test_a_rate_ends_no_generation_and_delays_the_next_request(
    gateways: list[str], worker: CountingWorker, new_key: NewKey
) -> None:
    worker.pace = 0.002
    _, secret = await new_key(limits={"tpm": 100})
    async with client_of(gateways[0], secret) as client:
        response = (await client.post(URL, json=body(300))).json()
        assert response["choices"][0]["finish_reason"] == "stop"
        assert response["usage"]["completion_tokens"] == 300
        rejected = await client.post(URL, json=body(1))
        assert rejected.status_code == 429
        assert int(rejected.headers["Retry-After"]) > 60


@pytest.mark.parametrize("prompt", [[1] * 1900, [[1] * 1900]])
async def test_token_ids_in_a_prompt_count_as_one_token_each(
    gateways: list[str], new_key: NewKey, prompt: list[Any]
) -> None:
    _, secret = await new_key(limits={"tpm": 1000})
    async with client_of(gateways[0], secret) as client:
        rejected = await client.post(TEXT_URL, json={"model": "small", "prompt": prompt, "max_tokens": 1})
        assert rejected.status_code == 429
        assert "19" in rejected.json()["error"]["message"]


async def test_tokenize_needs_capacity_for_the_prompt_in_the_budget(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key(limits={"daily_tokens": 100})
    long = {"model": "small", "messages": [{"role": "user", "content": "x" * 4000}]}
    async with client_of(gateways[0], secret) as client:
        shown = await client.post("/api/tokenize", json={"model": "small", "prompt": "hello"})
        assert shown.status_code == 200
        for url, fields in ((URL, {**long, "dry_run": True}), ("/api/tokenize", long)):
            rejected = await client.post(url, json=fields)
            assert (rejected.status_code, rejected.json()["error"]["code"]) == (429, "insufficient_quota")
        assert worker.rendered == 1
        await until(lambda: holds_nothing(redis, key))
        assert (await state_of(redis, key))["key"].daily == 0, "no tokens are billed"
        assert (await client.get("/api/models")).status_code == 200
        assert (await client.get("/api/usage")).status_code == 200


@pytest.mark.parametrize("url", READING_URLS)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize(
    "limits", [{"rpm": 1}, {"concurrency": 1}, {"daily_tokens": 30}], ids=["rpm", "concurrency", "budget"]
)
async def test_a_large_body_of_a_key_over_its_limits_is_not_read(
    gateways: list[str],
    worker: CountingWorker,
    new_key: NewKey,
    redis: Redis,
    *,
    url: str,
    chunked: bool,
    limits: dict[str, int],
) -> None:
    key, secret = await new_key(limits=limits)
    worker.going.clear()
    async with client_of(gateways[0], secret) as client:
        running = asyncio.create_task(client.post(URL, json=body(10)))
        await until(lambda: holds_one(redis, key))
        if "concurrency" not in limits:
            worker.going.set()
            await running
        if "daily_tokens" in limits:
            await keys.change(redis, key.id, Change(limits=Limits(daily_tokens=15)))
        small = await client.post(URL, json=body(10))
        head, rest, writer = await rejected_early(gateways[0], secret, url, chunked=chunked)
        worker.going.set()
        await running
    assert (head.status, small.status_code) == (429, 429)
    assert head.fields["x-error-message-id"] == small.headers["x-error-message-id"]
    assert rest["error"]["message"]
    assert head.fields["connection"] == "close"
    limits_of_openai = ("x-ratelimit",) if url != "/api/messages" else ()
    expected = {name for name in small.headers if name.startswith((*limits_of_openai, "retry-after", "x-should"))}
    assert expected <= head.fields.keys()
    writer.close()


async def test_a_large_body_of_a_key_that_may_queue_is_read(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis
) -> None:
    key, secret = await new_key(tier="patient")
    worker.going.clear()
    long = body(1, messages=[{"role": "user", "content": "x" * 80_000}])
    async with client_of(gateways[0], secret) as client:
        first = asyncio.create_task(client.post(URL, json=body(1)))
        await until(lambda: holds_one(redis, key))
        second = asyncio.create_task(client.post(URL, json=long))
        await until(lambda: waits_one(redis, key))
        worker.going.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]


@pytest.mark.parametrize("url", READING_URLS)
@pytest.mark.parametrize("known", [False, True], ids=["first request", "known key"])
@pytest.mark.parametrize(("event", "status"), [("revoked", 401), ("expired", 401), ("another list", 403)])
async def test_a_change_of_the_key_while_its_body_is_received_applies(
    gateways: list[str], new_key: NewKey, redis: Redis, *, url: str, known: bool, event: str, status: int
) -> None:
    key, secret = await new_key(expires=int(time.time()) + 3600)
    if known:
        async with client_of(gateways[0], secret) as client:
            assert (await client.get("/api/models")).status_code == 200
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    if url == TEXT_URL:
        fields = {"prompt": "x"}
    elif url in ("/api/embeddings", "/api/responses"):
        fields = {"input": "x"}
    text = json.dumps({"model": "small", **fields})
    reader, writer = await opened(gateways[0])
    async with redis.monitor() as monitor:
        writer.write(request_head(url, secret, f"content-length: {len(text)}") + text[:-1].encode())
        if not known:
            async with asyncio.timeout(10):
                async for command in monitor.listen():
                    if digest(secret) in command["command"]:
                        break
    match event:
        case "revoked":
            await keys.revoke(redis, key.id)
        case "expired":
            await keys.change(redis, key.id, Change(expires=int(time.time()) - 1))
        case _:
            await keys.change(redis, key.id, Change(models=frozenset({"large"})))
    writer.write(text[-1:].encode())
    head, _ = await answer_of(reader)
    assert head.status == status
    writer.close()


@pytest.mark.parametrize(
    ("event", "stream", "api"),
    [
        *((event, stream, CHAT) for event in ("revoked", "expired") for stream in (False, True)),
        *(("revoked", stream, api) for stream in (False, True) for api in (RESPONSES, MESSAGES)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_queued_request_ends_within_a_second_of_its_keys_end(
    gateways: list[str], worker: CountingWorker, new_key: NewKey, redis: Redis, *, event: str, stream: bool, api: Api
) -> None:
    worker.going.clear()
    key, secret = await new_key(tier="patient")
    async with client_of(gateways[0], secret) as client, client_of(gateways[1], secret) as another:
        first = asyncio.create_task(client.post(URL, json=body(2)))
        await until(lambda: holds_one(redis, key))
        question = api.body("hello", "small", tokens=2, stream=stream)
        waiting = asyncio.create_task(another.post(f"/api{api.path}", json=question))
        await until(lambda: waits_one(redis, key))
        if event == "revoked":
            await keys.revoke(redis, key.id)
        else:
            await keys.change(redis, key.id, Change(expires=int(time.time()) - 1))
        ended = time.monotonic()
        response = await waiting
        seconds = time.monotonic() - ended
        worker.going.set()
        assert (await first).status_code == 200, "the running request goes on"
    assert response.status_code == (200 if stream else 401)
    expected = {CHAT: "invalid_api_key", MESSAGES: "authentication_error", RESPONSES: "api_key_unknown"}[api]
    assert expected in (response.text if stream or api is not RESPONSES else response.headers["x-error-message-id"])
    assert len(worker.books) == 1
    kind = f"{'streamed' if stream else 'whole'} {'' if api is CHAT else f'{api.name} '}request"
    record(
        f"A key is {event} while its {kind} waits in the queue",
        "401 within 1 s",
        f"{seconds:.1f} s",
        met=seconds < 1,
    )
    assert seconds < 5


class Head:
    def __init__(self, text: bytes) -> None:
        first, *lines = text.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def opened(gateway: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(gateway)
    return await asyncio.open_connection(where.hostname, where.port)


def request_head(url: str, secret: str, length: str) -> bytes:
    return f"POST {url} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n{length}\r\n\r\n".encode()


async def answer_of(reader: asyncio.StreamReader) -> tuple[Head, dict[str, Any]]:
    async with asyncio.timeout(20):
        head = Head((await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n"))
        return head, json.loads(await reader.readexactly(int(head.fields["content-length"])))


async def rejected_early(
    gateway: str, secret: str, url: str, *, chunked: bool
) -> tuple[Head, dict[str, Any], asyncio.StreamWriter]:
    """Send the first bytes of a body of 19 MiB, and return the response that comes before the rest is sent."""
    reader, writer = await opened(gateway)
    if chunked:
        part = b'{"model": "small", "x": "' + b"x" * 66_000
        writer.write(request_head(url, secret, "transfer-encoding: chunked") + b"%x\r\n%b\r\n" % (len(part), part))
    else:
        writer.write(request_head(url, secret, f"content-length: {LARGE}") + b"{")
    await writer.drain()
    head, rest = await answer_of(reader)
    return head, rest, writer


async def holds_one(redis: Redis, key: Key) -> bool:
    return (await state_of(redis, key))["key"].slots == 1


async def waits_one(redis: Redis, key: Key) -> bool:
    return bool(await redis.zcard(f"vilix:{{{key.shard}}}:limits:{key.id}:waiting") == 1)
