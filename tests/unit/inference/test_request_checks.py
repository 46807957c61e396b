from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.sampling import engine_params
from services.inference.model.served_model import EngineDescription, ServedModel
from services.inference.request.reasoning_policy import enables_reasoning
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from tests.unit.inference.scripted import PARAMETERS

LIMITS = RequestLimits(max_choices=4, max_messages=8, max_prompt_bytes=1000)
LAST_ID = 49151
USER = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])
IMAGE = pb.ContentPart(image=pb.Image(data=b"x"))
NAN = float("nan")


def request(**fields: Any) -> pb.GenerateRequest:
    if not fields.keys() & {"messages", "prompt", "prompt_token_ids"}:
        fields["messages"] = [USER]
    return pb.GenerateRequest(**fields)


def sampling(**fields: Any) -> dict[str, Any]:
    return {"sampling": pb.SamplingParams(**fields)}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, pb.Message(**fields)]}


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [USER], "prompt": "x"}, "messages"),
    ({"prompt": "x", "prompt_token_ids": [1]}, "messages"),
    ({"messages": [USER] * 9}, "messages"),
    ({"prompt": "x" * 1001}, "prompt"),
    ({"messages": [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="x" * 1001)])]}, "messages"),
    ({"prompt_token_ids": [1, LAST_ID + 1]}, "prompt_token_ids"),
    (message(content=[pb.ContentPart(text="x")]), "messages[1].role"),
    (message(role=99, content=[pb.ContentPart(text="x")]), "messages[1].role"),
    (message(role=pb.ROLE_USER), "messages[1].content"),
    (message(role=pb.ROLE_USER, content=[pb.ContentPart()]), "messages[1].content[0]"),
    (message(role=pb.ROLE_USER, content=[pb.ContentPart(text="x")], name="n" * 257), "messages[1].name"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"prompt": "x", "continue_final_message": True}, "continue_final_message"),
    ({**message(role=pb.ROLE_ASSISTANT), "continue_final_message": True}, "continue_final_message"),
    ({"n": 5}, "n"),
    ({"tenant": "س" * 129}, "tenant"),
    ({"logprobs": pb.LogprobsOptions(top=21)}, "logprobs.top"),
    # An enum is open on the wire.
    ({"tool_choice": pb.ToolChoice(mode=99)}, "tool_choice.mode"),  # type: ignore[arg-type]
    *((sampling(temperature=v), "sampling.temperature") for v in (-0.1, 2.1, NAN, float("inf"))),
    *((sampling(top_p=v), "sampling.top_p") for v in (-0.1, 1.1, NAN)),
    *((sampling(min_p=v), "sampling.min_p") for v in (-0.1, 1.1, NAN)),
    *((sampling(frequency_penalty=v), "sampling.frequency_penalty") for v in (-2.1, 2.1, NAN)),
    *((sampling(presence_penalty=v), "sampling.presence_penalty") for v in (-2.1, 2.1, NAN)),
    *((sampling(repetition_penalty=v), "sampling.repetition_penalty") for v in (0.0, -1.0, 2.1, NAN)),
    (sampling(top_k=2**31), "sampling.top_k"),
    (sampling(max_tokens=0), "sampling.max_tokens"),
    (sampling(max_tokens=3, min_tokens=4), "sampling.min_tokens"),
    (sampling(stop=["a"] * 65), "sampling.stop"),
    (sampling(stop=["a", ""]), "sampling.stop[1]"),
    (sampling(stop=["a" * 257]), "sampling.stop[0]"),
    (sampling(stop_token_ids=[LAST_ID + 1]), "sampling.stop_token_ids"),
    (sampling(stop_token_ids=[1] * 65), "sampling.stop_token_ids"),
    (sampling(logit_bias={1: 100.5}), "sampling.logit_bias[1]"),
    (sampling(logit_bias={1: NAN}), "sampling.logit_bias[1]"),
    (sampling(logit_bias={LAST_ID + 1: 1}), "sampling.logit_bias"),
    (sampling(logit_bias=dict.fromkeys(range(1025), 1.0)), "sampling.logit_bias"),
]
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    (message(role=pb.ROLE_USER, content=[IMAGE]), "messages[1].content[0].image"),
    (message(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(name="f")]), "messages[1].tool_calls"),
    (message(role=pb.ROLE_TOOL, content=[pb.ContentPart(text="x")]), "messages[1].role"),
    (message(role=pb.ROLE_TOOL, content=[pb.ContentPart(text="x")], tool_call_id="c"), "messages[1].tool_call_id"),
    ({"tools": [pb.Tool(name="f")]}, "tools"),
    ({"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)}, "tool_choice"),
    ({"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["f"])}, "tool_choice"),
    ({"response_format": pb.ResponseFormat(json_object=pb.JsonObjectFormat())}, "response_format"),
    ({"response_format": pb.ResponseFormat(regex="a+")}, "response_format"),
    ({"reasoning": pb.ReasoningOptions(enabled=True)}, "reasoning.enabled"),
    ({"reasoning": pb.ReasoningOptions(budget_tokens=0)}, "reasoning.budget_tokens"),
    ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
]
ALLOWED: list[dict[str, Any]] = [
    {},
    {"n": 4},
    {"tenant": "س" * 128, "priority": -5},
    {"logprobs": pb.LogprobsOptions(top=20)},
    {"tools": [pb.Tool(name="f")], "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)},
    {"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO), "parallel_tool_calls": False},
    {"response_format": pb.ResponseFormat()},
    {"reasoning": pb.ReasoningOptions(enabled=False, effort=pb.REASONING_EFFORT_NONE, exclude=True)},
    {"refuse_ignored_parameters": True, "tenant": "a", "priority": 1},
    {**message(role=pb.ROLE_ASSISTANT, content=[pb.ContentPart(text="Well")]), "continue_final_message": True},
    message(role=pb.ROLE_ASSISTANT, reasoning_content="hm", name="me"),
    {"prompt": ""},
    {"prompt_token_ids": [LAST_ID]},
    sampling(temperature=0, top_p=0, min_p=0, top_k=0, frequency_penalty=-2, presence_penalty=-2, repetition_penalty=2),
    sampling(temperature=2, top_p=1, min_p=1, frequency_penalty=2, presence_penalty=2, seed=-(2**63), ignore_eos=True),
    sampling(
        max_tokens=2**32 - 1, min_tokens=4, stop=["\n"] * 64, stop_token_ids=[LAST_ID], logit_bias={LAST_ID: -100}
    ),
]


@pytest.mark.parametrize(("fields", "field"), INVALID)
def test_an_invalid_value_is_rejected_with_field_value_and_limit(
    model: ServedModel, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Failure) as rejection:
        check(request(**fields), model, LIMITS)
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message.field == field
    assert len(str(rejection.value)) < 200


@pytest.mark.parametrize(("fields", "field"), UNSUPPORTED)
def test_an_unsupported_field_is_rejected_with_its_name(model: ServedModel, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Failure) as rejection:
        check(request(**fields), model, LIMITS)
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message.field == field


@pytest.mark.parametrize("fields", ALLOWED)
def test_valid_fields_and_fields_without_effect_are_accepted(model: ServedModel, fields: dict[str, Any]) -> None:
    check(request(**fields), model, LIMITS)
    engine_params(request(**fields), model, remaining_tokens=100, choice=0)


def test_a_message_with_calls_cannot_be_continued(caller: ServedModel) -> None:
    last = pb.Message(
        role=pb.ROLE_ASSISTANT, content=[pb.ContentPart(text="x")], tool_calls=[pb.ToolCall(id="c", name="f")]
    )
    check(request(messages=[USER, last]), caller, LIMITS)
    with pytest.raises(Failure) as rejection:
        check(request(messages=[USER, last], continue_final_message=True), caller, LIMITS)
    assert rejection.value.message == Message("last_message_cannot_be_continued", field="continue_final_message")
    assert rejection.value.message.field == "continue_final_message"


@pytest.mark.parametrize(
    ("call", "field", "problem"),
    [
        (pb.ToolCall(), "name", Message("function_name_not_valid", field="messages[1].tool_calls[0].name", value="''")),
        (
            pb.ToolCall(name="f<|im_end|>"),
            "name",
            Message("function_name_not_valid", field="messages[1].tool_calls[0].name", value="'f<|im_end|>'"),
        ),
        (
            pb.ToolCall(name="f" * 65),
            "name",
            Message(
                "function_name_not_valid",
                field="messages[1].tool_calls[0].name",
                value="'fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff'",
            ),
        ),
        (
            pb.ToolCall(name="f", arguments_json="x" * 524_289),
            "arguments_json",
            Message("text_too_long", field="messages[1].tool_calls[0].arguments_json", value=524289, limit=524288),
        ),
    ],
)
def test_an_invalid_call_in_a_message_is_rejected(
    caller: ServedModel, call: pb.ToolCall, field: str, problem: Message
) -> None:
    limits = RequestLimits(max_prompt_bytes=2**20)
    with pytest.raises(Failure) as rejection:
        check(request(**message(role=pb.ROLE_ASSISTANT, tool_calls=[call])), caller, limits)
    assert rejection.value.message.field == f"messages[1].tool_calls[0].{field}"
    assert rejection.value.message == problem


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("[]", Message("schema_not_object", field="tools[0].parameters_json")),
        (
            "{",
            Message(
                "json_not_valid",
                field="tools[0].parameters_json",
                reason="Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
        ),
        (
            '{"a":"\\ud83d"}',
            Message(
                "json_not_valid",
                field="tools[0].parameters_json",
                reason="'utf-8' codec can't encode character '\\ud83d' in position 7: surrogates not allowed",
            ),
        ),
        (
            '{"a":' * 129 + "1" + "}" * 129,
            Message("depth_over_limit", field="tools[0].parameters_json", value=129, limit=128),
        ),
        (
            '"' + "x" * 65_536 + '"',
            Message("text_too_long", field="tools[0].parameters_json", value=65538, limit=65536),
        ),
    ],
)
def test_parameters_that_are_not_a_schema_are_rejected(caller: ServedModel, schema: str, message: Message) -> None:
    with pytest.raises(Failure) as rejection:
        check(request(tools=[pb.Tool(name="f", parameters_json=schema)]), caller, LIMITS)
    assert rejection.value.message.field == "tools[0].parameters_json"
    assert rejection.value.message == message


def test_a_violation_names_the_value_and_the_limit(model: ServedModel) -> None:
    with pytest.raises(Failure) as rejection:
        check(request(**sampling(temperature=3)), model, LIMITS)
    message = Message("out_of_range", field="sampling.temperature", value=3, least=0, most=2)
    assert rejection.value.message == message


def test_more_token_ids_than_the_context_holds_exceed_the_context_length(model: ServedModel) -> None:
    with pytest.raises(Failure) as rejection:
        check(request(prompt_token_ids=[1] * 256), model, LIMITS)
    assert rejection.value.message == Message(
        "context_full", field="prompt_token_ids", model="smollm2-135m", value=256, limit=256
    )
    assert rejection.value.reason is Reason.CONTEXT_LENGTH_EXCEEDED


@pytest.mark.parametrize("name", sorted(PARAMETERS & set(pb.SamplingParams.DESCRIPTOR.fields_by_name)))
def test_a_parameter_that_the_engine_does_not_support_is_rejected_by_name(model: ServedModel, name: str) -> None:
    values: dict[str, Any] = {"stop_token_ids": [1], "logit_bias": {1: 1.0}, "ignore_eos": True}
    fields = sampling(**{name: values.get(name, 1)})
    check(request(**fields), model, LIMITS)
    model.description = EngineDescription("lesser", "1", PARAMETERS - {name}, context_length=256, slots=1)
    with pytest.raises(Failure) as rejection:
        check(request(**fields), model, LIMITS)
    message = Message("engine_lacks_field", field=f"sampling.{name}", engine="lesser", model="smollm2-135m")
    assert rejection.value.message == message
    assert rejection.value.message.field == f"sampling.{name}"


def test_unsupported_advisory_fields_are_reported_as_ignored_or_rejected(model: ServedModel) -> None:
    lesser = PARAMETERS - {"priority", "cache_salt", "temperature"}
    model.description = EngineDescription("lesser", "1", lesser, context_length=256, slots=1)
    given = request(priority=1, tenant="a")
    check(given, model, LIMITS)
    assert ignored_parameters(given, model) == ["tenant", "priority"]
    assert (
        engine_params(given, model, remaining_tokens=9, choice=0)
        .keys()
        .isdisjoint({"priority", "cache_salt", "temperature"})
    )
    given.refuse_ignored_parameters = True
    with pytest.raises(Failure) as rejection:
        check(given, model, LIMITS)
    assert rejection.value.message.id == "field_would_be_ignored"
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER


def test_the_models_defaults_apply_to_fields_that_are_not_set(model: ServedModel) -> None:
    params = engine_params(request(), model, remaining_tokens=77, choice=0)
    assert (params["temperature"], params["top_p"], params["max_tokens"]) == (0.2, 0.9, 77)
    assert (
        engine_params(request(**sampling(temperature=0, max_tokens=5)), model, remaining_tokens=77, choice=0)[
            "max_tokens"
        ]
        == 5
    )


def test_top_p_of_zero_means_the_most_probable_token(model: ServedModel) -> None:
    params = engine_params(request(**sampling(top_p=0, temperature=1)), model, remaining_tokens=1, choice=0)
    assert params["temperature"] == 0
    assert "top_p" not in params


def test_each_choice_has_its_own_64_bit_seed(model: ServedModel) -> None:
    given = request(**sampling(seed=2**63 - 1))
    seeds = [engine_params(given, model, remaining_tokens=1, choice=choice)["seed"] for choice in range(3)]
    assert seeds == [2**63 - 1, -(2**63), -(2**63) + 1]


@pytest.mark.parametrize("effort", [pb.REASONING_EFFORT_LOW, pb.REASONING_EFFORT_MEDIUM, pb.REASONING_EFFORT_HIGH])
def test_a_model_without_reasoning_takes_an_effort_and_reports_it(
    model: ServedModel, effort: pb.ReasoningEffort.ValueType
) -> None:
    given = request(reasoning=pb.ReasoningOptions(effort=effort))
    check(given, model, LIMITS)
    assert ignored_parameters(given, model) == ["reasoning.effort"]


@pytest.mark.parametrize("field", ["enabled", "budget_tokens"])
def test_reasoning_that_is_wanted_only_if_supported_is_reported_as_ignored(model: ServedModel, field: str) -> None:
    given = request(reasoning=pb.ReasoningOptions(**{field: pb.REASONING_EFFORT_HIGH}))
    with pytest.raises(Failure):
        check(given, model, LIMITS)
    given.reasoning.if_supported = True
    check(given, model, LIMITS)
    assert ignored_parameters(given, model) == [f"reasoning.{field}"]


def test_reasoning_that_cannot_be_turned_off_is_reported_as_ignored(reasoning_model: ServedModel) -> None:
    capabilities = reasoning_model.spec.capabilities.model_copy(update={"reasoning_optional": False})
    spec = reasoning_model.spec.model_copy(update={"capabilities": capabilities})
    always = dataclasses.replace(reasoning_model, spec=spec)
    given = request(reasoning=pb.ReasoningOptions(enabled=False, if_supported=True))
    check(given, always, LIMITS)
    assert ignored_parameters(given, always) == ["reasoning.enabled"]
    assert enables_reasoning(given, always)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, ["reasoning.effort"]),
        ({"response_format": pb.ResponseFormat(regex="a")}, []),
        (
            {
                "response_format": pb.ResponseFormat(regex="a"),
                "reasoning": pb.ReasoningOptions(enabled=False, effort=pb.REASONING_EFFORT_HIGH),
            },
            ["reasoning.effort"],
        ),
        (
            {
                "response_format": pb.ResponseFormat(regex="a"),
                "reasoning": pb.ReasoningOptions(budget_tokens=9, effort=pb.REASONING_EFFORT_HIGH),
            },
            ["reasoning.effort"],
        ),
    ],
)
def test_an_effort_is_ignored_unless_it_enables_reasoning(
    reasoning_model: ServedModel, fields: dict[str, Any], ignored: list[str]
) -> None:
    given = request(**{"reasoning": pb.ReasoningOptions(effort=pb.REASONING_EFFORT_HIGH), **fields})
    assert ignored_parameters(given, reasoning_model) == ignored
    reasoning = enables_reasoning(given, reasoning_model)
    given.reasoning.ClearField("effort")
    assert (enables_reasoning(given, reasoning_model) == reasoning) is bool(ignored)
