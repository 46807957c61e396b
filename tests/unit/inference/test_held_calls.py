"""Calls that the engine holds to their schemas: when it does, and how such calls are sent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.generation.sampling import engine_params
from services.inference.model.served_model import ServedModel
from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.segments import CallArguments, CallStart, Text
from services.inference.request.prompt import Prompt
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.runtime.failure import Failure
from services.runtime.messages.message import Message
from tests.unit.inference.scripted import output

LIMITS = RequestLimits()
FUNCTIONS: dict[str, Any] = {"weather": {}, "search": {}, "search.deep": {}}
ARGUMENTS = '{"city": "تهران", "note": "a \\"b\\" {c}"}'
FORCED = f'{{"name":"weather","arguments":{ARGUMENTS}}}'
TAGGED = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
FORM = '{"city":"تهران","days":3}'
TOOL = pb.Tool(name="weather", parameters_json='{"properties":{"city":{"type":"string"}},"required":["city"]}')
STRICT = pb.Tool(name="search", parameters_json='{"properties":{"q":{"type":"string"}}}', strict=True)
REQUIRED = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
JSON = pb.ResponseFormat(json_object=pb.JsonObjectFormat())


def parse(*texts: str, opened: bool = False) -> tuple[str, list[tuple[str, str]], int]:
    """Return the text, the calls with their arguments' JSON, and the number of complete calls."""
    parser = HermesParser(FUNCTIONS, opened=opened, enforced=True)
    segments = [segment for text in texts for segment in parser.feed(text)] + parser.close()
    calls = [
        (start.name, "".join(p.json for p in segments if isinstance(p, CallArguments) and p.index == start.index))
        for start in segments
        if isinstance(start, CallStart)
    ]
    return "".join(segment.text for segment in segments if isinstance(segment, Text)), calls, parser.complete


@pytest.mark.parametrize(("text", "opened"), [(FORCED, True), (TAGGED, False)])
def test_a_held_call_that_is_cut_is_a_partial_call_and_never_text(text: str, opened: bool) -> None:
    start = 0 if opened else len("<tool_call>")
    for cut in range(start, len(text) + 1):
        content, calls, complete = parse(text[:cut], opened=opened)
        assert content == ""
        assert all(name == "weather" and ARGUMENTS.startswith(arguments) for name, arguments in calls)
        if cut > text.index("wea"):
            assert len(calls) == 1, "the name is clear from its beginning"
        assert complete == (calls == [("weather", ARGUMENTS)])


@pytest.mark.parametrize(("text", "opened"), [(FORCED, True), (TAGGED, False)])
def test_the_name_of_a_held_call_is_sent_as_soon_as_it_is_read_and_arguments_as_they_come(
    text: str, opened: bool
) -> None:
    parser = HermesParser(FUNCTIONS, opened=opened, enforced=True)
    sent: dict[int, list[Any]] = {
        place: segments for place, character in enumerate(text) if (segments := parser.feed(character))
    }
    name_end = text.index('weather"') + len('weather"') - 1
    assert sent.pop(name_end) == [CallStart(0, "weather")]
    begin = text.index(ARGUMENTS)
    assert sent == {begin + place: [CallArguments(0, one)] for place, one in enumerate(ARGUMENTS)}


def test_a_name_that_could_be_several_is_not_guessed() -> None:
    assert parse('{"name":"', opened=True) == ("", [], 0)
    assert parse('{"name":"search', opened=True) == ("", [], 0)
    assert parse('{"name":"search.', opened=True) == ("", [("search.deep", "")], 0)


@pytest.mark.parametrize("text", ["سلام", '{"city": 1}', '{"name":"unknown","arguments":{}}'])
def test_what_an_engine_writes_against_its_grammar_stays_text(text: str) -> None:
    assert parse(text, opened=True) == parse(*text, opened=True) == (text, [], 0)


PARTS = [
    TAGGED,
    FORCED,
    TAGGED[:40],
    "<tool_call>",
    '{"name": "search", ',
    '"arguments": {"q": 1}}',
    "}",
    "\n",
    "متن ",
    "<",
]


@given(parts=st.lists(st.sampled_from(PARTS), max_size=5), opened=st.booleans())
def test_the_result_does_not_depend_on_any_chunk_boundary(parts: list[str], opened: bool) -> None:
    text = "".join(parts)
    whole = parse(text, opened=opened)
    assert parse(*text, opened=opened) == whole
    for cut in range(1, len(text)):
        assert parse(text[:cut], text[cut:], opened=opened) == whole


@pytest.fixture
def holder(caller: ServedModel) -> ServedModel:
    """A model that may call functions, whose engine holds calls to schemas."""
    engine = caller.engine()
    supported = engine.supported_parameters | {"structured_output", "calls"}
    return dataclasses.replace(caller, description=dataclasses.replace(engine, supported_parameters=supported))


def ask(**fields: object) -> pb.GenerateRequest:
    messages = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])]
    return pb.GenerateRequest(messages=messages, **fields)  # type: ignore[arg-type]  # any fields


def params_of(request: pb.GenerateRequest, model: ServedModel) -> dict[str, Any]:
    check(request, model, LIMITS)
    return engine_params(request, model, remaining_tokens=10, choice=0)


def answered(model: ServedModel, request: pb.GenerateRequest, texts: Sequence[str], *, finish: str) -> dict[str, Any]:
    choice = Choice(0, request, model, Prompt("", [1], 100))
    events: list[pb.Event] = []
    for place, text in enumerate(texts):
        one = output(model.tokenizer.encode(text), finish=finish if place == len(texts) - 1 else None)
        pieces = choice.detokenize(one)
        events += choice.events(one, pieces, choice.parse(pieces, at_end=one.finish_reason is not None))
    deltas = [event.delta for event in events if event.HasField("delta")]
    return {
        "content": "".join(delta.content for delta in deltas),
        "names": [delta.tool_call.name for delta in deltas if delta.tool_call.name],
        "arguments": "".join(delta.tool_call.arguments_json for delta in deltas),
        "finish": events[-1].finish.reason,
    }


def test_tools_beside_a_response_format_are_held_to_calls_or_the_format(holder: ServedModel) -> None:
    params = params_of(ask(tools=[TOOL], response_format=JSON), holder)
    assert params["structured_output"] == {"json_object": True}
    calls = params["calls"]
    assert (calls["opening"], calls["closing"], calls["parallel"]) == ("<tool_call>", "</tool_call>", True)
    assert calls["schema"]["properties"]["name"] == {"const": "weather"}
    assert calls["schema"]["properties"]["arguments"]["required"] == ["city"]


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (pb.ResponseFormat(regex="a|b"), {"regex": "a|b"}),
        (pb.ResponseFormat(choice=pb.ChoiceFormat(choices=["a", "b."])), {"regex": "a|b\\."}),
        (pb.ResponseFormat(grammar='root ::= "a"'), {"grammar": 'root ::= "a"'}),
    ],
)
def test_other_formats_stand_beside_tools_as_well(
    holder: ServedModel, response_format: pb.ResponseFormat, expected: dict[str, str]
) -> None:
    params = params_of(ask(tools=[TOOL], response_format=response_format), holder)
    assert params["structured_output"] == expected
    assert params["calls"]["opening"] == "<tool_call>"


def test_parallel_calls_are_excluded_by_the_grammar_as_well(holder: ServedModel) -> None:
    request = ask(tools=[TOOL], response_format=JSON, parallel_tool_calls=False)
    assert params_of(request, holder)["calls"]["parallel"] is False


def test_the_call_or_the_format_arrives_as_what_it_is(holder: ServedModel) -> None:
    request = ask(tools=[TOOL], response_format=JSON)
    length = pb.FINISH_REASON_LENGTH
    assert answered(holder, request, [FORM], finish="length") == {
        "content": FORM,
        "names": [],
        "arguments": "",
        "finish": length,
    }
    called = answered(holder, request, [TAGGED[:50], TAGGED[50:]], finish="length")
    assert (called["content"], called["names"], called["arguments"]) == ("", ["weather"], ARGUMENTS)
    cut = answered(holder, request, [TAGGED[:50]], finish="length")
    assert (cut["content"], cut["names"], cut["finish"]) == ("", ["weather"], length)
    assert ARGUMENTS.startswith(cut["arguments"])


def test_a_required_call_that_is_cut_arrives_as_a_partial_call(holder: ServedModel) -> None:
    request = ask(tools=[TOOL], tool_choice=REQUIRED)
    for cut in range(1, len(FORCED)):
        partial = answered(holder, request, [FORCED[:cut]], finish="length")
        assert (partial["content"], partial["names"]) == ("", ["weather"])
        assert partial["finish"] == pb.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("response_format", "message_id"),
    [
        (pb.ResponseFormat(grammar='%llguidance {}\nstart: "a"'), "lark_with_tools"),
        (pb.ResponseFormat(structural_tag_json="{}"), "structured_output_with_tools"),
    ],
)
def test_a_format_that_cannot_be_combined_with_calls_is_rejected(
    holder: ServedModel, response_format: pb.ResponseFormat, message_id: str
) -> None:
    with pytest.raises(Failure) as rejection:
        check(ask(tools=[TOOL], response_format=response_format), holder, LIMITS)
    assert rejection.value.message == Message(message_id, field="response_format", other_field="tool_choice")


def test_an_engine_that_cannot_hold_calls_rejects_them_beside_a_format(holder: ServedModel) -> None:
    engine = holder.engine()
    lesser = dataclasses.replace(engine, supported_parameters=engine.supported_parameters - {"calls"})
    with pytest.raises(Failure) as rejection:
        check(ask(tools=[TOOL], response_format=JSON), dataclasses.replace(holder, description=lesser), LIMITS)
    assert rejection.value.message.id == "structured_output_with_tools"


def test_strict_functions_are_held_to_their_schemas_and_others_are_not(holder: ServedModel) -> None:
    request = ask(tools=[TOOL, STRICT])
    params = params_of(request, holder)
    assert "structured_output" not in params
    weather, search = (call["properties"]["arguments"] for call in params["calls"]["schema"]["anyOf"])
    assert weather == {"type": "object", "additionalProperties": True}
    assert search["properties"] == {"q": {"type": "string"}}
    assert ignored_parameters(request, holder) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL, STRICT], "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)},
        {"tools": [STRICT], "sampling": pb.SamplingParams(min_tokens=2)},
    ],
)
def test_other_calls_are_free(holder: ServedModel, fields: dict[str, object]) -> None:
    assert "calls" not in params_of(ask(**fields), holder)


def test_strict_that_nothing_enforces_is_reported(holder: ServedModel) -> None:
    request = ask(tools=[STRICT], sampling=pb.SamplingParams(min_tokens=2))
    assert ignored_parameters(request, holder) == ["tools[0].strict"]


def test_the_schema_of_a_strict_function_has_the_limits_of_structured_output(holder: ServedModel) -> None:
    tool = pb.Tool(name="f", parameters_json=json.dumps({"minItems": 10**9}), strict=True)
    with pytest.raises(Failure) as rejection:
        check(ask(tools=[tool]), holder, LIMITS)
    assert rejection.value.message.field == "tools[0].parameters_json"


def test_calls_of_every_notation_can_stand_beside_a_format(holder: ServedModel) -> None:
    parsers = holder.spec.parsers.model_copy(update={"tool_calls": "minimax"})
    minimax = dataclasses.replace(holder, spec=holder.spec.model_copy(update={"parsers": parsers}))
    request = ask(tools=[TOOL, STRICT], response_format=JSON)
    assert params_of(request, minimax)["calls"]["opening"] == "<minimax:tool_call>"
    text = TAGGED.replace("tool_call>", "minimax:tool_call>")
    assert answered(minimax, request, [text], finish="length")["names"] == ["weather"]
    free = ask(tools=[STRICT])
    assert "calls" not in params_of(free, minimax)
    assert ignored_parameters(free, minimax) == ["tools[0].strict"]
