"""Every field that a client may send works, is reported as ignored, or is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from services.failure import Failure, Reason, Violation
from services.gateway.chat_request import translate
from services.gateway.errors import ApiError, from_failure
from services.gateway.field_names import openai_names

MESSAGES = [{"role": "user", "content": "سلام"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}}

# A field, a value, and what must have been set in the request to the worker.
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
# What asks for nothing that is not done anyway, or influences no answer anywhere.
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
REFUSED: list[tuple[str, Any]] = [
    ("audio", {"voice": "x", "format": "mp3"}),
    ("modalities", ["text", "audio"]),
    ("functions", [{"name": "f"}]),
    ("function_call", "auto"),
    ("web_search_options", {}),
    ("stream_options", {"include_usage": True}),
    ("top_logprobs", 3),
]


def request(**fields: Any) -> Any:
    return translate({"model": "m", "messages": MESSAGES, **fields}, refuse_ignored=False)


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
def test_a_field_that_asks_for_nothing_else_is_taken(name: str, value: Any) -> None:
    assert request(**{name: value}).ignored == []


@pytest.mark.parametrize(("name", "value"), IGNORED)
def test_a_field_without_effect_is_reported(name: str, value: Any) -> None:
    assert request(**{name: value}).ignored == [name]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_field_that_cannot_be_honoured_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ApiError) as refusal:
        request(**{name: value})
    assert refusal.value.param == name
    assert name in refusal.value.message


def test_the_newest_sdk_knows_no_further_field() -> None:
    here = {name for name, *_ in [*WORKING, *ACCEPTED, *IGNORED, *REFUSED]}
    assert set(CompletionCreateParamsBase.__annotations__) - here == set()


def test_what_is_unknown_inside_a_field_is_reported_too() -> None:
    chat = request(
        stream=True, stream_options={"include_usage": True, "x": 1}, structured_outputs={"regex": "a", "y": 2}
    )
    assert chat.ignored == ["stream_options.x", "structured_outputs.y"]
    assert chat.include_usage


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "a", "guided_choice": ["b"]},
        {"response_format": {"type": "json_object"}, "guided_regex": "a"},
        {"structured_outputs": {"json": {}, "regex": "a"}},
    ],
)
def test_forms_exclude_one_another(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="exclude one another"):
        request(**fields)


def test_a_model_lists_its_parameters_by_openais_names() -> None:
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
def test_a_refused_form_is_named_as_it_was_given(fields: dict[str, Any], field: str, param: str) -> None:
    failure = Failure(Reason.INVALID_ARGUMENT, f"{field} is not good", violations=(Violation(field, ""),))
    error = from_failure(failure, request_id="r", form=request(**fields).form)
    assert (error.param, error.message) == (param, f"{param} is not good")
