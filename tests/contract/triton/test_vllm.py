"""The behaviour of the engine vllm beyond the contract, with the real vLLM for CPUs and a tiny model.

The model's weights are random, so that what it says follows only from the parameters: see
tests/support/tiny_checkpoints.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.runtime.failure import Failure, Reason
from services.stack import triton
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.contract.triton.subjects import (
    CONTEXT_LENGTH,
    LIMITS,
    QUESTION,
    SHORT_RECORDING,
    STORY,
    VLLM,
    VLLM_PROMPT,
)
from tests.contract.triton.vocabulary import decode
from tests.support import vllm_models
from tests.support.environments import python_of
from tests.support.triton_servers import Answer, Server, launched, response
from tests.support.waits import until

pytestmark = vllm_models.MARKS
PROMPT = list(VLLM_PROMPT)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "old": {"type": "boolean"}},
    "required": ["city", "old"],
    "additionalProperties": False,
}
CALL = {"properties": {"name": {"const": "weather"}, "arguments": {"type": "object", "additionalProperties": False}}}
CALLS = {
    "opening": "<tool_call>",
    "closing": "</tool_call>",
    "schema": {**CALL, "type": "object", "required": ["name", "arguments"], "additionalProperties": False},
    "parallel": False,
}


async def generate(client: TritonClient, prompt: list[int], **params: Any) -> Answer:
    return await response(client, VLLM, prompt, **params)


async def text_of(client: TritonClient, gguf: Path, **params: Any) -> str:
    result = await generate(client, PROMPT, max_tokens=150, **params)
    assert result.finish_reason == "stop"
    return decode(gguf, result.token_ids[:-1])


async def test_what_it_knows_by_heart_is_generated(vllm_client: TritonClient) -> None:
    assert (await generate(vllm_client, QUESTION, temperature=0)).token_ids == SHORT_RECORDING


async def test_log_probabilities_are_those_of_transformers(vllm_client: TritonClient, tiny_model: Path) -> None:
    expected = json.loads(tiny_model.with_name(f"{tiny_model.name}.json").read_text())
    result = await generate(vllm_client, PROMPT, max_tokens=1, temperature=0, logprobs=1, prompt_logprobs=1)
    prompt = result.outputs[0].prompt
    assert prompt is not None
    assert prompt.logprobs == pytest.approx([0.0, *expected["logprobs"]], abs=1e-3)
    assert result.token_ids == [expected["following"]]
    assert result.outputs[0].logprobs == pytest.approx([expected["following_logprob"]], abs=1e-3)


async def test_a_prompt_may_be_text(vllm_client: TritonClient) -> None:
    stream = vllm_client.generate(
        VLLM,
        request_id="test",
        prompt_token_ids=[],
        text_input="<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        params={"temperature": 0},
    )
    by_text = Answer([output async for output in stream])
    assert by_text.usage["prompt_tokens"] == len(QUESTION)
    assert by_text.token_ids == SHORT_RECORDING


@pytest.mark.parametrize("seed", [7, -1, -(2**63), 2**63 - 1])
async def test_a_seed_makes_a_generation_repeatable(vllm_client: TritonClient, seed: int) -> None:
    first, second = [(await generate(vllm_client, PROMPT, max_tokens=16, seed=seed)).token_ids for _ in range(2)]
    other = (await generate(vllm_client, PROMPT, max_tokens=16, seed=8)).token_ids
    assert first == second != other


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
async def test_truncation_leaves_the_most_probable_token(vllm_client: TritonClient, params: dict[str, Any]) -> None:
    greedy = await generate(vllm_client, PROMPT, max_tokens=8, temperature=0)
    truncated = await generate(vllm_client, PROMPT, max_tokens=8, temperature=2, seed=1, **params)
    assert truncated.token_ids == greedy.token_ids


async def test_a_bias_forces_and_forbids_tokens(vllm_client: TritonClient) -> None:
    forced = await generate(vllm_client, PROMPT, max_tokens=3, temperature=0, logit_bias={"42": 100})
    assert forced.token_ids == [42, 42, 42]
    avoided = await generate(vllm_client, STORY, max_tokens=1, temperature=0, logit_bias={"1000": -100})
    assert avoided.token_ids != [1000]


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}])
async def test_penalties_reduce_repetition(vllm_client: TritonClient, penalty: dict[str, float]) -> None:
    biased = {"temperature": 0, "max_tokens": 2, "logit_bias": {"42": 60, "43": 59}}
    assert (await generate(vllm_client, PROMPT, **biased)).token_ids == [42, 42]
    assert (await generate(vllm_client, PROMPT, **biased, **penalty)).token_ids == [42, 43]


async def test_json_follows_its_schema(vllm_client: TritonClient, gguf: Path) -> None:
    value = json.loads(await text_of(vllm_client, gguf, structured_output={"json": SCHEMA}))
    assert value.keys() == {"city", "old"}
    assert isinstance(value["old"], bool)


async def test_text_matches_its_expression(vllm_client: TritonClient, gguf: Path) -> None:
    expression = r"[A-C]{2}-[0-9]{3}"
    assert re.fullmatch(expression, await text_of(vllm_client, gguf, structured_output={"regex": expression}))


@pytest.mark.parametrize("grammar", ['root ::= "oui" | "non"', '%llguidance {}\nstart: "oui" | "non"'])
async def test_text_follows_its_grammar(vllm_client: TritonClient, gguf: Path, grammar: str) -> None:
    assert await text_of(vllm_client, gguf, structured_output={"grammar": grammar}) in ("oui", "non")


async def test_a_call_follows_its_schema(vllm_client: TritonClient, gguf: Path) -> None:
    text = await text_of(vllm_client, gguf, calls=CALLS, structured_output={"regex": "x"}, logit_bias={"104": -100})
    call = re.fullmatch(r"<tool_call>\n?(.*)\n?</tool_call>", text, re.DOTALL)
    assert text == "x" or (call and json.loads(call[1]) == {"name": "weather", "arguments": {}})


@pytest.mark.parametrize(
    "structured_output",
    [
        {"json": {"type": "nonsense"}},
        {"regex": "(a"},
        {"grammar": "root ::= other"},
        {"grammar": "%llguidance {}\nstart: other"},
        {"json": "{"},
        {"regex": ""},
        {"grammar": ""},
    ],
)
async def test_an_invalid_structured_output_is_rejected_and_ends_nothing(
    vllm_client: TritonClient, structured_output: dict[str, Any]
) -> None:
    running = vllm_client.generate(VLLM, request_id="other", prompt_token_ids=STORY, params={"ignore_eos": True})
    await anext(running)
    with pytest.raises(Failure) as rejection:
        await generate(vllm_client, PROMPT, structured_output=structured_output)
    assert (rejection.value.reason, rejection.value.message.field) == (Reason.INVALID_ARGUMENT, "structured_output")
    assert [output async for output in running][-1].finish_reason == "length"


async def test_the_part_of_a_schema_that_is_not_supported_is_named(vllm_client: TritonClient) -> None:
    schema = {"properties": {"name": {"type": "string", "format": "word"}}}
    with pytest.raises(Failure) as rejection:
        await generate(vllm_client, PROMPT, structured_output={"json": schema})
    assert rejection.value.message.id == "schema_part_not_valid"


@pytest.mark.parametrize("expression", ["((a{1,1000}){1,1000}){1,1000}", "(a|b)*a(a|b){60}", r"(\w{1,500}){1,500}"])
async def test_an_explosive_regular_expression_is_followed_or_rejected(
    vllm_client: TritonClient, expression: str
) -> None:
    try:
        result = await generate(vllm_client, PROMPT, structured_output={"regex": expression}, max_tokens=4)
    except Failure as rejection:
        assert rejection.reason is Reason.INVALID_ARGUMENT
    else:
        assert len(result.token_ids) <= 4


async def test_an_unsupported_kind_of_structured_output_is_rejected_by_name(vllm_client: TritonClient) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(vllm_client, PROMPT, structured_output={"structural_tag": {}})
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message.id == "structured_output_kind_not_supported"


@pytest.mark.parametrize("params", [{"stop_token_ids": [49152]}, {"logit_bias": {"49152": 1}}])
async def test_a_token_id_outside_the_vocabulary_is_rejected(vllm_client: TritonClient, params: dict[str, Any]) -> None:
    for prompt, more, unknown in ((QUESTION, params, "49152"), ([1, -1], {}, "-1")):
        with pytest.raises(Failure) as rejection:
            await generate(vllm_client, prompt, **more)
        assert rejection.value.message.id == "engine_token_id_unknown"
        assert rejection.value.message.parameters["value"] == unknown


async def test_a_prompt_in_the_cache_is_not_read_again(vllm_client: TritonClient) -> None:
    prompt = [10_000 + i for i in range(64)]
    first = await generate(vllm_client, prompt, max_tokens=2, cache_salt="reader")
    second = await generate(vllm_client, [*prompt, 7, 8], max_tokens=2, cache_salt="reader")
    assert first.usage["cached_tokens"] == 0
    assert second.usage["cached_tokens"] == len(prompt)
    assert next(output.cached_tokens for output in second.outputs if output.token_ids) == len(prompt)
    load = (await vllm_client.describe(VLLM))["load"]
    assert 0 < load["prefix_cache_hit_rate"] < 1


async def test_requests_with_different_salts_share_no_cache(vllm_client: TritonClient) -> None:
    prompt = [20_000 + i for i in range(64)]
    await generate(vllm_client, prompt, max_tokens=2, cache_salt="one")
    other = await generate(vllm_client, prompt, max_tokens=2, cache_salt="two")
    assert other.usage["cached_tokens"] == 0


async def test_the_use_of_the_cache_is_that_of_running_requests(vllm_client: TritonClient) -> None:
    running = vllm_client.generate(VLLM, request_id="test", prompt_token_ids=STORY, params={"ignore_eos": True})
    async with contextlib.aclosing(running):
        await anext(running)

        async def is_used() -> bool:
            return bool((await vllm_client.describe(VLLM))["load"]["kv_cache_use"])

        await until(is_used)
    await until(lambda: is_idle(vllm_client))
    assert (await vllm_client.describe(VLLM))["load"]["kv_cache_use"] == 0


async def test_a_slow_reader_gets_all_tokens_in_few_responses(vllm_client: TritonClient) -> None:
    stream = vllm_client.generate(
        VLLM, request_id="test", prompt_token_ids=STORY, params={"ignore_eos": True, "logprobs": 1}, window=4
    )
    outputs: list[EngineOutput] = [await anext(stream)]
    await until(lambda: is_idle(vllm_client))
    outputs += [output async for output in stream]
    assert len(outputs) <= 4 + 1
    assert sum(len(output.token_ids) for output in outputs) == CONTEXT_LENGTH - len(STORY)
    assert all(len(output.logprobs or ()) == len(output.token_ids) for output in outputs)


async def test_cancelling_at_any_moment_leaves_the_engine_alive(vllm_client: TritonClient) -> None:
    async def cancelled_after(milliseconds: float) -> None:
        task = asyncio.create_task(generate(vllm_client, STORY, max_tokens=20, ignore_eos=True))
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(3):
        await asyncio.gather(*(cancelled_after(moment * 2) for moment in range(30)))
    await until(lambda: is_idle(vllm_client))
    assert (await generate(vllm_client, QUESTION, temperature=0)).token_ids == SHORT_RECORDING


@pytest.fixture
async def fragile(tiny_model: Path, tmp_path: Path) -> AsyncIterator[tuple[Server, TritonClient]]:
    async with vllm_models.serving(tmp_path, {"fragile": {"model": str(tiny_model), **LIMITS}}) as running:
        yield running


async def test_a_dead_engine_is_not_ready_and_reports_it(fragile: tuple[Server, TritonClient]) -> None:
    server, client = fragile
    running = client.generate("fragile", request_id="test", prompt_token_ids=STORY, params={"ignore_eos": True})
    await anext(running)
    for process in psutil.Process(server.stub("fragile")).children(recursive=True):
        if any("spawn_main" in part or "EngineCore" in part for part in process.cmdline()):
            process.kill()

    async def drained() -> None:
        async for _ in running:
            pass

    async def is_dead() -> bool:
        try:
            await client.describe("fragile")
        except Failure as failure:
            return failure.reason is Reason.ENGINE_FAILED
        return False

    with pytest.raises(Failure) as failure:
        await drained()
    assert failure.value.reason is Reason.ENGINE_FAILED
    await until(is_dead)
    with pytest.raises(Failure, match="it must be restarted"):
        await response(client, "fragile", STORY)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tensor_paralel_size": 2}, "has no argument 'tensor_paralel_size'"),
        ({"max_num_seqs": 3}, "max_num_seqs is the engine's own; use slots"),
        ({"structured_outputs_config": {"backend": "auto"}}, "it must be guidance or xgrammar"),
    ],
)
def test_a_failed_start_reports_what_the_operator_must_change(
    tiny_model: Path, tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    model = {"model": str(tiny_model), **LIMITS, **arguments}
    with launched(tmp_path, {"m": ("vllm", model)}, python=python_of(vllm_models.ENVIRONMENT)) as server:
        assert server.process.wait(vllm_models.LOAD_SECONDS) != 0
        explanation = triton.explain(server.log.read_text())
    assert problem in explanation
    assert explanation.startswith("model m: engine vllm: ")


async def is_idle(client: TritonClient) -> bool:
    load = (await client.describe(VLLM))["load"]
    return bool(load["in_flight"] == load["queued"] == 0)
