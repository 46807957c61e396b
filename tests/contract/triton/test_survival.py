"""The server survives all actions of clients: cancellation at any moment, and invalid requests."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.runtime.failure import Failure
from services.worker.triton_client import TritonClient
from tests.contract.triton.subjects import REPLAY


async def test_cancelling_at_any_moment_leaves_the_server_alive(client: TritonClient, in_steps: bool) -> None:
    generate = client.generate_in_steps if in_steps else client.generate

    async def cancelled_after(milliseconds: float) -> None:
        outputs = generate(REPLAY, request_id="storm", prompt_token_ids=[1], params={"max_tokens": 3})

        async def read() -> None:
            async with contextlib.aclosing(outputs):
                async for _ in outputs:
                    pass

        task = asyncio.create_task(read())
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(5):
        await asyncio.gather(*(cancelled_after(moment / 4) for moment in range(80)))
    description = await client.describe(REPLAY)
    assert description["engine"] == "replay"


async def test_many_rejected_requests_leave_the_server_alive(client: TritonClient, in_steps: bool) -> None:
    generate = client.generate_in_steps if in_steps else client.generate

    async def rejected() -> None:
        outputs = generate(REPLAY, request_id="storm", prompt_token_ids=[1], params={"temperature": 3})
        with pytest.raises(Failure, match="temperature"):
            await anext(outputs)
        await outputs.aclose()

    for _ in range(20):
        await asyncio.gather(*(rejected() for _ in range(20)))
    assert (await client.describe(REPLAY))["engine"] == "replay"
