"""Gateways that are killed while they generate stored responses: every other gateway tells how each has ended."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.faults.chat_stream import MODEL
from tests.faults.process import Process
from tests.faults.recordings import LONG
from tests.faults.system import System, running_system
from tests.support.fault_table import milliseconds, record, times
from tests.support.waits import until

LEASE_SECONDS: Final = 2.0
TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[System]:
    """Run two gateways with short leases."""
    settings = {"VILIX_RESERVATION_SECONDS": str(LEASE_SECONDS), "VILIX_RENEW_SECONDS": "0.5"}
    async with running_system(tmp_path, gateways=2, gateway_settings=settings) as running:
        yield running


async def generate(client: httpx.AsyncClient, seen: list[dict[str, Any]], *, background: bool) -> None:
    """Read a stored stream until it is cut."""
    body = {"model": MODEL, "input": f"{LONG} please", "stream": True, "background": background}
    try:
        async with client.stream("POST", "/responses", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    # One by one, because others watch the list.
                    seen.append(json.loads(line.removeprefix("data: ")))  # noqa: PERF401  # as above
    except httpx.TransportError:
        pass


async def replay(client: httpx.AsyncClient, response_id: str) -> list[dict[str, Any]]:
    """Return all events that a gateway sends."""
    response = await client.get(f"/responses/{response_id}", params={"stream": "true"})
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
    assert response.text.endswith("data: [DONE]\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def check_death(system: System, dying: Process, other: Process, *, background: bool, events: int) -> float:
    """Kill the generating gateway, check what another one replays, and return after how many seconds it ended."""
    seen: list[dict[str, Any]] = []
    generating = asyncio.create_task(generate(system.client(dying), seen, background=background))
    await until(lambda: len(seen) > events, 30, "the response is being generated")
    killed = time.monotonic()
    dying.kill()
    await generating
    client, response_id = system.client(other), seen[0]["response"]["id"]
    # Two clients that resume at the same time, one of them late.
    first, second = await asyncio.gather(replay(client, response_id), replay(client, response_id))
    seconds = time.monotonic() - killed
    assert first == second
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert [event["type"] for event in first if event["type"] in TERMINAL] == ["response.failed"]
    assert [event["type"] for event in first[-2:]] == ["error", "response.failed"]
    assert first[-1]["response"]["error"]["code"] == "server_error"
    # Exactly what was stored: nothing is missing or twice, and nothing differs from what the client has read.
    logged = first[:-2]
    assert all(mine == theirs for mine, theirs in zip(logged, seen, strict=False))
    stored = (await client.get(f"/responses/{response_id}")).json()
    assert (stored["status"], stored["error"]) == ("failed", first[-1]["response"]["error"])
    # A client that has read more than was stored learns the end, too.
    late = await client.get(f"/responses/{response_id}", params={"stream": "true", "starting_after": len(first) + 50})
    assert late.text.count("event: response.failed") == 1
    return seconds


async def test_a_response_whose_gateway_dies_has_failed_everywhere(gateways: System) -> None:
    rounds, delays = times(2, 100), []
    chance = random.Random(1)
    for number in range(rounds):
        dying, other = gateways.gateways if number % 2 else reversed(gateways.gateways)
        seconds = await check_death(gateways, dying, other, background=number % 3 == 0, events=chance.randint(3, 60))
        delays.append(seconds)
        dying.start()
        await gateways.wait_until_ready(dying)
    await until(gateways.is_idle)
    record(
        "A gateway is killed while it generates a stored response",
        f"{rounds} of {rounds}: the others replay exactly what was stored, then response.failed, once; within a lease "
        f"({LEASE_SECONDS:g} s) + 1 s",
        f"{rounds} of {rounds}; {milliseconds(delays)}",
        met=max(delays) < LEASE_SECONDS + 1,
    )


async def test_a_stored_stream_whose_client_leaves_is_cancelled(gateways: System) -> None:
    client, other = system_clients(gateways)
    for _ in range(times(2, 20)):
        seen: list[dict[str, Any]] = []
        generating = asyncio.create_task(generate(client, seen, background=False))
        await until(partial(has_begun, seen), 30, "the response is being generated")
        generating.cancel()
        await asyncio.gather(generating, return_exceptions=True)
        response_id = seen[0]["response"]["id"]

        async def is_cancelled(response_id: str = response_id) -> bool:
            return bool((await other.get(f"/responses/{response_id}")).json()["status"] == "cancelled")

        await until(is_cancelled, 30, "the response is cancelled")
        events = await replay(other, response_id)
        assert [event["type"] for event in events if event["type"] in TERMINAL] == ["response.incomplete"]
    await until(gateways.is_idle)


async def has_begun(seen: list[dict[str, Any]]) -> bool:
    return len(seen) > 5


def system_clients(system: System) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    """Return a client of each of the first two gateways."""
    first, second = itertools.islice(system.gateways, 2)
    return system.client(first), system.client(second)
