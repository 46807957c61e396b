"""Images from OpenAI's client to the engine's input, through a real gateway, worker and Triton with the engine replay.

The images' SHA-256, size and position choose the recording, so its text proves that exactly these images arrived.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import grpc
import openai
import pytest
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis
from tokenizers import Tokenizer
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.tenancy import keys
from tests.support.gateway import running_gateway
from tests.support.messages import message_id_of
from tests.support.models import qwen3
from tests.support.pictures import animated, encoded
from tests.support.triton_servers import serving
from tests.support.valkey import running_valkey
from tests.support.vision_template import TEMPLATE
from tests.support.waits import until
from tests.support.workers import running_inference_worker

MODEL, TEXT_MODEL = "seer", "blind"
ENTRY = """\
id: {id}
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
context_length: 4096
engine: {{name: replay}}
control_tokens_in_prompts: true
capabilities: {{vision: true, max_images: 4}}
images: {{patch_size: 16, min_pixels: 65536, max_pixels: 16777216}}
descriptions: {{en: Supports images.}}
"""
PNG, JPEG = encoded("PNG", 640, 480), encoded("JPEG", 1000, 2000)
WEBP, GIF = encoded("WEBP", 320, 320, lossless=True), animated("GIF", 100, 50)
IMAGES = [PNG, JPEG, WEBP, GIF]
# 1000×2000 with detail low: √(2000000/262144) = 2.76214; 1000/2.76214/32 = 11.3 → 11, 22.6 → 22.
# 100×50: √(65536/5000) = 3.62039; 100 · 3.62039/32 = 11.3 → 12, 5.66 → 6.
SIZES = [[640, 480], [352, 704], [320, 320], [384, 192]]
TOKENS = 20 * 15 + 11 * 22 + 10 * 10 + 12 * 6
PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"
PROMPT = (
    f"<|im_start|>user\nیک {PLACEHOLDER}دو{PLACEHOLDER}<|im_end|>\n<|im_start|>assistant\nدیدم.<|im_end|>\n"
    f"<|im_start|>user\n{PLACEHOLDER}{PLACEHOLDER}و این‌ها؟<|im_end|>\n<|im_start|>assistant\n"
)


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(data), **fields}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def conversation(first: bytes = PNG, second: bytes = JPEG) -> Any:
    return [
        {"role": "user", "content": [text("یک "), image(first), text("دو"), image(second, detail="low")]},
        {"role": "assistant", "content": "دیدم."},
        {"role": "user", "content": [image(WEBP), image(GIF, detail="high"), text("و این‌ها؟")]},
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(qwen3() / "tokenizer.json"))


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> AsyncIterator[tuple[str, str, str]]:
    """Run a system, and yield the URL of its gateway, an API key, and the target of its worker."""
    directory = tmp_path_factory.mktemp("images")
    end = tokenizer.token_to_id("<|im_end|>")

    def recording(name: str, text: str, **matching: Any) -> dict[str, Any]:
        return {"name": name, "token_ids": [*tokenizer.encode(text).ids, end], **matching}

    exact = recording(
        "exact",
        "همین‌ها را دیدم.",
        prompt_contains=tokenizer.encode(PROMPT, add_special_tokens=False).ids,
        images_sha256=[hashlib.sha256(one).hexdigest() for one in IMAGES],
        image_sizes=SIZES,
    )
    (directory / "recordings.json").write_text(
        json.dumps(
            [exact, recording("none", "هیچ تصویری نیست.", images_sha256=[]), recording("other", "چیز دیگری است.")]
        )
    )
    models = directory / "model"
    shutil.copytree(qwen3(), models)
    (models / "chat_template.jinja").write_text(TEMPLATE)
    catalog = directory / "catalog"
    catalog.mkdir()
    for model_id in (MODEL, TEXT_MODEL):
        (catalog / f"{model_id}.yaml").write_text(ENTRY.format(id=model_id))
    arguments = {"recordings": str(directory / "recordings.json")}
    placeholder = tokenizer.token_to_id("<|image_pad|>")
    engines = {MODEL: ("replay", {**arguments, "image_token_id": placeholder}), TEXT_MODEL: ("replay", arguments)}
    settings = {
        "models": f"{MODEL}={models},{TEXT_MODEL}={models}",
        "catalog_dir": str(catalog),
        "status_seconds": "0.2",
    }
    (directory / "triton").mkdir()
    async with serving(directory / "triton", engines) as (triton, _):
        with (
            running_inference_worker(directory, triton=triton.target, **settings) as worker,
            running_valkey(directory) as redis_url,
        ):
            await worker.reaches(health_pb2.HealthCheckResponse.SERVING)
            async with Redis.from_url(redis_url, decode_responses=True) as redis:
                _, secret = await keys.create(redis, name="images")
            log = directory / "gateway.log"
            limits = {"VILIX_MAX_BODY_BYTES": "20000000", "VILIX_MAX_IMAGE_BYTES": "3000000"}
            with running_gateway(redis_url, worker.target, log, **limits) as (url, _):
                async with openai.AsyncOpenAI(base_url=f"{url}/api", api_key=secret, max_retries=0) as client:
                    await _until_served(client)
                yield f"{url}/api", secret, worker.target


async def _until_served(client: openai.AsyncOpenAI) -> None:
    async def is_available() -> bool:
        try:
            model: Any = await client.models.retrieve(MODEL)
        except openai.APIError:
            return False
        return bool(model.available)

    await until(is_available, what="the model is available")


@pytest.fixture
async def client(system: tuple[str, str, str]) -> AsyncIterator[openai.AsyncOpenAI]:
    url, secret, _ = system
    async with openai.AsyncOpenAI(
        base_url=url, api_key=secret, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, messages: Any, model: str = MODEL, **fields: Any) -> Any:
    return await client.chat.completions.create(model=model, messages=messages, **fields)


async def rejection(client: openai.AsyncOpenAI, *parts: dict[str, Any], model: str = MODEL) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(client, [{"role": "user", "content": list(parts)}], model=model)
    return caught.value


async def test_images_reach_their_positions_in_the_prompt_unchanged_and_in_order(
    client: openai.AsyncOpenAI, tokenizer: Tokenizer
) -> None:
    response = await ask(client, conversation())
    assert response.choices[0].message.content == "همین‌ها را دیدم."
    prompt_tokens = len(tokenizer.encode(PROMPT, add_special_tokens=False).ids) - 4 + TOKENS
    assert response.usage.prompt_tokens == prompt_tokens
    stream = await ask(client, conversation(), stream=True, stream_options={"include_usage": True}, n=2)
    texts, usage = ["", ""], None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["همین‌ها را دیدم."] * 2
    assert usage.prompt_tokens == prompt_tokens  # type: ignore[attr-defined]  # the stream has one


async def test_other_images_yield_other_responses(client: openai.AsyncOpenAI) -> None:
    """This proves that the recordings distinguish images."""
    changed = PNG[:-1] + bytes([PNG[-1] ^ 1])
    for messages in (conversation(JPEG, PNG), conversation(first=changed)):
        assert (await ask(client, messages)).choices[0].message.content == "چیز دیگری است."
    response = await ask(client, [{"role": "user", "content": "سلام <|image_pad|>"}])
    assert response.choices[0].message.content == "هیچ تصویری نیست."


async def test_a_dry_run_has_the_placeholders_and_counts_the_images(client: openai.AsyncOpenAI) -> None:
    rendered = await client.post(
        "/chat/completions",
        body={"model": MODEL, "messages": conversation(), "dry_run": True},
        cast_to=object,
    )
    assert isinstance(rendered, dict)
    assert rendered["prompt"] == PROMPT
    assert rendered["prompt_tokens"] > TOKENS
    assert rendered["prompt_tokens"] + rendered["remaining_tokens"] == 4096


async def test_models_list_whether_they_support_images(client: openai.AsyncOpenAI) -> None:
    listed: dict[str, Any] = {model.id: model async for model in client.models.list()}
    assert listed[MODEL].capabilities["vision"] is True
    assert listed[MODEL].capabilities["max_images"] == 4
    assert listed[TEXT_MODEL].capabilities["vision"] is False
    error = await rejection(client, text("?"), image(PNG), model=TEXT_MODEL)
    assert error.param == "messages[0].content[1].image_url"
    assert error.code == "unsupported_parameter"
    assert message_id_of(error.response) == "vision_not_supported"


@pytest.mark.parametrize(
    ("parts", "param", "message_id"),
    [
        ([image(PNG[:20])], "messages[0].content[0].image_url", "image_truncated"),
        ([image(b"<svg/>")], "messages[0].content[0].image_url.url", "image_format_unknown"),
        ([text("a"), image(encoded("PNG", 202, 1))], "messages[0].content[1].image_url", "image_too_narrow"),
        ([image(GIF)] * 5, "messages[0].content[4].image_url", "too_many_images_for_model"),
        ([image(PNG + bytes(3_000_000))], "messages[0].content[0].image_url.url", "image_over_bytes"),
        ([image(encoded("GIF", 8000, 7000, "P"))], "messages[0].content[0].image_url", "image_too_many_pixels"),
        ([image(encoded("PNG", 3000, 3000), detail="high")], "messages", "context_full"),
    ],
)
async def test_unsupported_images_are_rejected(
    client: openai.AsyncOpenAI, parts: list[dict[str, Any]], param: str, message_id: str
) -> None:
    error = await rejection(client, *parts)
    assert (error.param, message_id_of(error.response)) == (param, message_id)


async def test_images_can_be_sent_over_grpc(system: tuple[str, str, str]) -> None:
    parts = [pb.ContentPart(image=pb.Image(data=PNG)), pb.ContentPart(text="?")]
    request = pb.GenerateRequest(model=MODEL, messages=[pb.Message(role=pb.ROLE_USER, content=parts)])
    async with grpc.aio.insecure_channel(system[2]) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        rendered = await stub.RenderPrompt(pb.RenderPromptRequest(request=request))
        assert rendered.prompt_tokens == len(rendered.token_ids) - 1 + 300
        events = [event async for response in stub.Generate(request) for event in response.events]
    assert "".join(event.delta.content for event in events) == "چیز دیگری است."
    assert events[-1].usage.prompt_tokens == rendered.prompt_tokens
