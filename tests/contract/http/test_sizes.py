"""Requests that are too large, or have too many elements, for the shared stream to a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import running_gateway, until_ready
from tests.support.messages import message_id_of
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage

MEBIBYTE = 2**20


@pytest.fixture
async def http(
    redis_url: str, api_key: str, worker: ScriptedWorker, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that accepts larger bodies than workers do."""
    settings = {"VILIX_MAX_BODY_BYTES": str(48 * MEBIBYTE)}
    with running_gateway(redis_url, worker.address, tmp_path / "gateway.log", **settings) as (url, _):
        headers = {"Authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            await until_ready(url)
            yield client


TEXT = "a" * (33 * MEBIBYTE)
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100}] * 200
REJECTED: list[tuple[str, dict[str, Any], tuple[int, str | None]]] = [
    ("/api/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, (413, "request_too_large")),
    ("/api/completions", {"prompt": TEXT}, (413, "request_too_large")),
    ("/api/tokenize", {"prompt": TEXT}, (413, "request_too_large")),
    ("/api/chat/completions", {"messages": PARTS}, (400, "invalid_value")),
    ("/api/tokenize", {"messages": PARTS}, (400, "invalid_value")),
]


@pytest.mark.parametrize(("path", "large", "expected"), REJECTED)
async def test_a_request_that_is_too_large_ends_no_other_generation(
    http: httpx.AsyncClient, worker: ScriptedWorker, path: str, large: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    going = asyncio.Event()
    worker.script = [[started(), content("Hel")], going, [content("lo"), finish(), usage()]]
    victim = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with http.stream("POST", "/api/chat/completions", json=victim) as response:
        lines = response.aiter_lines()
        while "Hel" not in await anext(lines):
            pass
        rejected = await http.post(path, json={"model": MODEL, **large})
        error = rejected.json()["error"]
        assert (rejected.status_code, error["code"]) == expected, rejected.text
        assert message_id_of(rejected) in ("request_too_large_for_worker", "too_many_elements")
        going.set()
        rest = [line async for line in lines]
    assert "data: [DONE]" in rest
    assert not any('"error"' in line for line in rest)
    assert len(worker.requests) == 1, "the large request did not get to the worker"
