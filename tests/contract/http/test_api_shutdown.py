"""Streams of every API while the gateway stops, and when its worker is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from redis.asyncio import Redis

from services.stack.ports import free_ports
from tests.support.gateway import running_gateway, until_ready
from tests.support.generating_apis import APIS, Api, Event, event_of
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, scripted_worker, started, usage
from tests.support.waits import until


async def asked(client: httpx.AsyncClient, worker: ScriptedWorker) -> dict[Api, asyncio.Task[httpx.Response]]:
    """Begin a stream of each API, and return once the worker has all of them."""
    before = len(worker.requests)
    streams = {
        api: asyncio.create_task(client.post(f"/api{api.path}", json=api.body("hi", MODEL, stream=True)))
        for api in APIS
    }
    await until(lambda: len(worker.requests) == before + len(APIS))
    return streams


async def check_failures(streams: dict[Api, asyncio.Task[httpx.Response]]) -> None:
    """Check that each stream has begun, and ended with one error and no regular end."""
    for api, stream in streams.items():
        read = events((await stream).text)
        errors = [error for event in read if (error := api.error_of(event)) is not None]
        assert len(errors) == 1
        assert api.unavailable.items() <= errors[0].items()
        assert "".join(map(api.text_of, read)) == "a"
        assert [event for event in read if api.finish_of(event) is not None] == []


def events(text: str) -> list[Event]:
    """Return the events of a stream, without `[DONE]`, which has no content."""
    found = [event for line in text.splitlines() if (event := event_of(line)) is not None]
    return [event for event in found if event != {"type": "[DONE]"}]


async def test_a_stopping_gateway_finishes_streams_or_ends_them_with_an_error(
    redis_url: str, api_key: str, tmp_path: Path
) -> None:
    port, go_on = free_ports(1)[0], asyncio.Event()
    settings = {"VILIX_DRAIN_SECONDS": "2"}
    async with scripted_worker(port) as worker:
        with running_gateway(redis_url, f"127.0.0.1:{port}", tmp_path / "gateway.log", **settings) as (url, process):
            await until_ready(url)
            headers = {"authorization": f"Bearer {api_key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                worker.script = [[started(), content("a")], go_on, [content("b"), finish(), usage()]]
                finished = await asked(client, worker)
                worker.script = [[started(), content("a")], asyncio.Event()]
                cut = await asked(client, worker)
                process.terminate()
                go_on.set()
                for api, stream in finished.items():
                    read = events((await stream).text)
                    assert "".join(map(api.text_of, read)) == "ab"
                    reasons = [reason for event in read if (reason := api.finish_of(event)) is not None]
                    assert reasons == [api.finished]
                await check_failures(cut)


async def test_a_stopping_gateway_finishes_background_responses_or_stores_that_they_failed(
    redis_url: str, state_redis_url: str, api_key: str, tmp_path: Path
) -> None:
    port, go_on = free_ports(1)[0], asyncio.Event()
    settings = {"VILIX_DRAIN_SECONDS": "2", "VILIX_STATE_REDIS_URL": state_redis_url}
    async with scripted_worker(port) as worker:
        with running_gateway(redis_url, f"127.0.0.1:{port}", tmp_path / "gateway.log", **settings) as (url, process):
            await until_ready(url)
            headers, ids = {"authorization": f"Bearer {api_key}"}, list[str]()
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                for waits in (go_on, asyncio.Event()):
                    worker.script = [[started(), content("a")], waits, [content("b"), finish(), usage()]]
                    body = {"model": MODEL, "input": "hi", "background": True}
                    ids.append((await client.post("/v1/responses", json=body)).json()["id"])
                    await until(lambda: len(worker.requests) == len(ids))
            process.terminate()
            go_on.set()
            assert await asyncio.to_thread(process.wait, 30) == 0
    async with Redis.from_url(state_redis_url, decode_responses=True) as state:
        ends = [await state.hget(f"vilix:{{responses}}:r:{each}", "status") for each in ids]
        last = [str((await state.lrange(f"vilix:{{responses}}:e:{each}", -1, -1))[0]) for each in ids]
    assert ends == ["completed", "failed"]
    assert [event.split("\n")[0] for event in last] == ["event: response.completed", "event: response.failed"]


async def test_a_worker_that_is_lost_ends_streams_with_an_error(redis_url: str, api_key: str, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    async with scripted_worker(port) as worker:
        worker.script = [[started(), content("a")], asyncio.Event()]
        with running_gateway(redis_url, f"127.0.0.1:{port}", tmp_path / "gateway.log") as (url, _):
            await until_ready(url)
            headers = {"authorization": f"Bearer {api_key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                running = await asked(client, worker)
                await worker.server.stop(None)
                await check_failures(running)
                for api in APIS:
                    refused = await client.post(f"/api{api.path}", json=api.body("hi", MODEL))
                    assert refused.status_code == 503
                    assert refused.json()["error"]["type"] in ("service_unavailable_error", "overloaded_error")
