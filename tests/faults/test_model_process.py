"""The process of one model dies or freezes, or its engine stalls, while all other processes live."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.faults.chat_stream import MODEL, body
from tests.faults.everything import running_everything
from tests.faults.recordings import LONG, PREFILL, SLOW, STALL
from tests.faults.system import System, running_system
from tests.support.fault_table import milliseconds, record, times
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

STALL_SECONDS = 3.0
NOTICED_SECONDS = STALL_SECONDS + 2.0
SLOTS = 4
AT_LEAST = times(40, 400)
"""The number of responses that end before the model does."""
LONG_IDLE_TIMEOUT = {"VILIX_IDLE_SECONDS": "60"}
"""Long enough that the idle timeout ends no request in these tests."""


@dataclass
class Outcome:
    """The result of a request."""

    status: int
    errors: list[dict[str, Any]]
    is_ended: bool
    """Whether it looks like a complete response."""
    seconds: float
    """The time of its end by time.monotonic."""


async def ask(client: httpx.AsyncClient, word: str, *, stream: bool, begun: asyncio.Event | None = None) -> Outcome:
    async with client.stream("POST", "/chat/completions", json=body(word, stream=stream), timeout=60) as response:
        if response.status_code != 200 or not stream:
            document = orjson.loads(await response.aread())
            errors = [document["error"]] if "error" in document else []
            return Outcome(response.status_code, errors, "choices" in document, time.monotonic())
        errors, is_ended = [], False
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                is_ended = True
            elif line.startswith("data: "):
                chunk = orjson.loads(line[6:])
                errors += [chunk["error"]] if "error" in chunk else []
                is_ended |= any(choice.get("finish_reason") for choice in chunk.get("choices", ()))
                if begun is not None and "choices" in chunk and chunk["choices"][0]["delta"].get("content"):
                    begun.set()
        return Outcome(200, errors, is_ended, time.monotonic())


async def in_every_phase(system: System, client: httpx.AsyncClient) -> list[asyncio.Task[Outcome]]:
    """Send requests, and wait until they are generating, before their first tokens, and in the engine's queue."""
    begun = asyncio.Event()
    tasks = [asyncio.create_task(ask(client, LONG, stream=True, begun=begun))]
    tasks.append(asyncio.create_task(ask(client, LONG, stream=False)))
    tasks += [asyncio.create_task(ask(client, PREFILL, stream=stream)) for stream in (True, False)]
    await asyncio.wait_for(begun.wait(), 30)
    await until(lambda: has_load(system, in_flight=SLOTS), what="all have a slot in the engine")
    tasks += [asyncio.create_task(ask(client, SLOW, stream=stream)) for stream in (True, False)]
    await until(lambda: has_load(system, in_flight=SLOTS, queued=2), what="the others are in its queue")
    return tasks


async def has_load(system: System, *, in_flight: int, queued: int = 0) -> bool:
    load = await system.load()
    return bool(load["in_flight"] == in_flight and load["queued"] == queued)


async def has_queue(system: System) -> bool:
    return bool((await system.load())["queued"] >= SLOTS - 1)


def judge(outcomes: list[Outcome], began: float) -> list[float]:
    """Check that each request got one error and no regular end. Return the seconds that each took."""
    for outcome in outcomes:
        assert outcome.status in (200, 503)
        assert [error["type"] for error in outcome.errors] == ["service_unavailable_error"]
        assert not outcome.is_ended
    return [outcome.seconds - began for outcome in outcomes]


@pytest.mark.parametrize("fault", ["killed", "frozen", "stalled"])
async def test_every_request_of_a_faulty_model_gets_an_error_in_time(tmp_path: Path, fault: str) -> None:
    settings = {**LONG_IDLE_TIMEOUT, "VILIX_ENGINE_STALL_SECONDS": f"{STALL_SECONDS}"}
    async with running_system(
        tmp_path, slots=SLOTS, worker_settings=settings, gateway_settings=LONG_IDLE_TIMEOUT
    ) as system:
        client = system.client()
        assert (await client.post("/chat/completions", json=body(stream=False))).status_code == 200
        stub = system.triton.stub(MODEL)
        if fault == "stalled":
            begun = asyncio.Event()
            tasks = [asyncio.create_task(ask(client, LONG, stream=True, begun=begun))]
            tasks.append(asyncio.create_task(ask(client, PREFILL, stream=False)))
            await asyncio.wait_for(begun.wait(), 30)
            await until(lambda: has_load(system, in_flight=2), what="both have a slot in the engine")
            tasks.append(asyncio.create_task(ask(client, STALL, stream=True)))
            await until(lambda: has_load(system, in_flight=3), what="the engine has stalled")
            tasks += [asyncio.create_task(ask(client, SLOW, stream=index % 2 == 0)) for index in range(SLOTS)]
            await until(lambda: has_queue(system), what="others are in its queue")
            began = time.monotonic()
        else:
            tasks = await in_every_phase(system, client)
            began = time.monotonic()
            os.kill(stub, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        async with asyncio.timeout(30):
            delays = judge(await asyncio.gather(*tasks), began)
        # New requests are rejected at once, and all endpoints report the model as unavailable.
        rejected = time.monotonic()
        responses = [await ask(client, "", stream=stream) for stream in (True, False)]
        assert [response.status for response in responses] == [503, 503]
        assert time.monotonic() - rejected < 2
        health = await client.get(f"{system.url}/healthz")
        assert (health.status_code, health.json()["models"]) == (200, {MODEL: False})
        assert (await client.get(f"{system.url}/readyz")).status_code == 200, "the gateway answers, with 503"
        assert (await client.get(f"/models/{MODEL}")).json()["available"] is False
        assert await system.gateway.metric("vilix_model_available") == 0
        assert await system.worker.metric("vilix_engine_ready") == 0
    record(
        f"The process of a model {_WORDS[fault]}: its requests, queued, before the first token and during the stream",
        f"one error each and no regular end, within engine_stall_seconds ({STALL_SECONDS:g} s) + 2 s",
        milliseconds(delays),
        met=max(delays) < NOTICED_SECONDS,
    )


_WORDS = {"killed": "is killed", "frozen": "is frozen", "stalled": "lives, but its engine stalls"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_response_that_ends_at_the_moment_of_the_fault_is_complete_or_has_an_error(
    tmp_path: Path, number: signal.Signals
) -> None:
    settings = {**LONG_IDLE_TIMEOUT, "VILIX_ENGINE_STALL_SECONDS": f"{STALL_SECONDS}"}
    outcomes: list[Outcome] = []
    async with running_system(
        tmp_path, slots=SLOTS, worker_settings=settings, gateway_settings=LONG_IDLE_TIMEOUT
    ) as system:
        client = system.client()
        stub = system.triton.stub(MODEL)

        async def ask_until_an_error(*, stream: bool) -> None:
            while not outcomes or not outcomes[-1].errors:
                outcomes.append(await ask(client, "", stream=stream))

        tasks = [asyncio.create_task(ask_until_an_error(stream=number % 2 == 0)) for number in range(2 * SLOTS)]
        await until(lambda: len(outcomes) > AT_LEAST, what="responses end continuously")
        os.kill(stub, number)
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
    errors = [outcome for outcome in outcomes if outcome.errors]
    assert all(outcome.is_ended is not bool(outcome.errors) for outcome in outcomes)
    assert {error["type"] for outcome in errors for error in outcome.errors} == {"service_unavailable_error"}
    assert len(outcomes) - len(errors) > AT_LEAST
    record(
        f"The process of a model {_WORDS['killed' if number == signal.SIGKILL else 'frozen']} while responses end",
        "each is complete or has one error, never both or neither",
        f"{len(outcomes) - len(errors)} complete, {len(errors)} with one error",
        met=all(len(outcome.errors) == 1 for outcome in errors),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_an_idle_faulty_model_is_detected(tmp_path: Path, number: signal.Signals) -> None:
    settings = {**LONG_IDLE_TIMEOUT, "VILIX_ENGINE_STALL_SECONDS": f"{STALL_SECONDS}"}
    async with running_system(tmp_path, worker_settings=settings, gateway_settings=LONG_IDLE_TIMEOUT) as system:
        client = system.client()
        os.kill(system.triton.stub(MODEL), number)
        began = time.monotonic()
        response = await ask(client, "", stream=False)
        assert response.status == 503
        assert response.seconds - began < NOTICED_SECONDS


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_embedding_requests_of_a_faulty_model_get_an_error_in_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    settings = {"idle_seconds": "60", "engine_stall_seconds": f"{STALL_SECONDS * 3:g}"}
    async with running_everything(tmp_path, embedder_settings=settings) as everything:
        client = everything.system.client()
        texts = [f"{index} " + "کتاب " * 100 for index in range(1500)]
        content = {"model": EMBEDDING_MODEL, "input": texts}
        tasks = [asyncio.create_task(client.post("/embeddings", json=content, timeout=60)) for _ in range(2)]

        await everything.embedder_reaches(
            lambda status: status.in_flight == 2 and status.embedded_total, 30, "the model works on the requests"
        )
        began = time.monotonic()
        os.kill(everything.embedding_triton.stub(EMBEDDING_MODEL), number)
        async with asyncio.timeout(40):
            responses = await asyncio.gather(*tasks)
        seconds = time.monotonic() - began
        assert {response.status_code for response in responses} == {503}
        again = await client.post("/embeddings", json={"model": EMBEDDING_MODEL, "input": "Hi"})
        assert again.status_code == 503
        assert (await client.post("/chat/completions", json=body(stream=False))).status_code == 200
    record(
        f"The process of an embedding model is {'killed' if number == signal.SIGKILL else 'frozen'} under requests",
        f"one error each, within engine_stall_seconds ({STALL_SECONDS * 3:g} s) + 2 s; other models stay available",
        f"after {seconds:.1f} s",
        met=seconds < STALL_SECONDS * 3 + 2,
    )
