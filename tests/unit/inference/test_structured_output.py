"""The structured output of required calls."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import jsonschema_rs
import openai
import pytest
from pydantic import BaseModel
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.inference.request.structured_output.response_format import (
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_LENGTH,
    structured_output,
)
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

LIMITS = RequestLimits()
USER = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])


class Unit(StrEnum):
    """The unit of a temperature."""

    CELSIUS = "C"
    KELVIN = "K"


class Place(BaseModel):
    """A place."""

    city: str
    inside: Place | None


class Weather(BaseModel):
    """The weather at a place."""

    place: Place
    unit: Unit


CITY = {"place": {"city": "تهران", "inside": {"city": "ایران", "inside": None}}, "unit": "K"}
TREE = {
    "$id": "https://example.com/tree",
    "properties": {"word": {"type": "string"}, "$ref": {"const": 1}, "children": {"items": {"$ref": "#"}}},
    "additionalProperties": False,
}
POINTERS = {
    "properties": {
        "a": {"type": "integer"},
        "b": {"$ref": "#/properties/a"},
        "c": {"$ref": "#/definitions/a~1b"},
        "d": {"const": {"$ref": "#/properties/a"}},
    },
    "definitions": {"a/b": {"enum": ["x", {"$ref": "#"}]}},
}
OWN = "https://example.com/shapes/own.json"
ABSOLUTE = {
    "$id": f"{OWN}#",
    "properties": {
        "a": {"$ref": f"{OWN}#/definitions/word"},
        "b": {"$ref": "own.json#/definitions/word"},
        "c": {"$ref": OWN},
    },
    "definitions": {"word": {"type": "string"}},
    "additionalProperties": False,
}
ANCHORS = {
    "$id": "urn:own",
    "properties": {
        "a": {"$ref": "#word"},
        "b": {"$ref": "urn:own#word"},
        "c": {"$dynamicRef": "#node"},
        "$anchor": {"const": 1},
    },
    "$defs": {
        "a/b": {"$anchor": "word", "type": "string"},
        "node": {"$dynamicAnchor": "node", "properties": {"c": {"$dynamicRef": "#node"}, "d": {"type": "integer"}}},
    },
    "additionalProperties": False,
}
BUNDLED = {
    "$id": OWN,
    "properties": {"a": {"$ref": "word.json"}, "b": {"$ref": "word.json#/$defs/b"}, "c": {"$ref": "#/$defs/here"}},
    "$defs": {
        "word": {"$id": "word.json", "type": "string", "$defs": {"b": {"type": "integer"}}},
        "here": {"$id": "#/$defs/here", "type": "boolean"},
    },
}
RECURSIVE = {
    "$recursiveAnchor": True,
    "properties": {"word": {"type": "string"}, "children": {"items": {"$recursiveRef": "#"}}},
}


def estimate(schemas: dict[str, Any], *names: str) -> pb.GenerateRequest:
    """Return a request that requires a call of any function, or of one of those that are named."""
    return pb.GenerateRequest(
        messages=[USER],
        tools=[pb.Tool(name=name, parameters_json=json.dumps(schema)) for name, schema in schemas.items()],
        tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=names, required=True)
        if names
        else pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED),
    )


def is_call(request: pb.GenerateRequest, name: str, arguments: Any) -> bool:
    form = structured_output(request)
    assert form is not None
    return bool(jsonschema_rs.is_valid(form["json"], {"name": name, "arguments": arguments}))


def weather() -> dict[str, Any]:
    # The field is there.
    return dict(openai.pydantic_function_tool(Weather)["function"]["parameters"])  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (weather(), CITY, {**CITY, "unit": "F"}),
        (weather(), CITY, {**CITY, "place": {"city": "تهران", "inside": {"city": 5, "inside": None}}}),
        (TREE, {"children": [{"word": "a", "children": [{"$ref": 1}]}]}, {"children": [{"children": [{"word": 3}]}]}),
        (POINTERS, {"a": 1, "b": 2, "c": "x", "d": {"$ref": "#/properties/a"}}, {"b": "2"}),
        (POINTERS, {"c": {"$ref": "#"}}, {"c": "y"}),
        (ABSOLUTE, {"a": "x", "b": "y", "c": {"a": "z"}}, {"a": 1}),
        (ABSOLUTE, {}, {"b": 1}),
        (ABSOLUTE, {}, {"c": {"c": {"a": 1}}}),
        (ANCHORS, {"a": "x", "b": "y", "c": {"c": {"d": 1}}, "$anchor": 1}, {"a": 1}),
        (ANCHORS, {}, {"b": 1}),
        (ANCHORS, {}, {"c": {"c": {"d": "1"}}}),
        (BUNDLED, {"a": "x", "b": 1, "c": True}, {"a": 1}),
        (BUNDLED, {}, {"b": "x"}),
        (BUNDLED, {}, {"c": 1}),
        (RECURSIVE, {"children": [{"children": [{"word": "x"}]}]}, {"children": [{"children": [{"word": 1}]}]}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}, {"a": "1"}),
        ({}, {}, 5),
    ],
)
@pytest.mark.parametrize(
    "others", [{}, {"other": TREE, "anchors": ANCHORS, "third": {"$defs": {"Unit": {"const": 1}}}}]
)
def test_a_call_has_the_arguments_of_its_function_also_where_they_refer_to_definitions(
    caller: ServedModel, schema: dict[str, Any], good: Any, bad: Any, others: dict[str, Any]
) -> None:
    request = estimate({**others, "get.weather-1": schema})
    check(request, caller, LIMITS)
    assert is_call(request, "get.weather-1", good)
    assert not is_call(request, "get.weather-1", bad)
    assert not is_call(request, "nobody", good)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def test_the_schema_of_a_required_call_must_not_be_too_deep(caller: ServedModel) -> None:
    check(estimate({"f": nested(MAX_SCHEMA_DEPTH)}), caller, LIMITS)
    deep = {"f": {}, "g": nested(MAX_SCHEMA_DEPTH + 1)}
    check(estimate(deep, "f"), caller, LIMITS)
    with pytest.raises(Failure) as rejection:
        check(estimate(deep), caller, LIMITS)
    assert rejection.value.message == Message("depth_over_limit", field="tools[1].parameters_json", value=33, limit=32)
    assert rejection.value.message.field == "tools[1].parameters_json"


def test_the_schemas_of_required_calls_must_not_be_too_large_in_total(caller: ServedModel) -> None:
    half = {"description": "x" * (MAX_SCHEMA_LENGTH // 2)}
    check(estimate({"f": half, "g": half}, "g"), caller, LIMITS)
    with pytest.raises(Failure) as rejection:
        check(estimate({"f": half, "g": half}), caller, LIMITS)
    assert rejection.value.message.id == "call_schemas_too_long"
    assert (rejection.value.reason, rejection.value.message.field) == (Reason.INVALID_ARGUMENT, "tools")


def schema(**fields: Any) -> pb.GenerateRequest:
    form = pb.JsonSchemaFormat(schema_json="{}", **fields)
    return pb.GenerateRequest(messages=[USER], response_format=pb.ResponseFormat(json_schema=form))


@pytest.mark.parametrize("name", ["a b", "a.b", "نام", "x" * 65])
def test_an_invalid_name_of_a_schema_is_rejected(caller: ServedModel, name: str) -> None:
    check(schema(name="a_B-9" * 12), caller, LIMITS)
    check(schema(), caller, LIMITS)
    with pytest.raises(Failure) as rejection:
        check(schema(name=name), caller, LIMITS)
    assert rejection.value.message == Message(
        "schema_name_not_valid",
        field="response_format.json_schema.name",
        value=repr(name),
    )
    assert rejection.value.message.field == "response_format.json_schema.name"


def test_the_description_of_a_schema_is_reported_as_ignored(caller: ServedModel) -> None:
    request = schema(name="a", description="what it is for")
    assert ignored_parameters(request, caller) == ["response_format.json_schema.description"]
    request.refuse_ignored_parameters = True
    with pytest.raises(Failure) as caught:
        check(request, caller, LIMITS)
    assert caught.value.message == Message(
        "field_would_be_ignored", field="response_format.json_schema.description", model="smollm2-135m"
    )


def test_a_response_format_beside_a_required_call_is_reported_as_ignored(caller: ServedModel) -> None:
    request = estimate({"f": {}})
    request.response_format.json_schema.CopyFrom(pb.JsonSchemaFormat(schema_json="{}", description="what it is for"))
    check(request, caller, LIMITS)
    assert ignored_parameters(request, caller) == ["response_format"]
    request.refuse_ignored_parameters = True
    with pytest.raises(Failure) as caught:
        check(request, caller, LIMITS)
    assert caught.value.message == Message("field_would_be_ignored", field="response_format", model="smollm2-135m")


def test_an_invalid_response_format_is_rejected_also_beside_a_required_call(caller: ServedModel) -> None:
    request = estimate({"f": {}})
    request.response_format.json_schema.schema_json = "{"
    with pytest.raises(Failure) as rejection:
        check(request, caller, LIMITS)
    assert rejection.value.message == Message(
        "json_not_valid",
        field="response_format.json_schema.schema_json",
        reason="Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    )
    assert rejection.value.message.field == "response_format.json_schema.schema_json"
