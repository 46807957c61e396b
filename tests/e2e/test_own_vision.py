"""`vilix up --gguf ID=PATH --mmproj ID=PATH`: images, with random weights of Qwen3-VL's architecture."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from tests.e2e.stack import RunningStack, up, vilix
from tests.support import models, qwen3_gguf
from tests.support.messages import message_id_of
from tests.support.repository import ROOT

MODEL, TEXT_MODEL = "qwen3-vl", "smollm2-135m"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vision")
    qwen3_gguf.write(directory / "tiny.gguf", models.qwen3(), template=TEMPLATE, supports_vision=True)
    qwen3_gguf.write_mmproj(directory / "projector.gguf")
    qwen3_gguf.write_mmproj(directory / "other.gguf", projector="gemma3")
    return directory


@pytest.fixture(scope="module")
def vision_stack(files: Path) -> Iterator[RunningStack]:
    with up(
        files / "run", f"--gguf={MODEL}={files / 'tiny.gguf'}", f"--mmproj={MODEL}={files / 'projector.gguf'}"
    ) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def vision(vision_stack: RunningStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=vision_stack.url, api_key=vision_stack.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def picture(seed: int, *, side: int = 320) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def about(*images: str, text: str = "چه می‌بینی؟", **more: Any) -> dict[str, Any]:
    content: list[Any] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    return {"model": MODEL, "messages": messages, "max_tokens": 6, "temperature": 0, **more}


def likelihoods(client: openai.OpenAI, request: dict[str, Any]) -> list[float]:
    response = client.chat.completions.create(**request, logprobs=True)
    assert response.choices[0].logprobs is not None
    return [token.logprob for token in response.choices[0].logprobs.content or []]


def test_the_output_depends_on_the_images_and_their_order(vision: openai.OpenAI) -> None:
    first = likelihoods(vision, about(picture(1)))
    assert likelihoods(vision, about(picture(2))) != first
    assert likelihoods(vision, about(picture(1))) == first
    assert likelihoods(vision, about(picture(1), picture(2))) != likelihoods(vision, about(picture(2), picture(1)))


def test_a_cached_image_is_not_used_for_another_image(vision: openai.OpenAI) -> None:
    fields = {"temperature": 1e-6, "extra_body": {"cache_salt": "one"}}
    results = [likelihoods(vision, about(picture(seed), **fields)) for seed in (1, 2, 1, 2)]
    assert np.allclose(results[0], results[2], atol=1e-3)
    assert np.allclose(results[1], results[3], atol=1e-3)
    assert not np.allclose(results[0], results[1], atol=1e-3)


def test_the_tokens_of_an_image_are_counted_by_the_models_rule(vision: openai.OpenAI) -> None:
    texts = [vision.chat.completions.create(**about(*images)).usage for images in ((picture(1),), (picture(1),) * 2)]
    assert texts[0] is not None
    assert texts[1] is not None
    # 10 by 10 squares of 32 pixels, and a token before and after them.
    assert texts[1].prompt_tokens - texts[0].prompt_tokens == 102


def test_a_request_without_images_is_served(vision: openai.OpenAI) -> None:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "سلام"}], "max_tokens": 6, "temperature": 0}
    assert likelihoods(vision, request) == likelihoods(vision, request)


def test_models_list_whether_they_support_images(vision: openai.OpenAI) -> None:
    supported = {model.id: model.model_dump()["capabilities"].get("vision") for model in vision.models.list()}
    assert (supported[MODEL], supported[TEXT_MODEL]) == (True, False)


@pytest.mark.parametrize(
    ("request_", "message_id"),
    [
        (about(picture(1), model=TEXT_MODEL), "vision_not_supported"),
        (about("data:image/png;base64,bm9uc2Vuc2U="), "image_format_unknown"),
        (about(picture(1, side=640), text="x " * 3800), "context_exceeded"),
    ],
)
def test_unsupported_images_are_rejected(vision: openai.OpenAI, request_: dict[str, Any], message_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as rejection:
        vision.chat.completions.create(**request_)
    assert message_id_of(rejection.value.response) == message_id


async def test_a_client_disconnect_while_images_are_processed_frees_the_engine(vision_stack: RunningStack) -> None:
    async with openai.AsyncOpenAI(base_url=vision_stack.url, api_key=vision_stack.api_key, max_retries=0) as client:
        large = about(*(picture(seed, side=960) for seed in range(3)), max_tokens=400)
        for seconds in (0.05, 0.2, 0.4, 0.8):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await client.chat.completions.create(**large)
        response = await asyncio.wait_for(client.chat.completions.create(**about(picture(1))), 30)
        assert response.usage is not None
        assert response.usage.completion_tokens == 6


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--mmproj=qwen3-vl=README.md"], "needs --gguf qwen3-vl=PATH"),
        (["--mmproj=qwen3-vl"], "the value must be ID=PATH"),
        (["--gguf=qwen3-8b={tiny}", "--mmproj=qwen3-8b={projector}"], "does not support images"),
        (["--gguf=qwen3-vl={tiny}", "--mmproj=qwen3-vl={other}"], "has the projector gemma3"),
    ],
)
def test_an_unusable_vision_projector_is_reported_in_one_line(
    files: Path, tmp_path: Path, options: list[str], problem: str
) -> None:
    paths = {name: files / f"{name}.gguf" for name in ("tiny", "projector", "other")}
    arguments = [option.format(**paths) for option in options]
    result = vilix("up", *arguments, "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: --")
    assert problem in error
