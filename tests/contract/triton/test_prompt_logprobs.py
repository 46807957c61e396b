"""Log probabilities of a prompt's tokens, from the engines that have them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.runtime.failure import Failure, Reason
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.contract.triton.subjects import QUESTION, REPLAY, SMOLLM2, STORY, TRTLLM_12, VLLM
from tests.support import vllm_models

REAL = pytest.param(VLLM, marks=vllm_models.MARKS)


@pytest.fixture
def serving(model: str, request: pytest.FixtureRequest) -> TritonClient:
    """The client of the server that has `model`."""
    client: TritonClient = request.getfixturevalue("vllm_client" if model == VLLM else "client")
    return client


async def outputs_of(client: TritonClient, model: str, prompt: list[int], **params: Any) -> list[EngineOutput]:
    request = client.generate(model, request_id=f"scored-{id(params)}", prompt_token_ids=prompt, params=params)
    return [output async for output in request if not output.is_progress]


def prompt_of(outputs: list[EngineOutput]) -> Any:
    (prompt,) = [output.prompt for output in outputs if output.prompt is not None]
    assert outputs[0].prompt is prompt
    return prompt


@pytest.mark.parametrize("model", [SMOLLM2, REPLAY, REAL])
async def test_each_token_of_the_prompt_has_one_and_the_first_has_none(serving: TritonClient, model: str) -> None:
    prompt = prompt_of(await outputs_of(serving, model, QUESTION, max_tokens=3, prompt_logprobs=2))
    assert len(prompt.logprobs) == len(prompt.top_token_ids) == len(prompt.top_logprobs) == len(QUESTION)
    assert (prompt.logprobs[0], prompt.top_token_ids[0]) == (0.0, [])
    assert all(1 <= len(top) <= 2 for top in prompt.top_token_ids[1:])


@pytest.mark.parametrize("model", [SMOLLM2, REAL])
async def test_without_alternatives_only_the_tokens_have_them(serving: TritonClient, model: str) -> None:
    prompt = prompt_of(await outputs_of(serving, model, STORY, max_tokens=1, prompt_logprobs=0))
    assert (len(prompt.logprobs), prompt.top_token_ids) == (len(STORY), None)


async def test_a_prompt_is_as_probable_as_the_same_tokens_were_when_they_were_generated(client: TritonClient) -> None:
    """The prompt is longer than a step, and read beside another request; nothing of it comes from the cache."""
    generated = await outputs_of(client, SMOLLM2, STORY, max_tokens=100, temperature=0, ignore_eos=True, logprobs=1)
    token_ids = [token_id for output in generated for token_id in output.token_ids]
    values = [value for output in generated for value in output.logprobs or ()]
    scored, other = await asyncio.gather(
        outputs_of(client, SMOLLM2, [*STORY, *token_ids], max_tokens=2, prompt_logprobs=1, logprobs=1),
        outputs_of(client, SMOLLM2, QUESTION, max_tokens=30, temperature=0),
    )
    assert other[-1].finish_reason in ("stop", "length")
    prompt = prompt_of(scored)
    assert prompt.logprobs[len(STORY) :] == pytest.approx(values, abs=0.1)
    # Greedy tokens are the most probable ones.
    tops = [top for (top,) in prompt.top_token_ids[len(STORY) :]]
    assert sum(top == token_id for top, token_id in zip(tops, token_ids, strict=True)) >= len(token_ids) - 2
    assert scored[-1].usage is not None
    assert scored[-1].usage["cached_tokens"] == 0


async def test_an_engine_without_them_rejects_the_request(client: TritonClient) -> None:
    assert "prompt_logprobs" not in (await client.describe(TRTLLM_12))["supported_parameters"]
    with pytest.raises(Failure) as rejection:
        await outputs_of(client, TRTLLM_12, STORY, max_tokens=1, prompt_logprobs=1)
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
