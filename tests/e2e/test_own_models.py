"""`vilix up --gguf ID=PATH` and `--demo-thinking`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import grpc
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel
from tokenizers import Tokenizer
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from tests.e2e.stack import RunningStack, up, vilix
from tests.support import models, qwen3_gguf
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.messages import message_id_of
from tests.support.repository import ROOT

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 120)
DEMO = "replay-thinking"
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}

DAY = {"type": "object", "properties": {"day": {"enum": ["mon", "tue"]}}, "required": ["day"]}


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    directory = tmp_path_factory.mktemp("own")
    qwen3_gguf.write(directory / "tiny.gguf", models.qwen3())
    with up(directory / "run", "--demo-thinking", "--gguf", f"qwen3-8b={directory / 'tiny.gguf'}") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def own_client(own_stack: RunningStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=own_stack.url, api_key=own_stack.api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_own_weights_are_served_under_an_id_of_the_catalog(own_client: openai.OpenAI) -> None:
    response = own_client.chat.completions.create(
        model="qwen3-8b", messages=[{"role": "user", "content": "سلام دنیا"}], max_tokens=8, temperature=0
    )
    assert response.model == "qwen3-8b"
    assert response.usage is not None
    assert response.usage.completion_tokens == 8
    assert response.choices[0].finish_reason == "length"
    again = own_client.chat.completions.create(
        model="qwen3-8b", messages=[{"role": "user", "content": "سلام دنیا"}], max_tokens=8, temperature=0
    )
    assert again.choices[0].message == response.choices[0].message


def test_the_name_of_own_weights_is_listed_and_a_difference_is_reported_at_the_start(
    own_stack: RunningStack, own_client: openai.OpenAI
) -> None:
    assert own_client.models.retrieve("qwen3-8b").model_dump()["checkpoint"] == "tiny.gguf"
    (warning,) = (line for line in own_stack.welcome.splitlines() if line.startswith("! --gguf qwen3-8b="))
    assert "the file is tiny.gguf, architecture qwen3, and qwen3-8b stands for Qwen3-8B (qwen3)" in warning
    assert "qwen3-8b: your file tiny.gguf" in own_stack.welcome


def test_own_weights_get_the_token_ids_of_the_real_tokenizer(own_stack: RunningStack) -> None:
    text = "نیم‌فاصله، 2026 and 👨‍👩‍👧‍👦 — it's café"
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=text)])
    with grpc.insecure_channel(own_stack.state["inference_target"]) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        request = pb.RenderPromptRequest(request=pb.GenerateRequest(model="qwen3-8b", messages=[message]))
        rendered = stub.RenderPrompt(request, timeout=30)
    assert text in rendered.prompt
    real = Tokenizer.from_file(str(models.qwen3() / "tokenizer.json"))
    assert list(rendered.token_ids) == real.encode(rendered.prompt, add_special_tokens=False).ids


def test_the_demo_streams_reasoning_and_an_answer(own_client: openai.OpenAI) -> None:
    reasoning, content = "", ""
    for chunk in own_client.chat.completions.create(
        model=DEMO, messages=[{"role": "user", "content": "سلام"}], stream=True
    ):
        reasoning += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
        content += chunk.choices[0].delta.content or ""
    assert "کاربر سلام کرده" in reasoning
    assert "ضبط‌شده" in content
    assert "think>" not in reasoning + content
    assert "�" not in reasoning + content


def test_the_demos_reasoning_can_be_turned_off(own_client: openai.OpenAI) -> None:
    response = own_client.chat.completions.create(
        model=DEMO,
        messages=[{"role": "user", "content": "سلام"}],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )
    assert getattr(response.choices[0].message, "reasoning_content", None) is None
    assert "ضبط‌شده" in (response.choices[0].message.content or "")


@pytest.mark.parametrize("model", [DEMO, "qwen3-8b"])
@pytest.mark.parametrize("budget", [8, 20])
def test_reasoning_ends_at_its_budget_and_the_answer_follows(
    own_client: openai.OpenAI, model: str, budget: int
) -> None:
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "سلام"}],
        "max_tokens": 60,
        "logprobs": True,
        "temperature": 0,
        "extra_body": {"thinking_token_budget": budget},
    }
    response = own_client.chat.completions.create(**request)
    assert response.usage is not None
    assert response.usage.completion_tokens_details is not None
    assert response.usage.completion_tokens_details.reasoning_tokens == budget
    assert response.usage.completion_tokens == 60
    assert response.choices[0].finish_reason == "length"
    message: Any = response.choices[0].message
    assert message.reasoning_content
    assert message.content
    assert "think>" not in message.reasoning_content + message.content
    reasoning, text = "", ""
    for chunk in own_client.chat.completions.create(**request, stream=True):
        delta: Any = chunk.choices[0].delta
        reasoning += getattr(delta, "reasoning_content", None) or ""
        text += delta.content or ""
    assert reasoning == message.reasoning_content
    assert text == message.content


def test_a_budget_larger_than_the_reasoning_changes_nothing(own_client: openai.OpenAI) -> None:
    reasoning, contents = set(), set()
    for body in ({}, {"thinking_token_budget": 4000}):
        response: Any = own_client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": "سلام"}], extra_body=body
        )
        assert response.choices[0].finish_reason == "stop"
        reasoning.add(response.choices[0].message.reasoning_content)
        contents.add(response.choices[0].message.content)
    assert len(reasoning) == len(contents) == 1


def test_a_reasoning_budget_of_0_turns_reasoning_off(own_client: openai.OpenAI) -> None:
    response = own_client.chat.completions.create(
        model=DEMO, messages=[{"role": "user", "content": "سلام"}], extra_body={"thinking_token_budget": 0}
    )
    assert getattr(response.choices[0].message, "reasoning_content", None) is None
    assert response.usage is not None
    assert response.usage.completion_tokens_details is not None
    assert response.usage.completion_tokens_details.reasoning_tokens == 0


def test_structured_output_applies_to_the_answer_after_reasoning(own_client: openai.OpenAI) -> None:
    response: Any = own_client.chat.completions.create(
        model="qwen3-8b",
        messages=[{"role": "user", "content": "?"}],
        max_tokens=120,
        extra_body={"guided_choice": ["بله", "نه"], "thinking_token_budget": 12},
    )
    assert response.choices[0].message.content in ("بله", "نه")
    assert response.choices[0].message.reasoning_content
    assert response.choices[0].finish_reason == "stop"
    assert response.usage.completion_tokens_details.reasoning_tokens == 12


def test_a_required_tool_call_is_made_after_reasoning(own_client: openai.OpenAI) -> None:
    response: Any = own_client.chat.completions.create(
        model="qwen3-8b",
        messages=[{"role": "user", "content": "?"}],
        tools=TOOLS,
        tool_choice="required",
        max_tokens=200,
        extra_body={"thinking_token_budget": 12},
    )
    assert response.choices[0].finish_reason == "tool_calls"
    (call,) = response.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("تهران", "شیراز")
    assert response.choices[0].message.reasoning_content


def test_invalid_structured_output_is_rejected_before_the_reasoning(own_client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="regex"):
        own_client.chat.completions.create(
            model="qwen3-8b",
            messages=[{"role": "user", "content": "?"}],
            stream=True,
            max_tokens=50,
            extra_body={"guided_regex": "(((", "enable_thinking": True},
        )


def test_reasoning_that_uses_all_tokens_leaves_no_answer(own_client: openai.OpenAI) -> None:
    response: Any = own_client.chat.completions.create(
        model="qwen3-8b",
        messages=[{"role": "user", "content": "?"}],
        max_tokens=10,
        extra_body={"guided_choice": ["بله", "نه"], "enable_thinking": True},
    )
    assert response.choices[0].finish_reason == "length"
    assert not response.choices[0].message.content


def test_the_demo_calls_a_tool_and_uses_its_result(own_client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "هوای تهران چطور است؟"}]
    first = own_client.chat.completions.create(model=DEMO, messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "تهران"}
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": '{"celsius": 24}'}]
    response = own_client.chat.completions.create(model=DEMO, messages=messages, tools=[WEATHER])
    assert response.choices[0].finish_reason == "stop"
    assert "۲۴" in (response.choices[0].message.content or "")


CITY: Any = {"type": "object", "properties": {"city": {"enum": ["تهران", "شیراز"]}}, "required": ["city"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {**CITY, "additionalProperties": False}}}
    for name in ("get_weather", "get_time")
]
GET_TIME: Any = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(("choice", "names"), [("required", {"get_weather", "get_time"}), (GET_TIME, {"get_time"})])
@pytest.mark.parametrize("stream", [False, True])
def test_even_random_weights_make_a_required_tool_call(
    own_client: openai.OpenAI, choice: Any, names: set[str], stream: bool
) -> None:
    request: dict[str, Any] = {
        "model": "qwen3-8b",
        "messages": [{"role": "user", "content": "?"}],
        "tools": TOOLS,
        "tool_choice": choice,
        "max_tokens": 200,
    }
    if stream:
        with own_client.chat.completions.stream(**request) as events:
            response: Any = events.get_final_completion()
    else:
        response = own_client.chat.completions.create(**request)
    (call,) = response.choices[0].message.tool_calls or []
    assert call.function.name in names
    assert json.loads(call.function.arguments)["city"] in ("تهران", "شیراز")
    assert response.choices[0].finish_reason == "tool_calls"
    assert not response.choices[0].message.content
    assert getattr(response.choices[0].message, "reasoning_content", None) is None


class Place(BaseModel):
    """A city."""

    city: Literal["تهران", "شیراز"]


class Unit(StrEnum):
    """A unit of temperature."""

    CELSIUS = "C"
    KELVIN = "K"


class Weather(BaseModel):
    """The weather of a place."""

    place: Place
    others: tuple[Place, Place]
    unit: Unit


def test_arguments_of_nested_classes_are_parsed_into_them(own_client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Weather)
    assert "$defs" in tool["function"].get("parameters", {})
    choice: Any = {"type": "function", "function": {"name": "Weather"}}
    for more in (choice, "required"):
        response = own_client.chat.completions.parse(
            model="qwen3-8b",
            messages=[{"role": "user", "content": "?"}],
            tools=[tool, openai.pydantic_function_tool(Place)],
            tool_choice=more,
            max_tokens=400,
        )
        (call,) = response.choices[0].message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, Weather if more == choice else Weather | Place)
        assert response.choices[0].finish_reason == "tool_calls"


@pytest.mark.clients
def test_langchain_gets_structured_output_by_a_tool_call(own_stack: RunningStack) -> None:
    program = Path(__file__).with_name("clients") / "langchain_calls.py"
    environment = {**os.environ, "VILIX_URL": own_stack.url, "VILIX_API_KEY": own_stack.api_key}
    command = [python_of("clients"), "-W", "ignore", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_after_reasoning(own_client: openai.OpenAI, stream: bool) -> None:
    request: dict[str, Any] = {"model": DEMO, "messages": [{"role": "user", "content": "سلام"}]}
    whole: Any = own_client.chat.completions.create(**request).choices[0].message
    stop = "بنویسید:\n\n```"
    if stream:
        with own_client.chat.completions.stream(**request, stop=[stop, "never"]) as events:
            response: Any = events.get_final_completion()
    else:
        response = own_client.chat.completions.create(**request, stop=[stop, "never"])
    message = response.choices[0].message
    assert message.content == whole.content.partition(stop)[0] != whole.content
    assert message.reasoning_content == whole.reasoning_content
    assert response.choices[0].finish_reason == "stop"


def test_a_required_call_that_is_cut_off_is_a_partial_call(own_client: openai.OpenAI) -> None:
    # Random weights may write every character as a token of its own, or a whole call in a few long tokens.
    enough = 60
    for most in (1, 4, 8, 14, enough):
        response = own_client.chat.completions.create(
            model="qwen3-8b",
            messages=[{"role": "user", "content": "?"}],
            tools=TOOLS,
            tool_choice="required",
            max_tokens=most,
        )
        is_cut = response.choices[0].finish_reason == "length"
        assert response.choices[0].finish_reason in ("length", "tool_calls")
        assert not response.choices[0].message.content
        calls = response.choices[0].message.tool_calls or []
        # The names of both functions begin alike: a call has a name once one of them is the only possible one.
        assert len(calls) == 1 or (not calls and is_cut and most < enough)
        for call in calls:
            assert isinstance(call, ChatCompletionMessageFunctionToolCall)
            assert call.function.name in ("get_weather", "get_time")
            if not is_cut:
                assert isinstance(json.loads(call.function.arguments), dict)


@pytest.mark.parametrize("budget", [0, 5])
def test_tools_beside_a_format_are_called_or_the_format_is_followed(own_client: openai.OpenAI, budget: int) -> None:
    for _ in range(3):
        response = own_client.chat.completions.create(
            model="qwen3-8b",
            messages=[{"role": "user", "content": "?"}],
            tools=TOOLS,
            response_format={"type": "json_schema", "json_schema": {"name": "day", "schema": DAY}},
            max_tokens=200,
            extra_body={"thinking_token_budget": budget},
        )
        message = response.choices[0].message
        if message.tool_calls:
            assert not message.content
        else:
            assert json.loads(message.content or "")["day"] in ("mon", "tue")


@pytest.mark.parametrize(
    ("fields", "message_id"),
    [
        ({"tool_choice": "required"}, "call_required_without_tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_unknown"),
        (
            {"tools": TOOLS, "extra_body": {"guided_grammar": 'root ::= "a"'}},
            "structured_output_with_tools",
        ),
    ],
)
def test_conflicting_fields_are_rejected(own_client: openai.OpenAI, fields: dict[str, Any], message_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as rejection:
        own_client.chat.completions.create(
            model="qwen3-8b", messages=[{"role": "user", "content": "?"}], max_tokens=5, **fields
        )
    assert message_id_of(rejection.value.response) == message_id


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("qwen3-8b", "the value must be ID=PATH"),
        ("qwen3-8b=/nowhere.gguf", "there is no file /nowhere.gguf"),
        (f"nobody={ROOT / 'README.md'}", "there is no model 'nobody' in the catalog"),
        (f"qwen3-8b={ROOT / 'README.md'}", "cannot be read as GGUF"),
    ],
)
def test_an_unusable_gguf_option_is_reported_in_one_line(tmp_path: Path, option: str, problem: str) -> None:
    result = vilix("up", "--gguf", option, "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: --gguf")
    assert problem in error
