from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.errors import ApiError
from services.runtime.messages.message import Message
from tests.unit.gateway.chat_bodies import read_chat

USER = [{"role": "user", "content": "سلام"}]


def request(**fields: Any) -> OpenAICall:
    return read_chat({"model": "m", "messages": USER, **fields})


def rejection(body: Any, *, strict: bool = False) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_chat(body, strict=strict)
    assert caught.value.status == 400
    return caught.value


def test_a_minimal_request_is_translated() -> None:
    chat = request()
    assert chat.generate == pb.GenerateRequest(
        model="m", n=1, messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام")])], sampling={}
    )
    assert (chat.stream, chat.include_usage, chat.ignored) == (False, False, [])


def test_sampling_parameters_reach_the_worker_unchanged() -> None:
    sampling = request(
        temperature=0,
        top_p=1,
        top_k=-1,
        min_p=0.25,
        seed=-3,
        max_completion_tokens=5,
        stop="\n",
        logit_bias={"7": -100},
        stop_token_ids=[1, 2],
        frequency_penalty=0.5,
    ).generate.sampling
    assert sampling == pb.SamplingParams(
        temperature=0,
        top_p=1,
        top_k=0,
        min_p=0.25,
        seed=-3,
        max_tokens=5,
        stop=["\n"],
        logit_bias={7: -100},
        stop_token_ids=[1, 2],
        frequency_penalty=0.5,
    )


def test_null_means_the_same_as_an_absent_field() -> None:
    assert request(temperature=None, stop=None, tools=None, response_format=None, logprobs=None) == request()


def test_roles_and_content_parts_are_translated() -> None:
    messages = [
        {"role": "developer", "content": "کوتاه بگو"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    translated = read_chat({"model": "m", "messages": messages}).generate.messages
    assert [message.role for message in translated] == [pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL]
    assert [part.text for part in translated[1].content] == ["a", "b"]
    assert translated[2].reasoning_content == "hm"
    assert translated[2].tool_calls[0].name == "f"
    assert translated[3].tool_call_id == "c1"


def test_tools_and_response_formats_are_translated() -> None:
    generate = request(
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        reasoning_effort="none",
        chat_template_kwargs={"enable_thinking": False, "x": [1]},
    ).generate
    assert generate.tools[0].parameters_json == '{"type":"object"}'
    assert (generate.tool_choice.mode, list(generate.tool_choice.function_names)) == (
        pb.TOOL_CHOICE_MODE_FUNCTIONS,
        ["f"],
    )
    assert generate.response_format.json_schema.schema_json == '{"type":"object"}'
    assert (generate.reasoning.effort, generate.reasoning.enabled) == (pb.REASONING_EFFORT_NONE, False)
    assert list(generate.chat_template_kwargs) == ["x"]


@pytest.mark.parametrize(("mode", "required"), [("auto", False), ("required", True), (None, False)])
@pytest.mark.parametrize("nested", [True, False])
def test_allowed_tools_reach_the_worker(mode: str | None, required: bool, nested: bool) -> None:
    # OpenAI's specification has them in an object of their own; some clients send them beside `type`.
    allowed: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    if mode is not None:
        allowed["mode"] = mode
    choice = {"type": "allowed_tools", "allowed_tools": allowed} if nested else {"type": "allowed_tools", **allowed}
    assert request(tool_choice=choice).generate.tool_choice == pb.ToolChoice(
        mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["f"], required=required
    )


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"model": None}, "model", Message("field_missing", field="model", expected="string")),
        ({"model": 5}, "model", Message("wrong_type", field="model", value="5", expected="string")),
        ({"messages": None}, "messages", Message("field_missing", field="messages", expected="array")),
        ({"messages": []}, "messages", Message("list_empty", field="messages")),
        ({"messages": "hi"}, "messages", Message("wrong_type", field="messages", value='"hi"', expected="array")),
        (
            {"messages": ["hi"]},
            "messages[0]",
            Message("wrong_type", field="messages[0]", value='"hi"', expected="object"),
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            Message("wrong_type", field="messages[0].content", value="5", expected="string | array"),
        ),
        (
            {"messages": [{"role": "user"}]},
            "messages[0].content",
            Message("field_missing", field="messages[0].content", expected="string | array"),
        ),
        (
            {"messages": [{"role": "king", "content": ""}]},
            "messages[0].role",
            Message(
                "not_one_of",
                field="messages[0].role",
                value='"king"',
                choices="system, developer, user, assistant, tool, function",
            ),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
            Message(
                "not_one_of", field="messages[0].content[0].type", value='"input_audio"', choices="text, image_url"
            ),
        ),
        (
            {"temperature": "hot"},
            "temperature",
            Message("wrong_type", field="temperature", value='"hot"', expected="number"),
        ),
        (
            {"temperature": True},
            "temperature",
            Message("wrong_type", field="temperature", value="true", expected="number"),
        ),
        ({"max_tokens": 1.5}, "max_tokens", Message("wrong_type", field="max_tokens", value="1.5", expected="integer")),
        (
            {"max_tokens": 0},
            "max_tokens",
            Message("out_of_range", field="max_tokens", value=0, least=1, most=2147483647),
        ),
        ({"n": 0}, "n", Message("out_of_range", field="n", value=0, least=1, most=2147483647)),
        ({"stream": "yes"}, "stream", Message("wrong_type", field="stream", value='"yes"', expected="boolean")),
        (
            {"stream_options": {"include_usage": True}},
            "stream_options",
            Message("stream_options_without_stream", field="stream_options", other_field="stream"),
        ),
        ({"stop": ["a", 1]}, "stop[1]", Message("wrong_type", field="stop[1]", value="1", expected="string")),
        ({"logit_bias": {"x": 1}}, "logit_bias", Message("key_is_no_token_id", field="logit_bias", value='"x"')),
        (
            {"top_logprobs": 3},
            "top_logprobs",
            Message("top_logprobs_without_logprobs", field="top_logprobs", other_field="logprobs", value=3),
        ),
        (
            {"tool_choice": "maybe"},
            "tool_choice",
            Message(
                "neither_choice_nor_type",
                field="tool_choice",
                value='"maybe"',
                choices="none, auto, required",
                expected="object",
            ),
        ),
        (
            {"tools": [{"type": "web", "function": {}}]},
            "tools[0].type",
            Message("not_one_of", field="tools[0].type", value='"web"', choices="function"),
        ),
        (
            {"response_format": {"type": "xml"}},
            "response_format.type",
            Message(
                "not_one_of", field="response_format.type", value='"xml"', choices="text, json_object, json_schema"
            ),
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            Message("field_missing", field="response_format.json_schema", expected="object"),
        ),
        (
            {"modalities": ["audio"]},
            "modalities",
            Message("modality_not_supported", field="modalities", value='["audio"]'),
        ),
        ({"store": "yes"}, "store", Message("wrong_type", field="store", value='"yes"', expected="boolean")),
        (
            {"service_tier": 1},
            "service_tier",
            Message("wrong_type", field="service_tier", value="1", expected="string"),
        ),
        (
            {"metadata": {"a": 1}},
            "metadata",
            Message("metadata_pair_not_valid", field="metadata", name='"a"', name_limit=64, value_limit=512),
        ),
        (
            {"reasoning_effort": "much"},
            "reasoning_effort",
            Message(
                "not_one_of",
                field="reasoning_effort",
                value='"much"',
                choices="none, minimal, low, medium, high, xhigh, max",
            ),
        ),
    ],
)
def test_an_error_names_the_field_and_its_value(change: dict[str, Any], param: str, message: Message) -> None:
    error = rejection({"model": "m", "messages": USER, **change})
    assert error.field == param
    assert error.message == message


def test_unknown_fields_are_listed_or_rejected() -> None:
    assert request(zeta=1, alpha=2, nothing=None, user="u", metadata={"k": "v"}).ignored == ["alpha", "zeta"]
    assert rejection({"model": "m", "messages": USER, "zeta": 1}, strict=True).field == "zeta"
    assert len(str(rejection({"model": "m", "messages": USER, "zeta" * 10_000: 1}, strict=True))) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "temperature",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "response_format",
        "logit_bias",
        "stream",
        "stream_options",
        "metadata",
        "chat_template_kwargs",
        "structured_outputs",
        "guided_json",
        "guided_choice",
        "stop_token_ids",
        "seed",
        "modalities",
    ]
)


@given(body=JSON | st.dictionaries(NAMES, JSON, max_size=6), changes=st.dictionaries(NAMES, JSON, max_size=3))
def test_any_body_is_translated_or_rejected(body: Any, changes: dict[str, Any]) -> None:
    for each in (body, {"model": "m", "messages": USER, **changes}):
        try:
            read_chat(each)
        except ApiError as error:
            assert error.status == 400
            assert len(str(error)) < 400
