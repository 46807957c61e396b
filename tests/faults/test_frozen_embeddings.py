"""With a frozen embeddings worker or Triton, every client gets an error in time, however long its request takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.faults.chat_stream import MODEL
from tests.faults.everything import Everything, running_everything
from tests.faults.process import frozen_process
from tests.faults.system import IDLE_SECONDS
from tests.support.fault_table import milliseconds, record
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

SLACK_SECONDS = 0.5
REQUESTS = 3
LONG_REQUEST_SECONDS = IDLE_SECONDS * 2


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    settings = {"idle_seconds": f"{IDLE_SECONDS}"}
    async with running_everything(tmp_path_factory.mktemp("everything"), embedder_settings=settings) as running:
        yield running


def texts(count: int) -> dict[str, object]:
    return {"model": EMBEDDING_MODEL, "input": [f"{number} " + "کتاب " * 50 for number in range(count)]}


async def test_a_request_may_take_longer_than_the_idle_timeout(everything: Everything) -> None:
    count = await _long_request(everything)
    client = everything.system.client()
    # Of two requests at the same time, the second one waits for the engine.
    responses = await asyncio.gather(*(client.post("/embeddings", json=texts(count)) for _ in range(2)))
    assert [(response.status_code, len(response.json()["data"])) for response in responses] == [(200, count)] * 2


@pytest.mark.parametrize("what", ["embedder", "embedding triton"])
async def test_every_client_gets_an_error_within_the_idle_timeout(everything: Everything, what: str) -> None:
    count = await _long_request(everything)
    client = everything.system.client()
    running = [asyncio.create_task(client.post("/embeddings", json=texts(count))) for _ in range(REQUESTS)]
    await everything.embedder_reaches(
        lambda status: status.in_flight == REQUESTS, 30, "the worker works on the requests"
    )
    delays = []
    with frozen_process(everything.pids[what]):
        began = time.monotonic()

        async def measured(task: asyncio.Task[httpx.Response]) -> httpx.Response:
            response = await task
            delays.append(time.monotonic() - began)
            return response

        async with asyncio.timeout(IDLE_SECONDS * 4):
            responses = await asyncio.gather(*(measured(task) for task in running))
        assert {response.status_code for response in responses} == {504}
        assert {response.json()["error"]["code"] for response in responses} == {"timeout"}
        record(
            f"A frozen {what} does not block a client",
            f"an error within the idle timeout ({IDLE_SECONDS:g} s) + {SLACK_SECONDS:g} s",
            milliseconds(delays),
            met=max(delays) < IDLE_SECONDS + SLACK_SECONDS,
        )
        await until(lambda: _has_no_request(everything))
    await everything.wait_until_ready()
    await everything.embedder_reaches(
        lambda status: status.in_flight == status.queued == 0, 90, "the process that was frozen has ended all requests"
    )
    assert (await client.post("/embeddings", json=texts(1))).status_code == 200


@pytest.mark.parametrize("path", ["/tokenize", "/chat/completions"])
async def test_a_request_that_renders_a_prompt_gets_an_error_within_the_idle_timeout(
    everything: Everything, path: str
) -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    body = chat if path == "/tokenize" else {**chat, "dry_run": True}
    client = everything.system.client()
    assert (await client.post(path, json=body)).status_code == 200
    with everything.system.worker.frozen():
        began = time.monotonic()
        response = await client.post(path, json=body)
        delay = time.monotonic() - began
    assert response.status_code == 504
    met = delay < IDLE_SECONDS + SLACK_SECONDS
    what = path if path == "/tokenize" else f"{path} with dry_run"
    record(f"A frozen worker does not block {what}", "as above", f"{delay:.2f} s", met=met)
    await everything.wait_until_ready()


async def _long_request(everything: Everything) -> int:
    """Return a number of texts that takes this machine clearly longer than the idle timeout."""
    client = everything.system.client()
    count = 50
    while True:
        began = time.monotonic()
        assert (await client.post("/embeddings", json=texts(count))).status_code == 200
        if time.monotonic() - began > LONG_REQUEST_SECONDS:
            return count
        count *= 2


async def _has_no_request(everything: Everything) -> bool:
    return await everything.system.gateway.metric("vilix_http_requests_in_flight") == 0
