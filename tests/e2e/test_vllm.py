"""A chat in Persian, with and without reasoning, and a forced call, from the real vLLM through the whole stack.

The tiny model has learned the response token by token; all else that it says is random (see tiny_checkpoints.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.inference.model.tokenizer import ModelTokenizer
from tests.support import tiny_checkpoints, vllm_models
from tests.support.environments import python_of
from tests.support.gateway import running_gateway, until_ready
from tests.support.models import qwen3
from tests.support.tiny_checkpoints import Checkpoint
from tests.support.valkey import running_valkey
from tests.support.workers import running_inference_worker

pytestmark = vllm_models.MARKS
MODEL: Final = "tiny"
THOUGHT: Final = "کاربر می\u200cپرسد"
ANSWER: Final = "سلام! خوبم 🙂"
QUESTION: Any = [{"role": "user", "content": "حالت چطور است؟"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["تهران", "شیراز"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CATALOG_ENTRY: Final = f"""\
id: {MODEL}
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
context_length: 1024
engine: {{name: replay}}
capabilities: {{reasoning_optional: true}}
parsers: {{reasoning: think, tool_calls: hermes}}
descriptions: {{en: Random numbers that have learned one response.}}
"""
"""Its engine matters only to what renders model repositories: the worker asks Triton which one it is."""


def learned() -> tuple[tuple[int, ...], ...]:
    """Return what follows the prompts of Qwen3's template with and without reasoning."""
    tokenizer = ModelTokenizer(qwen3())
    thought, answer = tokenizer.encode(f"<think>{THOUGHT}</think>"), tokenizer.encode(f"{ANSWER}<|im_end|>")
    whole = (*tokenizer.encode("\n"), *thought, *answer)
    empty_thought = tokenizer.encode("</think>\n\n")
    assert len(set(whole)) == len(whole), "each token has one follower"
    return whole, (empty_thought[-1], answer[0])


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[openai.AsyncOpenAI]:
    directory = tmp_path_factory.mktemp("vllm")
    checkpoint = Checkpoint(
        directory=str(directory / MODEL),
        architecture=tiny_checkpoints.QWEN3,
        tokenizer=str(qwen3()),
        vocabulary=151_936,
        ends=(151_645, 151_643),
        prompt=(1, 2, 3),
        sequences=learned(),
    )
    tiny_checkpoints.make(python_of(vllm_models.ENVIRONMENT), [checkpoint])
    (directory / "catalog").mkdir()
    (directory / "catalog" / f"{MODEL}.yaml").write_text(CATALOG_ENTRY)
    arguments = {"model": checkpoint.directory, "context_length": 1024, "slots": 2}
    settings = {"models": f"{MODEL}={checkpoint.directory}", "catalog_dir": str(directory / "catalog")}
    async with vllm_models.serving(directory / "triton", {MODEL: arguments}) as (triton, _):
        with contextlib.ExitStack() as stack:
            redis_url = stack.enter_context(running_valkey(directory / "valkey"))
            worker = stack.enter_context(running_inference_worker(directory, triton=triton.target, **settings))
            await worker.reaches(health_pb2.HealthCheckResponse.SERVING, MODEL)
            own = {"VILIX_EXPECTED_MODELS": MODEL}
            url, _ = stack.enter_context(running_gateway(redis_url, worker.target, directory / "gateway.log", **own))
            async with Redis.from_url(redis_url, decode_responses=True) as redis:
                _, api_key = await keys.create(redis, name="test")
            await until_ready(url)
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as made:
                yield made


async def chat(client: openai.AsyncOpenAI, *, thinks: bool, **fields: Any) -> Any:
    return await client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        extra_body={"chat_template_kwargs": {"enable_thinking": thinks}},
        **fields,
    )


@pytest.mark.parametrize("thinks", [True, False])
async def test_a_chat_in_persian_arrives_with_its_reasoning(client: openai.AsyncOpenAI, *, thinks: bool) -> None:
    response = await chat(client, thinks=thinks, max_tokens=100)
    message = response.choices[0].message
    assert message.content == ANSWER
    assert getattr(message, "reasoning_content", None) == (THOUGHT if thinks else None)
    assert response.choices[0].finish_reason == "stop"
    assert response.usage is not None
    assert response.usage.completion_tokens > 0


async def test_the_parts_of_a_stream_are_the_whole_response(client: openai.AsyncOpenAI) -> None:
    text = ""
    async for chunk in await chat(client, thinks=False, max_tokens=100, stream=True):
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert text == ANSWER


async def test_a_forced_call_follows_the_schema_of_its_function(client: openai.AsyncOpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    response = await chat(client, thinks=False, max_tokens=100, tools=[WEATHER], tool_choice=choice)
    (call,) = response.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("تهران", "شیراز")


async def test_the_model_names_its_engine(client: openai.AsyncOpenAI) -> None:
    (model,) = [model async for model in client.models.list()]
    assert "vLLM" in str(model.model_dump())
