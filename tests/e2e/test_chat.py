"""OpenAI's own SDK, with only base_url and api_key set, against the real model."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.stack import RunningStack
from tests.support.messages import message_id_of
from tests.support.repository import ROOT

MODEL = "smollm2-135m"
CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
PERSIAN = [
    {"role": "system", "content": "همیشه به فارسی پاسخ بده."},
    {"role": "user", "content": "سلام! می‌خواهم دربارهٔ آسمان بدانم 👨‍👩‍👧‍👦"},
]


def test_a_chat_completion_has_a_message_a_finish_reason_and_usage(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=30)
    assert "Paris" in (response.choices[0].message.content or "")
    assert response.choices[0].finish_reason == "stop"
    assert response.model == MODEL
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


def test_a_stream_yields_the_same_text_as_a_whole_response(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_tokens=30, seed=1)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=CAPITAL,
            temperature=0,
            max_tokens=30,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_a_long_response_arrives_in_many_deltas(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a long story about a lighthouse."}],
            max_tokens=60,
            stream=True,
        )
    )
    assert sum(1 for chunk in chunks if chunk.choices[0].delta.content) >= 20


def test_max_tokens_limits_the_tokens_exactly_with_the_finish_reason_length(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, max_completion_tokens=7, extra_body={"ignore_eos": True}
    )
    assert response.choices[0].finish_reason == "length"
    assert response.usage is not None
    assert response.usage.completion_tokens == 7


def test_a_stop_string_ends_the_response_and_is_not_part_of_it(client: openai.OpenAI) -> None:
    count = [{"role": "user", "content": "Count from 1 to 9, like this: 1, 2, 3"}]
    whole = client.chat.completions.create(model=MODEL, messages=count, temperature=0, max_tokens=60)
    text = whole.choices[0].message.content or ""
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    stopped = client.chat.completions.create(model=MODEL, messages=count, temperature=0, max_tokens=60, stop=[stop])
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_persian_text_is_intact_and_every_token_is_counted(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=PERSIAN,
            max_tokens=120,
            temperature=0.7,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert re.search("[\u0600-\u06ff]", "".join(deltas)), "the model does not write Persian letters"
    assert not any("\ufffd" in delta for delta in deltas)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 120


async def test_concurrent_callers_receive_their_own_responses(async_client: openai.AsyncOpenAI) -> None:
    async def capital(country: str) -> str:
        response = await async_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"What is the capital of {country}? Answer in one word."}],
            temperature=0,
            max_tokens=30,
        )
        return response.choices[0].message.content or ""

    responses = await asyncio.gather(*(capital(c) for c in ("France", "Italy", "Japan", "Germany") * 3))
    for response, expected in zip(responses, ("Paris", "Rome", "Tokyo", "Berlin") * 3, strict=True):
        assert expected in response


def test_models_can_be_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    model = client.models.retrieve(MODEL)
    assert model.object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("qwen9")
    assert caught.value.code == "model_not_found"


def test_the_api_is_also_served_under_v1(stack: RunningStack) -> None:
    with openai.OpenAI(base_url=stack.url.replace("/api", "/v1"), api_key=stack.api_key) as client:
        assert MODEL in [model.id for model in client.models.list()]


def test_a_prompt_longer_than_the_context_is_rejected_with_the_context_length(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.code == "context_length_exceeded"
    assert message_id_of(caught.value.response) == "context_full"
    assert "2048" in str(caught.value)


def test_a_wrong_key_and_an_unknown_model_have_their_own_error_codes(
    stack: RunningStack, client: openai.OpenAI
) -> None:
    with (
        openai.OpenAI(base_url=stack.url, api_key="vlx_wrong", max_retries=0) as other_client,
        pytest.raises(openai.AuthenticationError) as rejected,
    ):
        other_client.models.list()
    assert rejected.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-7", messages=CAPITAL)
    assert missing.value.code == "model_not_found"
    assert message_id_of(missing.value.response) == "model_not_found_or_allowed"
    assert "gpt-7" in str(missing.value)


def test_the_curl_command_of_the_welcome_works_as_printed(stack: RunningStack) -> None:
    command = stack.welcome[stack.welcome.index("curl -") :].split("\n\n")[0]
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    events = [line for line in result.stdout.splitlines() if line]
    assert all(event.startswith("data: ") for event in events)
    assert events[-1] == "data: [DONE]"
    assert len(events) > 5


def test_the_example_of_the_readme_prints_responses(stack: RunningStack, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "from openai" in block)
    (tmp_path / ".run").symlink_to(stack.directory)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code.replace("http://127.0.0.1:8000/api", stack.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) > 5


def test_the_clients_request_id_is_used_and_returned(stack: RunningStack) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}", "x-request-id": "my-request.1"}
    response = httpx.post(
        f"{stack.url}/chat/completions",
        headers=headers,
        json={"model": MODEL, "messages": CAPITAL, "max_tokens": 1},
        timeout=30,
    )
    assert response.headers["x-request-id"] == "my-request.1"
    assert "my-request.1" in (stack.directory / "logs/inference.log").read_text()
