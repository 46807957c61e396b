"""Processes that stand still: every client hears of it in time, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import milliseconds, record
from tests.faults.system import (
    IDLE_SECONDS,
    LONG,
    MODEL,
    PREFILL,
    ROOT,
    STEADY,
    Connection,
    System,
    body,
    read,
    running_system,
    until,
)
from tests.faults.test_death import streams

SLACK_SECONDS = 0.5
STREAMS = 4
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
    """Meanwhile, the process stands still."""
    process = system.triton.process if what == "triton" else getattr(system, what)
    with standing_still(process.pid):
        yield


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Meanwhile, the process with this id stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def calling(system: System) -> AsyncIterator[asyncio.subprocess.Process]:
    """An internal service that calls the worker without a gateway, and gets an answer without an end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, system.worker.address, MODEL, LONG, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("what", ["worker", "triton"])
async def test_every_client_has_its_error_within_the_idle_timeout(system: System, what: str) -> None:
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

        async with asyncio.timeout(IDLE_SECONDS * 3):
            answers = await asyncio.gather(*(measured(task) for task in running))
            refusals = await asyncio.gather(*(measured(task) for task in [*waiting, *whole]))
        for answer in answers:
            assert len(answer.errors) == 1
            assert not answer.done
        assert {refusal.status_code for refusal in refusals} <= {503, 504}
        # A machine that is busy with other things may be late, but not by a whole further wait.
        assert max(delays) < IDLE_SECONDS * 1.75
        record(
            f"A frozen {what} cannot hang a client",
            f"error within the idle timeout ({IDLE_SECONDS:g} s) + {SLACK_SECONDS:g} s",
            milliseconds(delays),
        )

        async def has_nothing_left() -> bool:
            left = await system.gateway.metric("vilix_answers_in_flight")
            return left + await system.gateway.metric("vilix_http_requests_in_flight") == 0

        await until(has_nothing_left)
    await system.wait_until_ready()
    await until(system.is_idle, what="what was frozen has given everything up")
    assert (await read(client, STEADY)).is_whole


@pytest.mark.parametrize("who", ["gateway", "caller"])
async def test_the_engine_is_free_soon_after_a_frozen_caller_is_silent(tmp_path: Path, who: str) -> None:
    settings = {"VILIX_KEEPALIVE_SECONDS": f"{KEEPALIVE_SECONDS}"}
    async with running_system(tmp_path, worker_settings=settings) as system, contextlib.AsyncExitStack() as stack:
        if who == "gateway":
            await Connection.ask(system, body(LONG))
            caller = system.gateway.pid
        else:
            caller = (await stack.enter_async_context(calling(system))).pid
        await until(lambda: _has(system, 1), what="the engine works for the caller")
        with standing_still(caller):
            began = time.monotonic()
            await until(lambda: _has_none(system), KEEPALIVE_SECONDS * 4, "the engine is free")
            delay = time.monotonic() - began
    what = f"free once it was silent for {KEEPALIVE_SECONDS:g} s"
    record(f"A frozen {who} does not hold the engine", what, f"{delay:.1f} s")


async def test_a_frozen_valkey_refuses_strangers_in_time_and_touches_no_stream(system: System) -> None:
    running = await streams(system, STEADY, STREAMS)
    with frozen(system, "valkey"):
        stranger = {"Authorization": "Bearer " + "vlx_" + "0" * 36}
        async with httpx.AsyncClient(base_url=f"{system.url}/api") as client:
            began = time.monotonic()
            refused = await client.get("/models", headers=stranger)
            assert refused.status_code in {401, 503}
            known = {"Authorization": f"Bearer {system.api_key}"}
            answered = await client.post("/chat/completions", json=body(), headers=known, timeout=30)
            delay = time.monotonic() - began
        assert answered.status_code in {200, 503}
        for task in running:
            assert (await asyncio.wait_for(task, 20)).is_whole
    record("A frozen Valkey", "running streams go on; others have an answer within the timeout", f"{delay:.2f} s")
    client = system.client()

    async def is_back() -> bool:
        return (await client.post("/chat/completions", json=body(stream=False))).status_code == 200

    await until(is_back)


async def _has_none(system: System) -> bool:
    return not await _has(system, 1)


async def _has(system: System, count: int) -> bool:
    load = await system.load()
    return bool(load["in_flight"] + load["queued"] >= count)
