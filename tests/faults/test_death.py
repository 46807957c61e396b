"""Killed processes: the errors that clients get, and the recovery of the other processes."""

from __future__ import annotations

import asyncio
import itertools
import time

import httpx
import orjson
import pytest

from services.gateway.tenancy import secret
from tests.faults.chat_stream import MODEL, Stream, body, read
from tests.faults.process import Process
from tests.faults.recordings import LONG, PREFILL, SLOW, STEADY
from tests.faults.system import System
from tests.support.fault_table import milliseconds, record, times
from tests.support.generating_apis import APIS
from tests.support.waits import until

STREAMS = 4
TEXT = " one two three four five"
"""The text of the recording."""
ERROR_SECONDS = 0.1


async def streams(system: System, word: str, count: int) -> list[asyncio.Task[Stream]]:
    """Begin streams of all APIs in turn, and wait for the first token of each."""
    client = system.client()
    begun = [asyncio.Event() for _ in range(count)]
    apis = itertools.cycle(APIS)
    tasks = [asyncio.create_task(read(client, word, api=next(apis), begun=each)) for each in begun]
    async with asyncio.timeout(30):
        await asyncio.gather(*(each.wait() for each in begun))
    return tasks


async def test_a_worker_killed_during_streams_is_an_error_and_no_regular_end(system: System) -> None:
    delays = []
    rounds = times(3, 50)
    for _ in range(rounds):
        tasks = await streams(system, LONG, STREAMS)
        killed = time.monotonic()
        system.worker.kill()
        for task in tasks:
            response = await asyncio.wait_for(task, 10)
            delays.append(time.monotonic() - killed)
            assert len(response.errors) == 1
            assert response.ends_with_error
            assert response.api.unavailable.items() <= response.errors[0].items()
            assert not response.done
            assert not response.finish_reasons
        system.worker.start()
        await system.wait_until_ready()
        await until(system.is_idle)
    record(
        "A dead worker is an error event, never a false end",
        f"{rounds * STREAMS} streams: one error, no finish_reason, no [DONE]; within {ERROR_SECONDS * 1000:g} ms",
        f"0 false ends; {milliseconds(delays)}",
        met=max(delays) < ERROR_SECONDS,
    )


async def test_a_request_without_a_first_token_moves_to_another_worker(pair: System) -> None:
    client = pair.client()
    rounds = times(3, 30)
    for round_ in range(rounds):
        api = APIS[round_ % len(APIS)]
        if round_ % 2:
            request = asyncio.create_task(read(client, SLOW, api=api))
        else:
            request = asyncio.create_task(client.post(api.path, json=body(SLOW, stream=False, api=api)))
        first = await _worker_with_a_request(pair)
        (second,) = (worker for worker in pair.workers if worker is not first)
        before = await _answered(second)
        first.kill()
        response = await asyncio.wait_for(request, 30)
        if isinstance(response, Stream):
            assert response.is_whole
            assert response.text == TEXT
        else:
            assert response.status_code == 200
            assert orjson.dumps(TEXT) in response.content
        await until(
            lambda second=second, before=before: _has_answered(second, before + 1), what="the other worker answered it"
        )
        first.start()
        await pair.wait_until_ready()
        await until(pair.is_idle)
    assert await pair.gateway.metric("vilix_retries_total") == rounds
    record(
        "Before the first token a request moves to another worker",
        f"{rounds} of {rounds} answered by the other worker, with and without streaming",
        f"{rounds} of {rounds}",
        met=True,
    )


async def test_a_request_without_another_worker_gets_503(system: System) -> None:
    client = system.client()
    requests = [asyncio.create_task(client.post(api.path, json=body(PREFILL, api=api))) for api in APIS]
    await until(lambda: _works_on(system.worker, len(APIS)))
    system.worker.kill()
    for request, api in zip(requests, APIS, strict=True):
        response = await request
        assert response.status_code == 503
        assert response.json()["error"]["type"] in ("service_unavailable_error", "overloaded_error")
        assert "retry-after" in response.headers
        assert (await client.post(api.path, json=body(api=api))).status_code == 503
    record("A request without another worker", "503 with Retry-After", "503 with Retry-After", met=True)


async def test_a_killed_triton_ends_streams_with_errors_and_the_worker_is_not_serving(system: System) -> None:
    tasks = await streams(system, LONG, STREAMS)
    system.triton.kill()
    for task in tasks:
        response = await asyncio.wait_for(task, 10)
        assert len(response.errors) == 1
        assert not response.done
        assert not response.finish_reasons

    async def is_out_of_service() -> bool:
        return await system.gateway.metric("vilix_workers_serving") == 0

    await until(is_out_of_service)
    answered = await system.client().post("/chat/completions", json=body())
    assert answered.status_code == 503
    record(
        "Triton killed with open streams",
        "one error each, no false end; the worker is out of service",
        f"{STREAMS} of {STREAMS}; 503 from then on",
        met=True,
    )


async def test_a_killed_gateway_leaves_no_requests_or_reservations_behind(system: System) -> None:
    tasks = await streams(system, LONG, STREAMS)
    system.gateway.kill()
    for task in tasks:
        with pytest.raises(httpx.TransportError):
            await asyncio.wait_for(task, 10)

    async def is_free() -> bool:
        load = await system.load()
        left = load["in_flight"] + load["queued"] + await system.worker.metric("vilix_worker_requests_in_flight")
        return bool(left == 0)

    await until(is_free, what="worker and engine are free")
    assert await system.reserved() > 0
    system.gateway.start()
    await system.wait_until_ready()
    await until(system.is_idle, what="its reservations have expired")
    assert (await read(system.client(), STEADY)).is_whole
    record(
        "A gateway killed with open streams",
        "clients get a cut stream; worker, engine and the key's limits are free again",
        f"{STREAMS} of {STREAMS} cut; in flight 0, reserved 0",
        met=True,
    )


async def test_a_killed_valkey_does_not_affect_running_streams(system: System) -> None:
    tasks = await streams(system, STEADY, STREAMS)
    system.valkey.kill()
    for task in tasks:
        assert (await asyncio.wait_for(task, 20)).is_whole
    other_client = httpx.AsyncClient(base_url=f"{system.url}/api", headers={"Authorization": "Bearer " + _other_key()})
    async with other_client:
        rejected = await other_client.post("/chat/completions", json=body(), timeout=20)
    assert rejected.status_code == 503
    assert "retry-after" in rejected.headers
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{system.url}/readyz")).status_code == 200
        assert (await client.get(f"{system.url}/healthz")).json()["redis"] == "unreachable"
    system.valkey.start()
    known = system.client()

    async def is_back() -> bool:
        return (await known.post("/chat/completions", json=body(stream=False))).status_code == 200

    await until(is_back, what="the key is accepted again")
    record(
        "Valkey killed and restarted with open streams",
        "streams finish, unknown keys get 503, the gateway stays ready, and the key is accepted again afterwards",
        f"{STREAMS} of {STREAMS} finished; 503; ready; accepted",
        met=True,
    )


def _other_key() -> str:
    return secret.draw("s00")


async def _worker_with_a_request(system: System) -> Process:
    busy: list[Process] = []

    async def is_found() -> bool:
        busy.extend([worker for worker in system.workers if await _is_busy(worker)])
        return bool(busy)

    await until(is_found, what="a worker has the request")
    return busy[0]


async def _answered(worker: Process) -> float:
    """Return the number of requests that it has completed."""
    return (await worker.metrics()).get(f'vilix_worker_requests_total{{model="{MODEL}",outcome="ok"}}', 0.0)


async def _has_answered(worker: Process, count: float) -> bool:
    return await _answered(worker) == count


async def _is_busy(worker: Process) -> bool:
    return await worker.metric("vilix_worker_requests_in_flight") > 0


async def _works_on(worker: Process, count: int) -> bool:
    return await worker.metric("vilix_worker_requests_in_flight") == count
