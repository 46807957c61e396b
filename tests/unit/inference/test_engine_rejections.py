"""Errors of an engine name the field of the request, and the part of a schema, that is at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.request.engine_rejections import restated
from services.runtime.failure import invalid
from services.runtime.messages.message import Message

F, G = pb.Tool(name="f"), pb.Tool(name="g", strict=True)
REQUIRED = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
ONLY_G = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, required=True, function_names=["g"])
SCHEMA = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(schema_json="{}"))
IN_G = ["anyOf", 1, "properties", "arguments", "properties", "a b", "pattern"]


@pytest.mark.parametrize(
    ("fields", "is_call", "pointer", "field", "at"),
    [
        (
            {"response_format": SCHEMA},
            False,
            ["properties", "list", "items", "anyOf", 1],
            "response_format.json_schema.schema_json",
            "$.properties.list.items.anyOf[1]",
        ),
        ({"tools": [F, G]}, True, IN_G, "tools[1].parameters_json", '$.properties["a b"].pattern'),
        (
            {"tools": [F, G], "tool_choice": REQUIRED},
            False,
            IN_G,
            "tools[1].parameters_json",
            '$.properties["a b"].pattern',
        ),
        (
            {"tools": [F, G], "tool_choice": ONLY_G},
            False,
            ["properties", "arguments", "type"],
            "tools[1].parameters_json",
            "$.type",
        ),
        (
            {"tools": [F, G], "response_format": SCHEMA},
            True,
            ["$defs", "g", "properties", "x"],
            "tools[1].parameters_json",
            "$.properties.x",
        ),
    ],
)
def test_the_part_of_a_schema_is_named_in_the_field_that_has_it(
    fields: dict[str, Any], is_call: bool, pointer: list[Any], field: str, at: str
) -> None:
    failure = invalid(
        Message("schema_part_not_valid", field="structured_output", at=json.dumps([is_call, *pointer]), value="1")
    )
    message = restated(failure, pb.GenerateRequest(**fields)).message
    assert message == Message("schema_part_not_valid", field=field, at=at, value="1")
    assert message.text().startswith(f"Invalid schema for {field}: ")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"response_format": SCHEMA}, "response_format.json_schema.schema_json"),
        ({"tools": [G], "tool_choice": REQUIRED}, "tool_choice"),
        ({"tools": [G]}, "tools"),
        ({"tools": [G], "response_format": SCHEMA}, "response_format.json_schema.schema_json"),
    ],
)
def test_other_errors_of_a_structured_output_name_the_field_that_asks_for_it(
    fields: dict[str, Any], field: str
) -> None:
    failure = invalid(Message("structured_output_too_complex", field="structured_output"))
    assert restated(failure, pb.GenerateRequest(**fields)).message.field == field
