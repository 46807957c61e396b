"""The behaviour of the engine llamacpp beyond the contract, with a real model."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from services.runtime.failure import Failure, Reason
from services.stack import triton
from services.worker.triton_client import TritonClient
from tests.contract.triton.subjects import QUESTION, SMOLLM2, STORY
from tests.contract.triton.vocabulary import decode
from tests.support.triton_servers import Answer, launched, response

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "old": {"type": "boolean"}},
    "required": ["city", "old"],
    "additionalProperties": False,
}
PERSIAN = "سلام دنیا، حال شما چطور است؟ 🙂"


async def generate(client: TritonClient, prompt: list[int], **params: Any) -> Answer:
    return await response(client, SMOLLM2, prompt, **params)


async def text_of(client: TritonClient, gguf: Path, **params: Any) -> str:
    result = await generate(client, QUESTION, max_tokens=100, **params)
    assert result.finish_reason == "stop"
    return decode(gguf, result.token_ids[:-1])


async def test_a_question_is_answered(client: TritonClient, gguf: Path) -> None:
    assert "Paris" in await text_of(client, gguf, temperature=0)


@pytest.mark.parametrize("window", [1, 64])
async def test_all_ids_of_characters_that_span_tokens_are_reported(
    client: TritonClient, gguf: Path, window: int
) -> None:
    result = await generate(client, STORY, window=window, structured_output={"grammar": f'root ::= "{PERSIAN}"'})
    assert decode(gguf, result.token_ids[:-1]) == PERSIAN
    assert result.usage["completion_tokens"] == len(result.token_ids) > len(PERSIAN)


async def test_a_prompt_may_be_text(client: TritonClient) -> None:
    stream = client.generate(
        SMOLLM2,
        request_id="test",
        prompt_token_ids=[],
        text_input="<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        params={"temperature": 0},
    )
    by_text = Answer([output async for output in stream])
    by_ids = await generate(client, QUESTION, temperature=0)
    assert by_text.usage["prompt_tokens"] == len(QUESTION)
    assert by_text.token_ids == by_ids.token_ids


async def test_a_seed_makes_a_generation_repeatable(client: TritonClient) -> None:
    first, second, other = [
        (await generate(client, STORY, max_tokens=16, temperature=1.5, seed=seed)).token_ids for seed in (7, 7, -8)
    ]
    assert first == second != other


async def test_without_a_seed_generations_differ(client: TritonClient) -> None:
    answers = [(await generate(client, STORY, max_tokens=16, temperature=1.5)).token_ids for _ in range(2)]
    assert answers[0] != answers[1]


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_truncation_leaves_the_most_probable_token(client: TritonClient, params: dict[str, Any]) -> None:
    greedy = await generate(client, STORY, max_tokens=8, temperature=0, seed=1)
    truncated = await generate(client, STORY, max_tokens=8, temperature=2, seed=1, **params)
    assert truncated.token_ids == greedy.token_ids


async def test_a_bias_forces_and_forbids_tokens(client: TritonClient) -> None:
    forced = await generate(client, STORY, max_tokens=3, temperature=0, logit_bias={"42": 100})
    assert forced.token_ids == [42, 42, 42]
    greedy = await generate(client, STORY, max_tokens=1, temperature=0)
    avoided = await generate(client, STORY, max_tokens=1, temperature=0, logit_bias={str(greedy.token_ids[0]): -100})
    assert avoided.token_ids != greedy.token_ids


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}])
async def test_penalties_reduce_repetition(client: TritonClient, penalty: dict[str, float]) -> None:
    biased = {"temperature": 0, "max_tokens": 6, "logit_bias": {"42": 12}}
    plain = await generate(client, STORY, **biased)
    penalised = await generate(client, STORY, **biased, **penalty)
    assert penalised.token_ids != plain.token_ids


async def test_json_follows_its_schema(client: TritonClient, gguf: Path) -> None:
    value = json.loads(await text_of(client, gguf, structured_output={"json": SCHEMA}, temperature=0))
    assert value.keys() == {"city", "old"}
    assert isinstance(value["old"], bool)


async def test_text_matches_its_expression(client: TritonClient, gguf: Path) -> None:
    expression = r"[A-C]{2}-[0-9]{3}"
    assert re.fullmatch(expression, await text_of(client, gguf, structured_output={"regex": expression}))


async def test_text_follows_its_grammar(client: TritonClient, gguf: Path) -> None:
    assert await text_of(client, gguf, structured_output={"grammar": 'root ::= "oui" | "non"'}) in ("oui", "non")
    assert await text_of(client, gguf, structured_output={"grammar": '%llguidance {}\nstart: "oui" | "non"'}) in (
        "oui",
        "non",
    )


@pytest.mark.parametrize(
    "structured_output", [{"json": {"type": "nonsense"}}, {"regex": "(a"}, {"grammar": "root ::= other"}, {"json": "{"}]
)
async def test_an_invalid_structured_output_is_rejected(
    client: TritonClient, structured_output: dict[str, Any]
) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(client, QUESTION, structured_output=structured_output)
    assert (rejection.value.reason, rejection.value.message.field) == (Reason.INVALID_ARGUMENT, "structured_output")


async def test_a_generation_never_violates_a_structured_output_that_is_too_complex(client: TritonClient) -> None:
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern": "^[a-z]+$"} for i in range(1000)}}
    with pytest.raises(Failure) as rejection:
        await generate(client, QUESTION, structured_output={"json": wide}, max_tokens=64, temperature=0)
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message.id == "structured_output_too_complex"


@pytest.mark.parametrize("expression", ["((a{1,1000}){1,1000}){1,1000}", "(a|b)*a(a|b){60}", r"(\w{1,500}){1,500}"])
async def test_an_explosive_regular_expression_is_followed_or_rejected(client: TritonClient, expression: str) -> None:
    try:
        result = await generate(client, QUESTION, structured_output={"regex": expression}, max_tokens=4)
    except Failure as rejection:
        assert rejection.reason is Reason.INVALID_ARGUMENT
    else:
        assert len(result.token_ids) <= 4


async def test_an_unsupported_kind_of_structured_output_is_rejected_by_name(client: TritonClient) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(client, QUESTION, structured_output={"structural_tag": {}})
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message.id == "structured_output_kind_not_supported"


@pytest.mark.parametrize("params", [{"stop_token_ids": [49152]}, {"logit_bias": {"49152": 1}}])
async def test_a_token_id_outside_the_vocabulary_is_rejected(client: TritonClient, params: dict[str, Any]) -> None:
    for prompt, more, unknown in ((QUESTION, params, "49152"), ([1, -1], {}, "-1")):
        with pytest.raises(Failure) as rejection:
            await generate(client, prompt, **more)
        assert rejection.value.message.id == "engine_token_id_unknown"
        assert rejection.value.message.parameters["value"] == unknown


async def test_a_prompt_in_the_cache_is_not_read_again(client: TritonClient) -> None:
    prompt = [100 + i for i in range(64)]
    first = await generate(client, prompt, max_tokens=2, cache_salt="reader")
    second = await generate(client, [*prompt, 7, 8], max_tokens=2, cache_salt="reader")
    assert first.usage["cached_tokens"] == 0
    assert second.usage["cached_tokens"] == len(prompt)


@pytest.mark.parametrize("temperature", [0, 0.7])
async def test_a_request_with_a_seed_reads_its_whole_prompt(client: TritonClient, temperature: float) -> None:
    prompt = [400 + i for i in range(64)]
    for _ in range(2):
        result = await generate(client, prompt, max_tokens=2, temperature=temperature, seed=5)
        assert result.usage["cached_tokens"] == 0


async def test_requests_with_different_salts_share_no_cache(client: TritonClient) -> None:
    prompt = [200 + i for i in range(64)]
    await generate(client, prompt, max_tokens=2, cache_salt="one")
    other = await generate(client, prompt, max_tokens=2, cache_salt="two")
    assert other.usage["cached_tokens"] == 0


async def test_a_long_prompt_can_be_cancelled_while_it_is_read(client: TritonClient) -> None:
    before = await client.describe(SMOLLM2)
    task = asyncio.create_task(generate(client, [300 + i for i in range(250)], max_tokens=1, seed=1))
    started = time.monotonic()
    while (await client.describe(SMOLLM2))["load"]["in_flight"] == 0:
        assert time.monotonic() - started < 5
    task.cancel()
    while (await client.describe(SMOLLM2))["load"]["in_flight"]:
        assert time.monotonic() - started < 5
    after = await client.describe(SMOLLM2)
    assert after["load"]["generated_tokens_total"] == before["load"]["generated_tokens_total"]


def test_a_file_with_an_unsupported_tokenizer_is_rejected_by_name(gguf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    data = gguf.read_bytes()
    name = data.index(b"smollm", data.index(b"tokenizer.ggml.pre"))
    other.write_bytes(data[:name] + b"falcon" + data[name + len(b"smollm") :])
    with launched(tmp_path / "triton", {"other": ("llamacpp", {"model": str(other)})}) as server:
        assert server.process.wait(60) != 0
        problem = triton.explain(server.log.read_text())
    other.unlink()
    assert "model other" in problem
    assert "'falcon'" in problem
    assert "\n" not in problem


def test_a_missing_file_is_reported_with_its_name(tmp_path: Path) -> None:
    with launched(tmp_path / "triton", {"lost": ("llamacpp", {"model": "/nowhere/model.gguf"})}) as server:
        assert server.process.wait(60) != 0
        assert "/nowhere/model.gguf" in triton.explain(server.log.read_text())
