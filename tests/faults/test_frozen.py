"""Processes that stand still: every client hears of it in time, and nothing of it stays."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.faults.conftest import milliseconds, record
from tests.faults.system import IDLE_SECONDS, LONG, PREFILL, STEADY, System, body, read, until
from tests.faults.test_death import streams

SLACK_SECONDS = 0.5
STREAMS = 4


@contextmanager
def frozen(system: System, what: str) -> Iterator[None]:
    """Meanwhile, the process stands still."""
    if what == "triton":
        system.triton.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            system.triton.process.send_signal(signal.SIGCONT)
    else:
        with getattr(system, what).frozen():
            yield


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
            met=max(delays) < IDLE_SECONDS + SLACK_SECONDS,
        )

        async def has_nothing_left() -> bool:
            left = await system.gateway.metric("vilix_answers_in_flight")
            return left + await system.gateway.metric("vilix_http_requests_in_flight") == 0

        await until(has_nothing_left)
    await system.wait_until_ready()
    await until(system.is_idle, what="what was frozen has given everything up")
    assert (await read(client, STEADY)).is_whole


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
    record(
        "A frozen Valkey", "running streams go on; others have an answer within the timeout", f"{delay:.2f} s", met=True
    )
    client = system.client()

    async def is_back() -> bool:
        return (await client.post("/chat/completions", json=body(stream=False))).status_code == 200

    await until(is_back)


async def _has(system: System, count: int) -> bool:
    load = await system.load()
    return bool(load["in_flight"] + load["queued"] >= count)
