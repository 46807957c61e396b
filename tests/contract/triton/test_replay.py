"""The recordings that the replay engine plays, and failures of Triton at its client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.stack.ports import free_ports
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.contract.triton.subjects import FRAGILE, LESSER, REPLAY, SHORT_RECORDING, STORY
from tests.support.triton_servers import response, serving


def generate(
    client: TritonClient, model: str, *, in_steps: bool, **arguments: Any
) -> AsyncGenerator[EngineOutput, None]:
    """Yield the outputs of a request."""
    generate = client.generate_in_steps if in_steps else client.generate
    return generate(model, **({"request_id": "test", "params": {}} | arguments))


async def test_the_recording_whose_ids_are_in_the_prompt_is_played(client: TritonClient) -> None:
    result = await response(client, REPLAY, [9, 9, 282, 4649, 47, 9])
    assert result.token_ids == SHORT_RECORDING
    assert (await response(client, REPLAY, [282, 4649, 9, 47], max_tokens=2)).token_ids == [1000, 1001]


async def test_tokens_of_one_group_share_a_response(client: TritonClient) -> None:
    result = await response(client, REPLAY, [11, 12])
    assert [o.token_ids for o in result.outputs] == [[5, 6, 7], [8]]


async def test_tokens_are_sent_when_they_are_due(client: TritonClient, in_steps: bool) -> None:
    result = await response(client, REPLAY, [21], in_steps=in_steps)
    assert [o.token_ids for o in result.outputs] == [[5, 6], [7]]
    assert result.usage["timings"]["decode_s"] >= 0.055


async def test_recorded_log_probabilities_are_sent(client: TritonClient, in_steps: bool) -> None:
    result = await response(client, REPLAY, [21], logprobs=2, in_steps=in_steps)
    assert [value for o in result.outputs for value in o.logprobs or ()] == [-0.5, -1.0, -1.5]
    assert [ids for o in result.outputs for ids in o.top_token_ids or ()] == [[5, 9], [6], [7, 8]]


async def test_a_recorded_error_follows_the_tokens(client: TritonClient, in_steps: bool) -> None:
    tokens: list[int] = []

    async def read() -> None:
        async for output in generate(client, REPLAY, in_steps=in_steps, prompt_token_ids=[31]):
            tokens.extend(output.token_ids)

    with pytest.raises(Failure, match="the recording says so") as failure:
        await read()
    assert failure.value.reason is Reason.ENGINE_FAILED
    assert tokens == [5, 6]


async def test_an_empty_recording_ends_without_tokens(client: TritonClient, in_steps: bool) -> None:
    result = await response(client, REPLAY, [41], ignore_eos=True, in_steps=in_steps)
    assert result.token_ids == []
    assert result.finish_reason == "stop"
    assert result.usage["completion_tokens"] == 0


async def test_tokens_that_are_due_together_share_a_response(client: TritonClient) -> None:
    result = await response(client, REPLAY, [51], ignore_eos=True, max_tokens=200)
    assert result.token_ids == [7] * 200
    assert len(result.outputs) < 20


async def test_a_paused_recording_continues_at_its_pace(client: TritonClient, in_steps: bool) -> None:
    options = {"prompt_token_ids": STORY, "params": {"max_tokens": 60}, "window": 1}
    stream = generate(client, REPLAY, in_steps=in_steps, **options)
    async with contextlib.aclosing(stream):
        await anext(stream)
        # The time of thirty tokens, in which a recording that does not pause would get far ahead.
        await asyncio.sleep(0.15)
        following = [len((await anext(stream)).token_ids) for _ in range(4)]
    assert max(following) < 20


async def test_text_prompts_are_rejected(client: TritonClient) -> None:
    with pytest.raises(Failure) as rejection:
        async for _ in client.generate(REPLAY, request_id="t", prompt_token_ids=[], params={}, text_input="Hi"):
            pass
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message == Message("engine_lacks_parameter", engine="replay", parameter="text_input")


async def test_unsupported_parameters_are_rejected_by_name(client: TritonClient, in_steps: bool) -> None:
    assert "min_p" not in (await client.describe(LESSER))["supported_parameters"]
    with pytest.raises(Failure) as rejection:
        await response(client, LESSER, STORY, min_p=0.1, in_steps=in_steps)
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message == Message("engine_lacks_parameter", engine="replay", parameter="min_p")


async def test_a_full_queue_is_overload(client: TritonClient, in_steps: bool) -> None:
    results = await asyncio.gather(
        *(response(client, LESSER, STORY, max_tokens=50, in_steps=in_steps) for _ in range(3)), return_exceptions=True
    )
    rejected = [r for r in results if isinstance(r, Failure)]
    assert [f.reason for f in rejected] == [Reason.OVERLOADED]
    assert rejected[0].retry_after


async def test_a_failed_engine_fails_running_and_new_requests(client: TritonClient) -> None:
    # A failed engine stays so: both forms in one test.
    options = {"prompt_token_ids": STORY, "params": {"ignore_eos": True}}
    running = [generate(client, FRAGILE, in_steps=in_steps, **options) for in_steps in (False, True)]
    for stream in running:
        await anext(stream)
    results = await asyncio.gather(response(client, FRAGILE, [61]), *map(_drain, running), return_exceptions=True)
    new = [response(client, FRAGILE, STORY, in_steps=in_steps) for in_steps in (False, True)]
    results += await asyncio.gather(*new, client.describe(FRAGILE), return_exceptions=True)
    assert [r.reason for r in results if isinstance(r, Failure)] == [Reason.ENGINE_FAILED] * 6


async def test_a_dead_triton_is_unavailable(recordings: Path, tmp_path: Path, in_steps: bool) -> None:
    async with serving(tmp_path, {"mortal": ("replay", {"recordings": str(recordings)})}) as (server, client):
        options = {"prompt_token_ids": STORY, "params": {"ignore_eos": True}}
        stream = generate(client, "mortal", in_steps=in_steps, **options)
        await anext(stream)
        server.kill()
        with pytest.raises(Failure) as failure:
            await _drain(stream)
        assert failure.value.reason is Reason.MODEL_UNAVAILABLE
        assert failure.value.retry_after == 1
        assert not await client.is_ready("mortal")


async def test_a_missing_triton_is_unavailable(in_steps: bool) -> None:
    client = TritonClient(f"127.0.0.1:{free_ports(1)[0]}")
    try:
        assert not await client.is_ready("any")
        for call in (response(client, "any", STORY, in_steps=in_steps), client.describe("any")):
            with pytest.raises(Failure) as failure:
                await call
            assert failure.value.reason is Reason.MODEL_UNAVAILABLE
    finally:
        await client.close()


async def test_triton_finishes_its_requests_and_stops_after_sigterm(
    recordings: Path, tmp_path: Path, in_steps: bool
) -> None:
    async with serving(tmp_path, {"polite": ("replay", {"recordings": str(recordings)})}) as (server, client):
        await response(client, "polite", STORY, max_tokens=1, in_steps=in_steps)
        running = asyncio.create_task(response(client, "polite", STORY, window=1024, max_tokens=150, in_steps=in_steps))
        await asyncio.sleep(0.1)
        os.kill(server.process.pid, signal.SIGTERM)
        assert len((await running).token_ids) == 150
        assert await asyncio.to_thread(server.process.wait, 20) == 0


async def _drain(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]  # an async generator
        pass
