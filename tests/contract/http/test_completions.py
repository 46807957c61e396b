"""POST /completions, OpenAI's legacy API for text, parsed by OpenAI's SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage

URL = "/api/completions"


@pytest.fixture
async def sdk(http: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield a client that validates every response. `http` waits until the gateway has found the worker."""
    api_key = http.headers["authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(
        base_url=f"{http.base_url}/api", api_key=api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def lenient(sdk: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Return a client for streams: the SDK's types require a finish reason in every chunk; OpenAI sends only one."""
    return sdk.with_options(_extra_kwargs={"_strict_response_validation": False})


def token(text: str, logprob: float, *top: tuple[str, float]) -> pb.Event:
    entry = pb.TokenLogprob(
        token=text,
        token_bytes=text.encode(),
        logprob=logprob,
        top=[pb.TopLogprob(token=other, logprob=value) for other, value in top],
    )
    return pb.Event(delta=pb.Delta(content=text, token_count=1, logprobs=[entry]))


async def test_a_prompt_is_sent_to_the_worker_without_a_template(
    sdk: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content(" سلام")], [content("\u200cها")], [finish(pb.FINISH_REASON_LENGTH), usage()]]
    found = await sdk.completions.create(model=MODEL, prompt="گفت:", stop=["\n"], temperature=0.5)
    assert (found.object, found.id[:5], found.choices[0].text) == ("text_completion", "cmpl-", " سلام\u200cها")
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.total_tokens == 5
    asked = worker.requests[-1]
    assert (asked.prompt, asked.sampling.max_tokens, list(asked.sampling.stop)) == ("گفت:", 16, ["\n"])
    assert not asked.messages
    assert asked.reasoning.in_content, "reasoning is a part of the text"


async def test_a_stream_of_two_choices_begins_each_with_the_prompt(
    lenient: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.script = [
        [started(), content("a", 0), content("b", 1)],
        [content("c", 0), finish(index=0), finish(pb.FINISH_REASON_LENGTH, 1), usage(3)],
    ]
    chunks = [
        chunk
        async for chunk in await lenient.completions.create(
            model=MODEL, prompt=["One "], n=2, echo=True, stream=True, stream_options={"include_usage": True}
        )
    ]
    texts, reasons = ["", ""], ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert (texts, reasons) == (["One ac", "One b"], ["stop", "length"])
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [3]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_have_the_offset_of_each_token(
    sdk: openai.AsyncOpenAI, lenient: openai.AsyncOpenAI, worker: ScriptedWorker, *, stream: bool
) -> None:
    worker.script = [
        [started(), token("ab", -0.5, ("ab", -0.5), ("x", -1.5))],
        [token("c", -0.25), finish(), usage()],
    ]
    asked: Any = await (lenient if stream else sdk).completions.create(
        model=MODEL, prompt="z", logprobs=2, stream=stream
    )
    parts = [chunk async for chunk in asked] if stream else [asked]
    found = [choice.logprobs for part in parts for choice in part.choices if choice.logprobs]
    assert [text for each in found for text in each.tokens] == ["ab", "c"]
    assert [value for each in found for value in each.token_logprobs] == [-0.5, -0.25]
    assert [top for each in found for top in each.top_logprobs] == [{"ab": -0.5, "x": -1.5}, {}]
    assert [offset for each in found for offset in each.text_offset] == [0, 2]
    assert worker.requests[-1].logprobs.top == 2


async def test_a_prompt_may_be_token_ids(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [finish(), usage()]]
    for prompt in ([5, 6, 7], [[5, 6, 7]]):
        response = await http.post(URL, json={"model": MODEL, "prompt": prompt})
        assert response.status_code == 200
        assert list(worker.requests[-1].prompt_token_ids) == [5, 6, 7]


@pytest.mark.parametrize(
    ("fields", "param", "message_id"),
    [
        ({}, "prompt", "field_missing"),
        ({"prompt": ""}, "prompt", "text_empty"),
        ({"prompt": ["a", "b"]}, "prompt", "several_prompts_in_one_field"),
        ({"prompt": 5}, "prompt", "wrong_type"),
        ({"prompt": [1, -1]}, "prompt[1]", "out_of_range"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "field_not_supported"),
        ({"prompt": "a", "best_of": 3}, "best_of", "best_of_is_not_n"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "out_of_range"),
        ({"prompt": "a", "logprobs": 1, "echo": True}, "echo", "mutually_exclusive"),
        ({"prompt": [1], "echo": True}, "echo", "echo_of_token_ids"),
    ],
)
async def test_unsupported_values_are_rejected(
    http: httpx.AsyncClient, worker: ScriptedWorker, fields: dict[str, Any], param: str, message_id: str
) -> None:
    response = await http.post(URL, json={"model": MODEL, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert response.headers["x-error-message-id"] == message_id
    assert not worker.requests


async def test_unknown_fields_are_reported(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [finish(), usage()]]
    response = await http.post(
        URL, json={"model": MODEL, "prompt": "a", "user": "u", "messages": [1], "tools": 1, "zeta": []}
    )
    assert response.headers["x-ignored-params"] == "messages,tools"
