"""Prompts without a template: several in one request, gaps between two texts, and log probabilities of their tokens."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.model.catalog import FillInMiddleSpec
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt, render
from services.inference.request.prompts import render_all
from services.inference.request.request_checks import RequestLimits, check
from services.runtime.failure import Failure
from services.worker.triton_messages import EngineOutput, PromptLogprobs
from tests.unit.inference.running_worker import Worker
from tests.unit.inference.scripted import MODEL, PARAMETERS, EngineRequest, output

LIMITS = RequestLimits(max_choices=4, max_prompt_bytes=100)
USER = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])


def further(*prompts: str | list[int]) -> list[pb.FurtherPrompt]:
    return [
        pb.FurtherPrompt(text=prompt)
        if isinstance(prompt, str)
        else pb.FurtherPrompt(token_ids=pb.TokenIds(ids=prompt))
        for prompt in prompts
    ]


async def test_all_prompts_are_rendered_in_their_order(model: ServedModel) -> None:
    request = pb.GenerateRequest(model=MODEL, prompt="one", further_prompts=further([5, 6], "two"))
    prompts = await render_all(request, model)
    encode = model.tokenizer.encode
    assert [prompt.token_ids for prompt in prompts] == [encode("one"), [5, 6], encode("two")]


async def test_each_prompt_has_n_choices_with_the_seeds_of_its_own_request(worker: Worker) -> None:
    def script(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        async def one() -> AsyncGenerator[EngineOutput, None]:
            yield output(request.prompt_token_ids, finish="length")

        return one()

    worker.triton.script = script
    worker.triton.supported = PARAMETERS
    encode = worker.model.tokenizer.encode
    request = pb.GenerateRequest(
        model=MODEL, prompt="one", further_prompts=further("two"), n=2, sampling=pb.SamplingParams(seed=7, max_tokens=9)
    )
    events = [event async for response in worker.stub.Generate(request) for event in response.events]
    texts = ["", "", "", ""]
    for event in events:
        texts[event.delta.index] += event.delta.content
    assert texts == ["one", "one", "two", "two"]
    prompt_tokens = len(encode("one")) + len(encode("two"))
    assert events[0].started.prompt_tokens == prompt_tokens
    assert events[-1].usage.prompt_tokens == prompt_tokens
    assert sorted(request.params["seed"] for request in worker.triton.requests) == [7, 7, 8, 8]
    assert len({request.request_id for request in worker.triton.requests}) == 4
    await asyncio.gather(*(request.closed.wait() for request in worker.triton.requests))


@pytest.mark.parametrize(
    ("fields", "field", "message_id"),
    [
        ({"prompt": "a", "further_prompts": further(*"bcde")}, "further_prompts", "too_many_entries"),
        ({"prompt": "a", "n": 2, "further_prompts": further(*"bc")}, "further_prompts", "too_many_entries"),
        ({"prompt": "a", "further_prompts": further("")}, "further_prompts[0]", "text_empty"),
        ({"prompt": "a", "further_prompts": further([])}, "further_prompts[0]", "text_empty"),
        ({"prompt": "a", "further_prompts": further([10**6])}, "further_prompts[0].token_ids", "token_id_unknown"),
        ({"prompt": "a", "further_prompts": further("b" * 100)}, "prompt", "too_many_bytes"),
        ({"messages": [USER], "further_prompts": further("b")}, "further_prompts", "mutually_exclusive"),
        ({"messages": [USER], "suffix": "b"}, "suffix", "mutually_exclusive"),
        ({"messages": [USER], "logprobs": pb.LogprobsOptions(prompt=True)}, "logprobs.prompt", "mutually_exclusive"),
        ({"prompt": "a", "n": 2, "logprobs": pb.LogprobsOptions(prompt=True)}, "logprobs.prompt", "mutually_exclusive"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "suffix_not_supported"),
        ({"prompt_token_ids": [1], "suffix": "b"}, "suffix", "suffix_needs_text"),
        ({"prompt": "a", "suffix": "b", "further_prompts": further("c")}, "suffix", "suffix_needs_text"),
        ({"prompt": "a", "logprobs": pb.LogprobsOptions(prompt=True)}, "logprobs.prompt", "engine_lacks_field"),
    ],
)
def test_invalid_prompts_are_rejected_by_field(
    model: ServedModel, fields: dict[str, Any], field: str, message_id: str
) -> None:
    with pytest.raises(Failure) as rejection:
        check(pb.GenerateRequest(model=MODEL, **fields), model, LIMITS)
    assert (rejection.value.message.field, rejection.value.message.id) == (field, message_id)


async def test_a_gap_is_between_the_models_tokens_and_the_texts_have_none(model: ServedModel) -> None:
    tokens = FillInMiddleSpec(prefix="<|im_start|>", suffix="<|im_end|>", middle="<|endoftext|>")
    spec = model.spec.model_copy(update={"fill_in_middle": tokens, "control_tokens_in_prompts": True})
    filler = dataclasses.replace(model, spec=spec)
    request = pb.GenerateRequest(model=MODEL, prompt="def f():<|im_end|>", suffix="return x")
    check(request, filler, LIMITS)
    prompt = await render(request, filler)
    assert prompt.text == "<|im_start|>def f():<|im_end|><|im_end|>return x<|endoftext|>"
    added = filler.tokenizer.added_id
    control = [token_id for token_id in prompt.token_ids if token_id in filler.tokenizer.control_ids]
    assert control == [added("<|im_start|>"), added("<|im_end|>"), added("<|endoftext|>")]
    assert prompt.token_ids[-1] == added("<|endoftext|>")


def test_every_token_of_prompt_and_continuation_is_reported_once(model: ServedModel) -> None:
    request = pb.GenerateRequest(model=MODEL, prompt="x", logprobs=pb.LogprobsOptions(top=1, prompt=True))
    choice = Choice(0, request, model, Prompt("", [5, 6], 100))
    half, *_ = model.tokenizer.encode("👨")
    first = dataclasses.replace(
        output([half], logprobs=[-1.0], top=[[(7, -0.5)]]),
        prompt=PromptLogprobs([0.0, -2.0], [[], [9]], [[], [-0.25]]),
    )
    last = output([2], logprobs=[-3.0], top=[[(2, -3.0)]], finish="stop")
    events = []
    for one in (first, last):
        texts = choice.detokenize(one)
        events += choice.events(one, texts, choice.parse(texts, at_end=one.finish_reason is not None))
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert [(e.token_id, e.logprob) for delta in deltas for e in delta.prompt_logprobs] == [(5, 0.0), (6, -2.0)]
    assert [[(top.token_id, top.logprob) for top in e.top] for e in deltas[0].prompt_logprobs] == [[], [(9, -0.25)]]
    assert [(e.token_id, e.logprob) for delta in deltas for e in delta.logprobs] == [(half, -1.0), (2, -3.0)]
