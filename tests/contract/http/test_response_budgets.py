"""What operators decide about stored responses: how much of them there is, and whether there are any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack.ports import free_ports
from tests.contract.http.responses_api import ANSWER, URL, body, check_sequence, read_events
from tests.support.gateway import running_gateway, until_ready
from tests.support.messages import message_id_of
from tests.support.scripted_worker import ScriptedWorker, content, finish, started, usage
from tests.support.waits import until

KEY_BYTES = 20_000
TIERS = "tiers:\n  fleeting: {store_seconds: 0}\n  short: {store_seconds: 60}\n"
NewClient = Callable[..., Awaitable[httpx.AsyncClient]]


def serve(redis_url: str, state_redis_url: str, worker_port: int, directory: Path, **settings: str) -> Iterator[str]:
    tiers = directory / "tiers.yaml"
    tiers.write_text(TIERS)
    settings |= {"VILIX_STATE_REDIS_URL": state_redis_url, "VILIX_TIERS_FILE": str(tiers)}
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", directory / "gateway.log", **settings) as (url, _):
        yield url


@pytest.fixture(scope="module")
def frugal(
    redis_url: str, state_redis_url: str, worker_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of a gateway that stores little of each key."""
    directory, limit = tmp_path_factory.mktemp("frugal"), str(KEY_BYTES)
    yield from serve(redis_url, state_redis_url, worker_port, directory, VILIX_STORE_KEY_BYTES=limit)


@pytest.fixture(scope="module")
def forgetful(
    redis_url: str, state_redis_url: str, worker_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of a gateway that stores nothing."""
    directory = tmp_path_factory.mktemp("forgetful")
    yield from serve(redis_url, state_redis_url, worker_port, directory, VILIX_STORE_RESPONSES="false")


@pytest.fixture(scope="module")
def cut_off(redis_url: str, worker_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a gateway whose store never answers."""
    nobody = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    yield from serve(redis_url, nobody, worker_port, tmp_path_factory.mktemp("cut-off"))


@pytest.fixture
async def client_of(redis_url: str, worker: ScriptedWorker) -> AsyncIterator[NewClient]:
    """Yield a function that returns a client of a gateway with a new key."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(redis_url, decode_responses=True))

        async def create(url: str, **draft: object) -> httpx.AsyncClient:
            key, secret = await keys.create(redis, name=f"budgets {id(stack)} {len(draft)}", **draft)
            stack.push_async_callback(keys.revoke, redis, key.id)
            headers = {"Authorization": f"Bearer {secret}"}
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=20)
            await stack.enter_async_context(client)
            await until(worker.listed.is_set, what="the gateway has asked the worker for its models")
            await until_ready(url)
            return client

        yield create


async def test_a_full_store_rejects_what_must_be_stored_and_nothing_else(
    frugal: str, client_of: NewClient, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    client = await client_of(frugal, limits=Limits(rpm=100, concurrency=2))
    kept = (await client.post(URL, json=body(input="a" * (KEY_BYTES // 2)))).json()
    assert kept["store"] is True
    large = "b" * (KEY_BYTES // 2)
    for mode in ({"store": True}, {"store": True, "stream": True}, {"background": True}):
        rejected = await client.post(URL, json=body(input=large, **mode))
        assert (rejected.status_code, message_id_of(rejected)) == (503, "store_full")
        assert rejected.headers["retry-after"] == "60"
    for stream in (False, True):
        response = await client.post(URL, json=body(input=large, stream=stream))
        assert response.headers.get("x-ignored-params", "store") == "store"
        document = read_events(response.text)[-1]["response"] if stream else response.json()
        assert (document["status"], document["store"]) == ("completed", False)
        assert (await client.get(f"{URL}/{document['id']}")).status_code == 404
    chat = {"model": kept["model"], "messages": [{"role": "user", "content": large}]}
    assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
    assert (await client.delete(f"{URL}/{kept['id']}")).status_code == 200
    assert (await client.post(URL, json=body(input=large, store=True))).status_code == 200


@pytest.mark.parametrize("background", [False, True])
async def test_a_response_that_outgrows_the_store_is_no_longer_stored(
    frugal: str, client_of: NewClient, worker: ScriptedWorker, *, background: bool
) -> None:
    client, go_on = await client_of(frugal), asyncio.Event()
    worker.script = [[started(), content("a")], go_on, [content("b" * KEY_BYTES)], [finish(), usage()]]
    running = asyncio.create_task(client.post(URL, json=body(stream=True, background=background)))
    await until(lambda: bool(worker.requests), what="the worker was called")
    go_on.set()
    bodies = read_events((await running).text)
    check_sequence(bodies)
    final = bodies[-1]["response"]
    if background:
        assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
        return
    assert final["status"] == "completed"

    async def is_gone() -> bool:
        return (await client.get(f"{URL}/{final['id']}")).status_code == 404

    await until(is_gone, what="nothing of the response is stored")


@pytest.mark.parametrize("by_tier", [False, True])
async def test_nothing_is_stored_where_the_operator_forbids_it(
    frugal: str, forgetful: str, client_of: NewClient, worker: ScriptedWorker, state_redis_url: str, *, by_tier: bool
) -> None:
    worker.script = ANSWER
    client = await client_of(frugal, tier="fleeting") if by_tier else await client_of(forgetful)
    asked = await client.post(URL, json=body(store=True))
    assert asked.headers["x-ignored-params"] == "store"
    silent = await client.post(URL, json=body())
    assert "x-ignored-params" not in silent.headers
    streamed = read_events((await client.post(URL, json=body(stream=True))).text)[-1]["response"]
    for document in (asked.json(), silent.json(), streamed):
        assert document["store"] is False
        assert (await client.get(f"{URL}/{document['id']}")).status_code == 404
        assert (await client.delete(f"{URL}/{document['id']}")).status_code == 404
        continued = await client.post(URL, json=body(previous_response_id=document["id"]))
        assert (continued.status_code, continued.json()["error"]["code"]) == (404, "previous_response_not_found")
    rejected = await client.post(URL, json=body(background=True))
    assert (rejected.status_code, message_id_of(rejected)) == (400, "background_not_stored")
    async with Redis.from_url(state_redis_url, decode_responses=True) as state:
        assert not await state.exists(f"vilix:{{responses}}:r:{asked.json()['id']}")


async def test_a_tier_says_how_long_responses_are_kept(
    frugal: str, client_of: NewClient, worker: ScriptedWorker, state_redis_url: str
) -> None:
    worker.script = ANSWER
    async with Redis.from_url(state_redis_url, decode_responses=True) as state:
        for draft, least, most in (({"tier": "short"}, 1, 60_000), ({}, 60_001, 30 * 86_400_000)):
            client = await client_of(frugal, **draft)
            for mode in ({}, {"background": True}):
                response_id = (await client.post(URL, json=body(**mode))).json()["id"]
                names = [f"vilix:{{responses}}:{part}:{response_id}" for part in "re"]

                async def are_stored(names: list[str] = names) -> bool:
                    return int(await state.exists(*names)) == len(names)

                await until(are_stored, what="the response and its events are stored")
                assert all([least <= await state.pttl(name) <= most for name in names])


async def test_without_its_store_a_gateway_serves_what_need_not_be_stored(
    cut_off: str, client_of: NewClient, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    client = await client_of(cut_off)
    for stream in (False, True):
        response = await client.post(URL, json=body(stream=stream))
        document = read_events(response.text)[-1]["response"] if stream else response.json()
        assert (document["status"], document["store"]) == ("completed", False)
    assert (await client.post(URL, json=body(store=False))).status_code == 200
    for mode in ({"store": True}, {"background": True}, {"previous_response_id": "resp_1"}):
        rejected = await client.post(URL, json=body(**mode))
        assert (rejected.status_code, message_id_of(rejected)) == (503, "store_away")
    for method, path in (("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("DELETE", "")):
        rejected = await client.request(method, f"{URL}/resp_1{path}")
        assert (rejected.status_code, message_id_of(rejected)) == (503, "store_away")
