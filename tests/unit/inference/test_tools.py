"""Which functions may be called, and which must be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.answer_parser import AnswerParser
from services.inference.generation.sampling import engine_params
from services.inference.model.served_model import ServedModel
from services.inference.parsing.segments import CallStart, Text
from services.inference.request.prompt import Prompt
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.inference.request.structured_output.response_format import structured_output
from services.inference.request.tools import template_tools
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

LIMITS = RequestLimits()
NAMES = ("get_weather", "get_time", "get_news")


def ask(*, tools: tuple[str, ...] = NAMES, **choice: Any) -> pb.GenerateRequest:
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])
    return pb.GenerateRequest(
        messages=[message], tools=[pb.Tool(name=name) for name in tools], tool_choice=pb.ToolChoice(**choice)
    )


def mode_without_names(mode: str) -> Message:
    return Message(
        "tool_choice_mode_without_names",
        field="tool_choice.mode",
        names_field="tool_choice.function_names",
        required_field="tool_choice.required",
        value=mode,
        expected="TOOL_CHOICE_MODE_FUNCTIONS",
    )


def call(name: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>'


def read(model: ServedModel, request: pb.GenerateRequest, text: str) -> tuple[list[str], str]:
    """Return the functions that a text calls, and the rest of the text."""
    parser = AnswerParser(request, model, Prompt("", [1], 100))
    segments = [*parser.feed(text), *parser.close()]
    return (
        [segment.name for segment in segments if isinstance(segment, CallStart)],
        "".join(segment.text for segment in segments if isinstance(segment, Text)),
    )


@pytest.mark.parametrize("required", [False, True])
def test_only_allowed_functions_are_offered(caller: ServedModel, required: bool) -> None:
    request = ask(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["get_time", "get_news"], required=required)
    check(request, caller, LIMITS)
    assert [tool["function"]["name"] for tool in template_tools(request)] == ["get_time", "get_news"]


def test_a_call_of_an_allowed_function_is_parsed_and_another_one_stays_text(caller: ServedModel) -> None:
    request = ask(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["get_time"])
    assert "structured_output" not in engine_params(request, caller, remaining_tokens=9, choice=0)
    assert read(caller, request, call("get_time")) == (["get_time"], "")
    assert read(caller, request, call("get_weather")) == ([], call("get_weather"))
    assert read(caller, request, "no call") == ([], "no call")


def test_one_of_the_allowed_functions_must_be_called_if_required(caller: ServedModel) -> None:
    request = ask(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["get_time", "get_news"], required=True)
    form = json.dumps(engine_params(request, caller, remaining_tokens=9, choice=0)["structured_output"])
    assert "get_time" in form
    assert "get_news" in form
    assert "get_weather" not in form


def test_all_functions_may_be_called_by_default_and_none_with_tool_choice_none(caller: ServedModel) -> None:
    assert read(caller, ask(), call("get_weather")) == (["get_weather"], "")
    none = ask(mode=pb.TOOL_CHOICE_MODE_NONE)
    assert read(caller, none, call("get_weather")) == ([], call("get_weather"))
    assert template_tools(none) == []
    assert structured_output(none) is None


@pytest.mark.parametrize(
    ("choice", "field", "message"),
    [
        (
            {"mode": pb.TOOL_CHOICE_MODE_FUNCTIONS},
            "tool_choice.function_names",
            Message("no_tool_allowed", field="tool_choice.function_names", other_field="tool_choice"),
        ),
        (
            {"mode": pb.TOOL_CHOICE_MODE_FUNCTIONS, "required": True},
            "tool_choice.function_names",
            Message("no_tool_allowed", field="tool_choice.function_names", other_field="tool_choice"),
        ),
        (
            {"mode": pb.TOOL_CHOICE_MODE_FUNCTIONS, "function_names": ["get_time", "get_lost"]},
            "tool_choice.function_names",
            Message("tool_unknown", field="tool_choice.function_names", value="get_lost"),
        ),
        (
            {"mode": pb.TOOL_CHOICE_MODE_AUTO, "function_names": ["get_time"]},
            "tool_choice.mode",
            mode_without_names("TOOL_CHOICE_MODE_AUTO"),
        ),
        (
            {"mode": pb.TOOL_CHOICE_MODE_NONE, "required": True},
            "tool_choice.mode",
            mode_without_names("TOOL_CHOICE_MODE_NONE"),
        ),
        (
            {"mode": pb.TOOL_CHOICE_MODE_REQUIRED, "tools": ()},
            "tool_choice",
            Message("call_required_without_tools", field="tool_choice", other_field="tools"),
        ),
    ],
)
def test_an_invalid_choice_is_rejected_with_its_field(
    caller: ServedModel, choice: dict[str, Any], field: str, message: Message
) -> None:
    with pytest.raises(Failure) as rejection:
        check(ask(**choice), caller, LIMITS)
    assert rejection.value.message == message
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message.field == field


def test_strict_is_reported_as_ignored_where_the_schema_is_not_enforced(caller: ServedModel) -> None:
    tools = [pb.Tool(name="f"), pb.Tool(name="g", strict=True), pb.Tool(name="h", strict=True)]
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])
    request = pb.GenerateRequest(messages=[message], tools=tools)
    assert ignored_parameters(request, caller) == ["tools[1].strict", "tools[2].strict"]
    request.refuse_ignored_parameters = True
    with pytest.raises(Failure) as rejection:
        check(request, caller, LIMITS)
    assert rejection.value.message.field == "tools[1].strict"
    request.tool_choice.CopyFrom(pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["f", "g"]))
    assert ignored_parameters(request, caller) == ["tools[1].strict"]
    request.tool_choice.required = True
    check(request, caller, LIMITS)
    request.tool_choice.CopyFrom(pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE))
    check(request, caller, LIMITS)
