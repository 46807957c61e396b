"""Frozen processes: every client gets an error in time, and no request remains in a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from services.gateway.tenancy import secret
from tests.faults.chat_stream import MODEL, body, read
from tests.faults.connection import Connection
from tests.faults.process import frozen_process
from tests.faults.recordings import LONG, PREFILL, STEADY
from tests.faults.system import IDLE_SECONDS, REDIS_SECONDS, System, running_system
from tests.faults.test_death import streams
from tests.support.fault_table import milliseconds, record, times
from tests.support.repository import ROOT
from tests.support.waits import until

SLACK_SECONDS = 0.5
STREAMS = 4
LIMIT_SECONDS = 20.0
"""Less than the duration of the requests themselves."""
KEEPALIVE_SECONDS = 3.0
CALLER = """
import sys, grpc
from vilix.inference.v1 import inference_service_pb2 as pb, inference_service_pb2_grpc
target, model, text = sys.argv[1:]
message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=text)])
stub = inference_service_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(target))
for _ in stub.Generate(pb.GenerateRequest(model=model, messages=[message])):
    pass
"""


@contextlib.contextmanager
def frozen(system: System, what: str) -> Iterator[None]:
    """Freeze a process of the system until the context ends."""
    process = system.triton.process if what == "triton" else getattr(system, what)
    with frozen_process(process.pid):
        yield


@contextlib.asynccontextmanager
async def calling(system: System) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an internal service that calls the worker without a gateway and reads an endless stream."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, system.worker.address, MODEL, LONG, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


POOL_THREADS = min(32, (os.cpu_count() or 1) + 4) - 1
"""The number of threads that asyncio's own pool may start in addition."""


@pytest.mark.parametrize("what", ["worker", "triton"])
async def test_every_client_gets_an_error_within_the_idle_timeout(system: System, what: str) -> None:
    delays: list[float] = []
    # The first round starts threads that stay.
    await freeze_in_the_middle(system, what)
    before = await residue(system)
    for _ in range(times(1, 8)):
        delays += await freeze_in_the_middle(system, what)

    async def is_as_before() -> bool:
        after = await residue(system)
        return all(
            after[process][kind] <= count + (POOL_THREADS if kind == "threads" else 0)
            for process in before
            for kind, count in before[process].items()
        )

    await until(is_as_before, what=f"no more threads and tasks than before: {before}")
    assert (await read(system.client(), STEADY)).is_whole
    record(
        f"A frozen {what} does not block a client",
        f"an error within the idle timeout ({IDLE_SECONDS:g} s) + {SLACK_SECONDS:g} s; no thread or task remains",
        f"{milliseconds(delays)}; none more than before",
        met=max(delays) < IDLE_SECONDS + SLACK_SECONDS,
    )


async def freeze_in_the_middle(system: System, what: str) -> list[float]:
    """Freeze a process during requests, and return the seconds that each client waited for its error."""
    client = system.client()
    running = await streams(system, LONG, STREAMS)
    waiting = [asyncio.create_task(client.post("/chat/completions", json=body(PREFILL))) for _ in range(STREAMS)]
    whole = [asyncio.create_task(client.post("/chat/completions", json=body(LONG, stream=False)))]
    await until(lambda: _has(system, 2 * STREAMS + 1))
    delays = []
    with frozen(system, what):
        began = time.monotonic()

        async def measured(task: asyncio.Task[object]) -> object:
            result = await task
            delays.append(time.monotonic() - began)
            return result

        async with asyncio.timeout(LIMIT_SECONDS):
            results = await asyncio.gather(*(measured(task) for task in [*running, *waiting, *whole]))
        responses, rejections = results[:STREAMS], results[STREAMS:]
        for response in responses:
            assert len(response.errors) == 1
            assert not response.done
        assert {rejection.status_code for rejection in rejections} <= {503, 504}

        async def is_gateway_idle() -> bool:
            generations = await system.gateway.metric("vilix_generations_in_flight")
            return generations + await system.gateway.metric("vilix_http_requests_in_flight") == 0

        await until(is_gateway_idle)
    await system.wait_until_ready()
    await until(system.is_idle, what="the process that was frozen has ended all requests")
    return delays


async def residue(system: System) -> dict[str, dict[str, float]]:
    """Return the threads and tasks of the processes, to which finished requests must add none."""
    return {process.name: await process.residue() for process in (system.gateway, system.worker)}


@pytest.mark.parametrize("frozen_caller", ["gateway", "caller"])
async def test_a_frozen_caller_does_not_keep_the_engine_busy(tmp_path: Path, frozen_caller: str) -> None:
    settings = {"VILIX_KEEPALIVE_SECONDS": f"{KEEPALIVE_SECONDS}"}
    async with running_system(tmp_path, worker_settings=settings) as system, contextlib.AsyncExitStack() as stack:
        if frozen_caller == "gateway":
            await Connection.ask(system, body(LONG))
            caller = system.gateway.pid
        else:
            caller = (await stack.enter_async_context(calling(system))).pid
        await until(lambda: _has(system, 1), what="the engine works for the caller")
        with frozen_process(caller):
            began = time.monotonic()
            await until(lambda: _has_none(system), KEEPALIVE_SECONDS * 4, "the engine is free")
            delay = time.monotonic() - began
    record(
        f"A frozen {frozen_caller} does not keep the engine busy",
        f"free after a silence of {KEEPALIVE_SECONDS:g} s, within {2 * KEEPALIVE_SECONDS:g} s",
        f"{delay:.1f} s",
        met=delay < 2 * KEEPALIVE_SECONDS,
    )


async def test_with_a_frozen_valkey_unknown_keys_get_503_in_time_and_streams_continue(system: System) -> None:
    running = await streams(system, STEADY, STREAMS)
    unknown = {"Authorization": f"Bearer {secret.draw('s00')}"}
    known = {"Authorization": f"Bearer {system.api_key}"}
    delays = []
    with frozen(system, "valkey"):
        async with httpx.AsyncClient(base_url=f"{system.url}/api", timeout=LIMIT_SECONDS) as client:

            async def status(method: str, path: str, headers: dict[str, str], **fields: object) -> int:
                began = time.monotonic()
                response = await client.request(method, path, headers=headers, **fields)
                delays.append(time.monotonic() - began)
                return response.status_code

            assert await status("GET", "/models", unknown) == 503
            assert await status("POST", "/chat/completions", unknown, json=body()) == 503
            assert await status("POST", "/chat/completions", known, json=body()) == 200
        for task in running:
            assert (await asyncio.wait_for(task, 20)).is_whole
    record(
        "A frozen Valkey",
        "running streams continue, a recently verified key is served, an unknown key gets 503, each within the timeout "
        f"of Redis ({REDIS_SECONDS:g} s) + {SLACK_SECONDS:g} s",
        milliseconds(delays),
        met=max(delays) < REDIS_SECONDS + SLACK_SECONDS,
    )
    client = system.client()

    async def is_back() -> bool:
        return (await client.post("/chat/completions", json=body(stream=False))).status_code == 200

    await until(is_back)
    await until(system.is_idle, what="the reservations are released")


async def _has_none(system: System) -> bool:
    return not await _has(system, 1)


async def _has(system: System, count: int) -> bool:
    load = await system.load()
    return bool(load["in_flight"] + load["queued"] >= count)
