"""Every field that a client may send has its effect, is reported as ignored, or is rejected by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_chat.response import chat_completion
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.dialects.openai_fields import openai_names
from services.gateway.dialects.worker_fields import use_callers_names
from services.gateway.errors import ApiError
from services.gateway.routing.failures import api_error
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.unit.gateway.chat_bodies import read_chat

MESSAGES = [{"role": "user", "content": "سلام"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
}

# A field, a value, and the field of the worker's request that it must set.
WORKING: list[tuple[str, Any, str]] = [
    ("model", "m", "model"),
    ("messages", MESSAGES, "messages"),
    ("n", 2, "n"),
    *((name, 0.5, f"sampling.{name}") for name in ("temperature", "top_p", "min_p", "repetition_penalty")),
    *((name, 0.5, f"sampling.{name}") for name in ("frequency_penalty", "presence_penalty")),
    *((name, 5, f"sampling.{name}") for name in ("top_k", "min_tokens", "seed", "max_tokens")),
    ("max_completion_tokens", 5, "sampling.max_tokens"),
    ("stop", ["a", "b"], "sampling.stop"),
    ("stop_token_ids", [1], "sampling.stop_token_ids"),
    ("ignore_eos", True, "sampling.ignore_eos"),
    ("skip_special_tokens", False, "sampling.skip_special_tokens"),
    ("logit_bias", {"5": -100}, "sampling.logit_bias"),
    ("functions", [{"name": "f"}], "tools"),
    ("logprobs", True, "logprobs"),
    ("tools", [TOOL], "tools"),
    ("tool_choice", "required", "tool_choice"),
    ("parallel_tool_calls", False, "parallel_tool_calls"),
    ("response_format", SCHEMA, "response_format.json_schema"),
    ("response_format", {"type": "json_object"}, "response_format.json_object"),
    ("guided_json", {"type": "object"}, "response_format.json_schema"),
    ("guided_regex", "a+", "response_format.regex"),
    ("guided_choice", ["a"], "response_format.choice"),
    ("guided_grammar", "root ::= 'a'", "response_format.grammar"),
    ("structured_outputs", {"regex": "a+"}, "response_format.regex"),
    ("structured_outputs", {"json_object": True}, "response_format.json_object"),
    ("structured_outputs", {"structural_tag": {"type": "x"}}, "response_format.structural_tag_json"),
    ("reasoning_effort", "none", "reasoning.effort"),
    ("thinking_token_budget", 5, "reasoning.budget_tokens"),
    ("include_reasoning", False, "reasoning.exclude"),
    ("enable_thinking", False, "reasoning.enabled"),
    ("chat_template_kwargs", {"enable_thinking": False}, "reasoning.enabled"),
    ("chat_template_kwargs", {"add_vision_id": True}, "chat_template_kwargs"),
    ("continue_final_message", True, "continue_final_message"),
]
# Values that ask for the default, or that have no effect in any engine.
ACCEPTED: list[tuple[str, Any]] = [
    ("metadata", {"order": "1"}),
    ("user", "u"),
    ("safety_identifier", "u"),
    ("prompt_cache_key", "k"),
    ("store", False),
    ("service_tier", "auto"),
    ("verbosity", "medium"),
    ("modalities", ["text"]),
    ("stream", True),
    ("response_format", {"type": "text"}),
]
IGNORED: list[tuple[str, Any]] = [
    ("store", True),
    ("service_tier", "priority"),
    ("verbosity", "low"),
    ("prompt_cache_retention", "24h"),
    ("prompt_cache_options", {"mode": "explicit"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("moderation", {"model": "x"}),
    ("best_of", 3),
]
REJECTED: list[tuple[str, Any]] = [
    ("audio", {"voice": "x", "format": "mp3"}),
    ("modalities", ["text", "audio"]),
    ("function_call", "required"),
    ("web_search_options", {}),
    ("stream_options", {"include_usage": True}),
    ("top_logprobs", 3),
]


def request(**fields: Any) -> Any:
    return read_chat({"model": "m", "messages": MESSAGES, **fields})


def has(message: Any, path: str) -> bool:
    for name in path.split("."):
        if name not in {field.name for field, _ in message.ListFields()}:
            return False
        message = getattr(message, name)
    return True


@pytest.mark.parametrize(("name", "value", "path"), WORKING)
def test_a_field_reaches_the_worker(name: str, value: Any, path: str) -> None:
    chat = request(**{name: value})
    assert has(chat.generate, path)
    assert chat.ignored == []


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_a_field_that_asks_for_the_default_is_accepted(name: str, value: Any) -> None:
    assert request(**{name: value}).ignored == []


@pytest.mark.parametrize(("name", "value"), IGNORED)
def test_a_field_without_effect_is_reported(name: str, value: Any) -> None:
    assert request(**{name: value}).ignored == [name]


@pytest.mark.parametrize(("name", "value"), REJECTED)
def test_a_field_that_cannot_be_honoured_is_rejected(name: str, value: Any) -> None:
    with pytest.raises(ApiError) as rejection:
        request(**{name: value})
    assert rejection.value.field == name


def test_the_newest_sdk_has_no_other_field() -> None:
    here = {name for name, *_ in [*WORKING, *ACCEPTED, *IGNORED, *REJECTED]}
    assert set(CompletionCreateParamsBase.__annotations__) - here == set()


CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "f"}]}}


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, ["stream_options.x"]),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, ["stream_options.include_obfuscation"]),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, []),
        ({"structured_outputs": {"regex": "a", "y": 2}}, ["structured_outputs.y"]),
        (
            {"response_format": {**SCHEMA, "x": 1, "json_schema": {**SCHEMA["json_schema"], "y": 2, "z": None}}},
            ["response_format.json_schema.y", "response_format.x"],
        ),
        ({"response_format": {"type": "text", "json_schema": {"name": "s"}}}, ["response_format.json_schema"]),
        (
            {"tools": [TOOL, {**TOOL, "x": 1, "function": {"name": "g", "y": 2}}]},
            ["tools[1].function.y", "tools[1].x"],
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}, "x": 1}}, ["tool_choice.x"]),
        ({"tools": [TOOL], "tool_choice": ALLOWED}, []),
        ({"messages": [{"role": "user", "content": "a", "weight": 1}]}, ["messages[0].weight"]),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}
                ]
            },
            ["messages[0].content[0].cache_control"],
        ),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [{**CALL, "index": 0, "x": 1}]}]},
            ["messages[1].tool_calls[0].x"],
        ),
        # The form of OpenAI's own responses that a client sends back.
        (
            {
                "messages": [
                    *MESSAGES,
                    {
                        "role": "assistant",
                        "content": "a",
                        "annotations": [],
                        "audio": None,
                        "refusal": None,
                        "function_call": None,
                        "tool_calls": None,
                    },
                ]
            },
            [],
        ),
        ({"zeta": [], "eta": {}, "theta": None, "iota": "", "kappa": 0, "la": False}, ["iota", "kappa", "la"]),
        ({"continue_final_message": True, "add_generation_prompt": False}, []),
        ({"add_generation_prompt": True}, []),
        ({"add_generation_prompt": False}, ["add_generation_prompt"]),
        ({"continue_final_message": True, "add_generation_prompt": True}, ["add_generation_prompt"]),
        ({"max_tokens": 5, "max_completion_tokens": 6}, ["max_tokens"]),
        ({"max_tokens": 5, "max_completion_tokens": 5}, []),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            ["enable_thinking"],
        ),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": True}}, []),
        (
            {"messages": [{"role": "assistant", "content": "a", "reasoning": "b", "reasoning_content": "c"}]},
            ["messages[0].reasoning"],
        ),
        ({"messages": [{"role": "assistant", "content": "a", "reasoning": "", "reasoning_content": "c"}]}, []),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "a", "refusal": "no"}]}, ["messages[1].refusal"]),
        (
            {
                "messages": [
                    *MESSAGES,
                    {"role": "assistant", "content": "a", "reasoning": "b", "reasoning_content": "b"},
                ]
            },
            [],
        ),
    ],
)
def test_an_unknown_nested_field_is_reported_or_rejected(fields: dict[str, Any], ignored: list[str]) -> None:
    assert request(**fields).ignored == ignored
    if ignored:
        with pytest.raises(ApiError) as rejection:
            read_chat({"model": "m", "messages": MESSAGES, **fields}, strict=True)
        assert (rejection.value.field, rejection.value.message.id) == (ignored[0], "ignored_fields_rejected")


def test_the_number_of_reported_fields_is_limited() -> None:
    many = [{"type": "text", "text": "a", "x": 1}] * 500
    assert len(request(messages=[{"role": "user", "content": many}]).ignored) == 100


@pytest.mark.parametrize("name", ["user", "safety_identifier", "prompt_cache_key"])
def test_a_label_must_be_a_string(name: str) -> None:
    with pytest.raises(ApiError) as rejection:
        request(**{name: 5})
    assert rejection.value.message == Message("wrong_type", field=name, value="5", expected="string")


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        (
            {"name": None},
            "response_format.json_schema",
            Message("schema_incomplete", field="response_format.json_schema"),
        ),
        (
            {"name": 5},
            "response_format.json_schema.name",
            Message("wrong_type", field="response_format.json_schema.name", value="5", expected="string"),
        ),
        (
            {"schema": None},
            "response_format.json_schema",
            Message("schema_incomplete", field="response_format.json_schema"),
        ),
    ],
)
def test_a_schema_without_a_name_is_rejected(change: dict[str, Any], param: str, message: Message) -> None:
    with pytest.raises(ApiError) as rejection:
        request(response_format={**SCHEMA, "json_schema": {**SCHEMA["json_schema"], **change}})
    assert (rejection.value.field, rejection.value.message) == (param, message)


def test_functions_in_the_older_notation_become_tools() -> None:
    call = request(
        functions=[{"name": "f", "parameters": {"type": "object"}}, {"name": "g"}], function_call={"name": "f"}
    )
    generate = call.generate
    assert [(tool.name, tool.parameters_json) for tool in generate.tools] == [("f", '{"type":"object"}'), ("g", "")]
    assert (generate.tool_choice.required, list(generate.tool_choice.function_names)) == (True, ["f"])
    assert generate.parallel_tool_calls is False
    assert call.ignored == []
    assert call.field_name("tools[1].parameters_json") == "functions[1].parameters"
    assert call.field_name("tool_choice.function_names") == "function_call"
    assert (
        request(functions=[{"name": "f"}], function_call="none").generate.tool_choice.mode == pb.TOOL_CHOICE_MODE_NONE
    )


def test_the_newer_notation_of_functions_overrules_the_older_one() -> None:
    past = {"role": "assistant", "function_call": {"name": "g", "arguments": "{}"}, "tool_calls": [CALL]}
    call = request(
        messages=[*MESSAGES, past],
        functions=[{"name": "g"}],
        tools=[TOOL],
        function_call="none",
        tool_choice="required",
    )
    assert [tool.name for tool in call.generate.tools] == ["f"]
    assert call.generate.tool_choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED
    assert [made.name for made in call.generate.messages[1].tool_calls] == ["f"]
    assert call.ignored == ["function_call", "functions", "messages[1].function_call"]
    assert not call.has_functions
    assert request(functions=[{"name": "g"}], tools=[]).generate.tools[0].name == "g"


def test_an_answer_to_functions_in_the_older_notation_has_it_too() -> None:
    call = request(functions=[{"name": "f"}])
    fragments = [pb.ToolCallFragment(id="c", name="f"), pb.ToolCallFragment(arguments_json="{}")]
    events = [
        pb.Event(started=pb.Started()),
        *(pb.Event(delta=pb.Delta(tool_call=fragment)) for fragment in fragments),
        pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_TOOL_CALLS)),
    ]
    head, collected = ResponseHead("id", 1, "r", "fp_1"), ResponseCollector(1)
    collected.add(events)
    choice = chat_completion(call, head, collected, reasoning_fields=["reasoning_content"])["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "function_call"
    encoder = ChunkEncoder(call, head, reasoning_fields=["reasoning_content"])
    chunks = [json.loads(line[6:]) for line in encoder.encode(events).decode().split("\n\n")[:-1]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": None},
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_function_call_in_the_older_notation_becomes_a_tool_call() -> None:
    call = {"name": "f", "arguments": '{"a":1}'}
    chat = request(
        messages=[
            *MESSAGES,
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": "4"},
        ]
    )
    assert chat.ignored == []
    assert [(made.name, made.arguments_json) for made in chat.generate.messages[1].tool_calls] == [("f", '{"a":1}')]
    assert (chat.generate.messages[2].role, chat.generate.messages[2].name) == (pb.ROLE_TOOL, "f")


@pytest.mark.parametrize(
    ("message", "name", "message_id"),
    [
        ({"function_call": {"arguments": "{}"}}, "function_call.name", "field_missing"),
        ({"audio": {"id": "a"}}, "audio", "field_not_supported"),
        ({"tool_calls": [{**CALL, "type": "custom"}]}, "tool_calls[0].type", "not_one_of"),
    ],
)
def test_a_past_message_that_a_template_cannot_render_is_rejected(
    message: dict[str, Any], name: str, message_id: str
) -> None:
    with pytest.raises(ApiError) as rejection:
        request(messages=[*MESSAGES, {"role": "assistant", "content": None, **message}])
    assert (rejection.value.field, rejection.value.message.id) == (f"messages[1].{name}", message_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "a", "guided_choice": ["b"]},
        {"response_format": {"type": "json_object"}, "guided_regex": "a"},
        {"structured_outputs": {"json": {}, "regex": "a"}},
        {"guided_json": {}, "guided_regex": "a", "guided_choice": ["b"]},
    ],
)
def test_fields_for_structured_output_are_mutually_exclusive(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as rejection:
        request(**fields)
    assert rejection.value.message.id == "mutually_exclusive"


def test_a_models_parameters_are_listed_by_openais_names() -> None:
    fields = ["sampling.max_tokens", "reasoning.budget_tokens", "reasoning.effort", "logprobs", "tenant", "n"]
    assert openai_names(fields) == [
        *("logprobs", "max_completion_tokens", "max_tokens", "n"),
        *("reasoning_effort", "thinking_token_budget", "top_logprobs"),
    ]


@pytest.mark.parametrize(
    ("fields", "field", "param"),
    [
        ({"guided_regex": "(("}, "response_format.regex", "guided_regex"),
        ({"structured_outputs": {"regex": "(("}}, "response_format.regex", "structured_outputs.regex"),
        (
            {"structured_outputs": {"choice": ["a", ""]}},
            "response_format.choice.choices[1]",
            "structured_outputs.choice[1]",
        ),
        ({"guided_json": "{"}, "response_format.json_schema.schema_json", "guided_json"),
        ({"guided_grammar": "x"}, "response_format", "guided_grammar"),
        ({"response_format": SCHEMA}, "response_format.json_schema.schema_json", "response_format.json_schema.schema"),
        ({"response_format": SCHEMA}, "response_format", "response_format"),
        ({}, "tool_choice", "tool_choice"),
        ({}, "tool_choice.function_names", "tool_choice"),
    ],
)
def test_an_error_about_structured_output_names_the_field_that_was_sent(
    fields: dict[str, Any], field: str, param: str
) -> None:
    error = api_error(invalid(Message("text_empty", field=field)), request_id="r")
    use_callers_names(error, request(**fields).field_name)
    assert (error.field, error.message) == (param, Message("text_empty", field=param))


def test_an_error_names_no_field_for_structured_output_that_was_not_sent() -> None:
    message = Message("mutually_exclusive", field="reasoning.enabled", other_field="response_format")
    error = api_error(Failure(Reason.UNSUPPORTED_PARAMETER, message), request_id="r")
    use_callers_names(error, request(guided_json={}, enable_thinking=True).field_name)
    assert error.message == Message("mutually_exclusive", field="enable_thinking", other_field="guided_json")
