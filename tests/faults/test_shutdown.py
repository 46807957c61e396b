"""SIGTERM: running requests finish, new requests go to other processes, and the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from tests.faults.chat_stream import body, read
from tests.faults.connection import Connection
from tests.faults.recordings import LONG, PREFILL, STEADY
from tests.faults.system import System, running_system
from tests.faults.test_death import streams
from tests.support.fault_table import record, times
from tests.support.generating_apis import APIS
from tests.support.waits import until

STREAMS = times(40, 100)
END_SECONDS = 1.0


async def test_a_stopping_gateway_finishes_its_streams_and_accepts_no_new_ones(system: System) -> None:
    running = await streams(system, STEADY, STREAMS)
    system.gateway.signal(signal.SIGTERM)
    await until(lambda: _rejects(system), what="the gateway accepts no new connections")
    responses = await asyncio.gather(*running)
    assert all(response.is_whole for response in responses), [
        response.errors for response in responses if not response.is_whole
    ][:3]
    assert await system.gateway.exit_code() == 0
    record(
        f"SIGTERM to a gateway with {STREAMS} open streams",
        "all finish, new connections are rejected, exit code 0",
        f"{sum(response.is_whole for response in responses)} of {STREAMS} finished; exit code 0",
        met=True,
    )


async def test_a_stopping_worker_finishes_its_streams_and_another_one_gets_new_requests(pair: System) -> None:
    running = await streams(pair, STEADY, STREAMS)
    before = [await worker.metric("vilix_worker_requests_in_flight") for worker in pair.workers]
    assert sum(before) == STREAMS
    pair.worker.signal(signal.SIGTERM)
    client = pair.client()
    new = [await client.post("/chat/completions", json=body(stream=False)) for _ in range(20)]
    assert {response.status_code for response in new} == {200}
    responses = await asyncio.gather(*running)
    assert all(response.is_whole for response in responses), [
        response.errors for response in responses if not response.is_whole
    ][:3]
    assert await pair.worker.exit_code() == 0
    record(
        f"SIGTERM to a worker with {STREAMS} open streams",
        "all finish, another worker serves new requests, exit code 0",
        f"{sum(response.is_whole for response in responses)} of {STREAMS} finished; 20 of 20 new ones served; "
        "exit code 0",
        met=True,
    )


async def test_a_stopping_triton_finishes_its_streams(system: System) -> None:
    running = await streams(system, STEADY, STREAMS)
    system.triton.process.terminate()
    responses = await asyncio.gather(*running)
    assert all(response.is_whole for response in responses), [
        response.errors for response in responses if not response.is_whole
    ][:3]
    assert await asyncio.to_thread(system.triton.process.wait, 20) == 0
    assert (await system.client().post("/chat/completions", json=body())).status_code == 503
    record(
        f"SIGTERM to Triton with {STREAMS} open streams",
        "all finish (within its --exit-timeout-secs), exit code 0",
        f"{sum(response.is_whole for response in responses)} of {STREAMS} finished; exit code 0",
        met=True,
    )


async def test_streams_end_with_an_error_at_the_end_of_the_drain(tmp_path: Path) -> None:
    settings = {"VILIX_DRAIN_SECONDS": "1"}
    async with running_system(tmp_path, gateway_settings=settings, worker_settings=settings) as system:
        running = await streams(system, LONG, 4)
        system.gateway.signal(signal.SIGTERM)
        for response in await asyncio.gather(*running):
            assert len(response.errors) == 1
            assert not response.done
        assert await system.gateway.exit_code() == 0
        await until(lambda: _engine_is_free(system))


async def test_waiting_requests_get_an_error_at_the_end_of_the_drain(tmp_path: Path) -> None:
    (tmp_path / "tiers.yaml").write_text(
        "tiers: {queueing: {concurrency: 1, queue: true, queue_seconds: 60}, other: {}}"
    )
    settings = {"VILIX_DRAIN_SECONDS": "1", "VILIX_TIERS_FILE": str(tmp_path / "tiers.yaml")}
    async with running_system(tmp_path, gateway_settings=settings) as system:
        client = system.client()
        prefilling = [
            asyncio.create_task(client.post(api.path, json=body(PREFILL, api=api, stream=False))) for api in APIS
        ]
        async with Redis.from_url(system.redis_url, decode_responses=True) as redis:
            _, system.api_key = await keys.create(redis, name="queueing", tier="queueing")
        holder = await Connection.ask(system, body(LONG))
        await holder.until(b"data: ")
        queued = await Connection.ask(system, body(LONG))
        await queued.until(b": queued 1\n\n")
        queued_whole = asyncio.create_task(system.client().post("/chat/completions", json=body(stream=False)))
        await until(lambda: _works_on(system, 3 + len(APIS)))
        system.gateway.signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            received = await queued.reader.read()
        assert received.count(b'data: {"error":') == 1
        assert b'"type":"service_unavailable_error"' in received
        assert b"[DONE]" not in received
        for response in await asyncio.gather(*prefilling, queued_whole):
            assert response.status_code == 503
            assert response.json()["error"]["type"] in ("service_unavailable_error", "overloaded_error")
        assert await system.gateway.exit_code() == 0
        await until(lambda: _engine_is_free(system))


@pytest.mark.parametrize(("name", "message"), [("gateway", "Shutting down"), ("worker", "draining")])
async def test_a_second_signal_ends_the_drain_at_once(system: System, name: str, message: str) -> None:
    running = await streams(system, LONG, 4)
    process = getattr(system, name)
    process.signal(signal.SIGTERM)
    await until(lambda: message in process.log.read_text())
    assert process.running is not None
    assert process.running.poll() is None
    process.signal(signal.SIGTERM)
    began = time.monotonic()
    # The drain itself may take 30 seconds.
    await process.exit_code(15)
    seconds = time.monotonic() - began
    await asyncio.gather(*running, return_exceptions=True)
    record(
        f"A second SIGTERM to a {name} with open streams",
        f"it ends at once: within {END_SECONDS:g} s",
        f"after {seconds * 1000:.0f} ms",
        met=seconds < END_SECONDS,
    )


async def test_max_stream_seconds_limits_the_duration_of_a_stream(tmp_path: Path) -> None:
    settings = {"VILIX_MAX_STREAM_SECONDS": "1"}
    async with running_system(tmp_path, gateway_settings=settings) as system:
        response = await read(system.client(), LONG)
        assert [error["code"] for error in response.errors] == ["timeout"]
        assert not response.done
        await until(system.is_idle)


async def _rejects(system: System) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            await client.get(f"{system.url}/healthz")
    except httpx.TransportError:
        return True
    return False


async def _works_on(system: System, count: int) -> bool:
    return await system.gateway.metric("vilix_http_requests_in_flight") == count


async def _engine_is_free(system: System) -> bool:
    return bool((await system.load())["in_flight"] == 0)
