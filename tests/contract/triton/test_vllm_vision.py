"""Images in the engine vllm: tiny models of two architectures, compared with transformers' own forward pass."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.runtime.failure import Failure, Reason
from services.worker.triton_client import TritonClient
from tests.contract.triton.subjects import CONTEXT_LENGTH, LIMITS
from tests.support import tiny_checkpoints, vllm_models
from tests.support.environments import python_of
from tests.support.models import qwen3
from tests.support.tiny_checkpoints import IMAGE, QWEN2_5_VL, QWEN3_VL, VISION_END, VISION_START, Checkpoint
from tests.support.triton_servers import Answer

pytestmark = vllm_models.MARKS
MODELS = (QWEN2_5_VL, QWEN3_VL)
PROMPT = [5_000, VISION_START, IMAGE, VISION_END, 6_000, 7_000]
LIBRARIES = {QWEN2_5_VL: "guidance", QWEN3_VL: "xgrammar"}


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints")
    checkpoints = [
        Checkpoint(
            directory=str(directory / name),
            architecture=name,
            tokenizer=str(qwen3()),
            vocabulary=151_936,
            ends=(151_645, 151_643),
            prompt=tuple(PROMPT),
        )
        for name in MODELS
    ]
    tiny_checkpoints.make(python_of(vllm_models.ENVIRONMENT), checkpoints)
    return directory


@pytest.fixture(scope="module")
async def client(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonClient]:
    models = {
        name: {
            "model": str(tiny_models / name),
            "structured_outputs_config": {"backend": LIBRARIES[name]},
            "limit_mm_per_prompt": {"image": 2, "video": 0},
            **LIMITS,
        }
        for name in MODELS
    }
    async with vllm_models.serving(tmp_path_factory.mktemp("vision"), models) as (_, connected):
        yield connected


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


async def answer(client: TritonClient, model: str, prompt: list[int], *images: Image.Image, **params: Any) -> Answer:
    outputs = client.generate(
        model,
        request_id=f"request-{id(params)}",
        prompt_token_ids=prompt,
        params={"temperature": 0, "ignore_eos": True, "max_tokens": 1, **params},
        images=[png(image) for image in images],
    )
    return Answer([output async for output in outputs])


@pytest.mark.parametrize("model", MODELS)
async def test_an_image_is_seen_as_transformers_sees_it(client: TritonClient, tiny_models: Path, model: str) -> None:
    expected = json.loads((tiny_models / f"{model}.json").read_text())
    image = tiny_checkpoints.picture()
    result = await answer(client, model, PROMPT, image, logprobs=1)
    assert result.usage["prompt_tokens"] == len(expected["prompt"])
    assert result.outputs[0].logprobs == pytest.approx([expected["following_logprob"]], abs=1e-2)
    assert result.token_ids == [expected["following"]]


@pytest.mark.parametrize("model", MODELS)
async def test_text_is_read_beside_images(client: TritonClient, model: str) -> None:
    image = tiny_checkpoints.picture()
    both = await answer(client, model, [IMAGE, 7, IMAGE, 8], image, image.resize((56, 56)), max_tokens=3)
    text = await answer(client, model, [1, 2, 3], max_tokens=3)
    assert len(both.token_ids) == len(text.token_ids) == 3
    assert text.usage["prompt_tokens"] == 3


@pytest.mark.parametrize("model", MODELS)
async def test_images_are_resized_as_the_worker_wants(client: TritonClient, model: str) -> None:
    unit = 32 if model == QWEN3_VL else 28
    image = tiny_checkpoints.picture()
    result = await answer(client, model, [1, IMAGE, 2], image, image_sizes=[[2 * unit, unit]])
    assert result.usage["prompt_tokens"] == 2 + 2


@pytest.mark.parametrize("model", MODELS)
async def test_different_images_do_not_share_the_cache(client: TritonClient, model: str) -> None:
    text, image = list(range(1000, 1064)), tiny_checkpoints.picture()
    other = image.rotate(180)
    first, second, third = [
        await answer(client, model, [*text, IMAGE, *text], seen, cache_salt="own") for seen in (image, image, other)
    ]
    assert first.usage["cached_tokens"] == 0
    assert second.usage["cached_tokens"] > len(text)
    assert third.usage["cached_tokens"] == len(text)


@pytest.mark.parametrize(
    ("prompt", "images", "message_id"),
    [
        ([1, 2], 1, "image_placeholders_mismatch"),
        ([1, IMAGE, 2], 2, "image_placeholders_mismatch"),
        ([*[1] * (CONTEXT_LENGTH - 4), IMAGE, 2], 1, "engine_context_full"),
    ],
)
@pytest.mark.parametrize("model", MODELS)
async def test_an_invalid_image_is_rejected(
    client: TritonClient, model: str, prompt: list[int], images: int, message_id: str
) -> None:
    with pytest.raises(Failure) as rejection:
        await answer(client, model, prompt, *[tiny_checkpoints.picture()] * images)
    assert rejection.value.message.id == message_id
    assert (await answer(client, model, [1, 2, 3])).token_ids


@pytest.mark.parametrize("model", MODELS)
async def test_what_is_no_image_is_rejected(client: TritonClient, model: str) -> None:
    stream = client.generate(
        model, request_id="broken", prompt_token_ids=[1, IMAGE, 2], params={"max_tokens": 1}, images=[b"\x89PNG"]
    )
    with pytest.raises(Failure) as rejection:
        await anext(stream)
    assert (rejection.value.reason, rejection.value.message.id) == (Reason.INVALID_ARGUMENT, "image_format_unknown")


@pytest.mark.parametrize(
    ("structured_output", "is_supported"),
    [
        ({"regex": "4[0-9]"}, True),
        ({"grammar": 'root ::= "oui"'}, True),
        ({"json": {"enum": ["a", "b"]}}, True),
        ({"json_object": True}, True),
        ({"structural_tag": {"type": "structural_tag", "format": {"type": "const_string", "value": "x"}}}, True),
        ({"regex": "(("}, False),
        ({"grammar": "root ::= other"}, False),
        ({"json": {"type": "nonsense"}}, False),
        ({"json": {"type": "integer", "multipleOf": 3}}, False),
        ({"structural_tag": {}}, False),
    ],
)
async def test_xgrammar_holds_to_what_it_compiles_and_rejects_the_rest(
    client: TritonClient, structured_output: dict[str, Any], is_supported: bool
) -> None:
    params = {"structured_output": structured_output, "ignore_eos": False, "max_tokens": 6}
    if is_supported:
        assert (await answer(client, QWEN3_VL, [1, 2, 3], **params)).finish_reason in ("stop", "length")
    else:
        with pytest.raises(Failure) as rejection:
            await answer(client, QWEN3_VL, [1, 2, 3], **params)
        assert (rejection.value.reason, rejection.value.message.field) == (
            Reason.INVALID_ARGUMENT,
            "structured_output",
        )
    assert (await answer(client, QWEN3_VL, [1, 2, 3])).token_ids
