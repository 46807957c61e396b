"""The behaviour of the engine trtllm beyond the contract, with a stand-in for TensorRT-LLM, which needs a GPU.

What it makes of TensorRT-LLM's own behaviour is in tests/unit/triton_backend/test_trtllm.py.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.runtime.failure import Failure, Reason
from services.stack import triton
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.contract.triton.subjects import CONTEXT_LENGTH, SHORT_RECORDING, STORY, TRTLLM_12, TRTLLM_13, TRTLLM_FRAGILE
from tests.stand_ins import trtllm as stand_in
from tests.support.triton_servers import Answer, launched, response
from tests.support.waits import until


def png(width: int, height: int, colour: tuple[int, ...] = (200, 30, 30, 128)) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (width, height), colour).save(data, "PNG")
    return data.getvalue()


async def with_images(client: TritonClient, prompt: list[int], images: list[bytes]) -> Answer:
    outputs = client.generate(
        TRTLLM_13, request_id="test", prompt_token_ids=prompt, params={"temperature": 0}, images=images
    )
    return Answer([output async for output in outputs])


async def test_images_replace_their_placeholders(client: TritonClient) -> None:
    prompt = [1, stand_in.IMAGE_TOKEN, 7, stand_in.IMAGE_TOKEN, 8]
    result = await with_images(client, prompt, [png(56, 28), png(84, 28, (0, 0, 250))])
    # The pixels that the stand-in received.
    assert "".join(map(chr, result.token_ids[:-1])) == "red, blue"
    assert result.usage["prompt_tokens"] == 3 + 2 + 3


@pytest.mark.parametrize(
    ("images", "message_id"),
    [([b"\x89PNG"], "image_format_unknown"), ([png(28, 28)] * 2, "image_placeholders_mismatch")],
)
async def test_invalid_images_are_rejected(client: TritonClient, images: list[bytes], message_id: str) -> None:
    with pytest.raises(Failure) as rejection:
        await with_images(client, [1, stand_in.IMAGE_TOKEN], images)
    assert (rejection.value.reason, rejection.value.message.id) == (Reason.INVALID_ARGUMENT, message_id)


async def test_a_prompt_may_be_text(client: TritonClient) -> None:
    text = "".join(map(chr, [282, 4649, 47]))
    outputs = client.generate(
        TRTLLM_12, request_id="t", prompt_token_ids=[], text_input=text, params={"temperature": 0}
    )
    result = Answer([output async for output in outputs])
    assert result.token_ids == SHORT_RECORDING
    assert result.usage["prompt_tokens"] == 3


async def test_a_slow_reader_gets_all_tokens_in_few_responses(client: TritonClient) -> None:
    stream = client.generate(
        TRTLLM_12, request_id="test", prompt_token_ids=STORY, params={"ignore_eos": True}, window=4
    )
    outputs: list[EngineOutput] = [await anext(stream)]

    async def all_is_generated() -> bool:
        return bool((await client.describe(TRTLLM_12))["load"]["in_flight"] == 0)

    await until(all_is_generated)
    outputs += [output async for output in stream]
    assert len(outputs) <= 4 + 1
    assert sum(len(output.token_ids) for output in outputs) == CONTEXT_LENGTH - len(STORY)


async def test_a_failed_request_does_not_affect_others(client: TritonClient) -> None:
    with pytest.raises(Failure, match="no room in the cache") as failure:
        await response(client, TRTLLM_12, [31])
    assert failure.value.reason is Reason.ENGINE_FAILED
    assert len((await response(client, TRTLLM_12, STORY, max_tokens=3)).token_ids) == 3


async def test_a_failed_engine_is_not_ready_and_reports_it(client: TritonClient) -> None:
    running = client.generate(TRTLLM_FRAGILE, request_id="test", prompt_token_ids=STORY, params={"ignore_eos": True})
    await anext(running)

    async def drained() -> None:
        async for _ in running:
            pass

    calls: list[Any] = [response(client, TRTLLM_FRAGILE, [61]), drained()]
    results = await asyncio.gather(*calls, return_exceptions=True)
    calls = [response(client, TRTLLM_FRAGILE, STORY), client.describe(TRTLLM_FRAGILE)]
    results += await asyncio.gather(*calls, return_exceptions=True)
    assert [r.reason for r in results if isinstance(r, Failure)] == [Reason.ENGINE_FAILED] * 4
    assert all("illegal memory access" in str(r) for r in results)


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (None, "tensorrt_llm cannot be imported"),
        ("1.2.1", "this model needs TensorRT-LLM 1.3 or newer, and 1.2.1 is installed"),
    ],
)
def test_a_failed_start_reports_what_the_operator_must_change(
    tmp_path: Path, version: str | None, problem: str
) -> None:
    directory = stand_in.write_checkpoint(tmp_path / "checkpoint", [{"token_ids": [5]}])
    models = {"m": ("trtllm", {"model": str(directory), "context_length": 256, "requires": ">=1.3"})}
    with launched(tmp_path / "triton", models, trtllm={"m": version} if version else {}) as server:
        assert server.process.wait(60) != 0
        explanation = triton.explain(server.log.read_text())
    assert problem in explanation
    assert explanation.startswith("model m: engine trtllm: ")
