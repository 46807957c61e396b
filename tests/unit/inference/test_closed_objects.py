"""Objects of schemas say whether they may have further properties, unless several schemas apply to one object."""

from __future__ import annotations

from typing import Any

import pytest

from services.inference.request.structured_output.call_schema import call_schema
from services.inference.request.structured_output.closed_objects import closed

CLOSED: dict[str, Any] = {"properties": {"a": {}}, "additionalProperties": False}
OPEN: dict[str, Any] = {"properties": {"a": {}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (OPEN, CLOSED),
        ({"type": "object"}, {"type": "object", "additionalProperties": True}),
        ({**OPEN, "additionalProperties": True}, {**OPEN, "additionalProperties": True}),
        ({**OPEN, "additionalProperties": {"type": "string"}}, {**OPEN, "additionalProperties": {"type": "string"}}),
        ({"items": OPEN}, {"items": CLOSED}),
        ({"anyOf": [OPEN, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        ({"$ref": "#/$defs/A", "$defs": {"A": OPEN}}, {"$ref": "#/$defs/A", "$defs": {"A": CLOSED}}),
        (
            {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": OPEN}},
            {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": CLOSED}},
        ),
        ({"properties": {"properties": OPEN}}, {"properties": {"properties": CLOSED}, "additionalProperties": False}),
        ({"enum": [OPEN], "default": OPEN}, {"enum": [OPEN], "default": OPEN}),
        (True, True),
    ],
)
def test_an_object_that_lists_its_properties_has_no_others(schema: Any, expected: Any) -> None:
    assert closed(schema) == expected
    assert closed(expected) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {**OPEN, "required": ["a", "b"]},
        {**OPEN, "minProperties": 2},
        {**OPEN, "patternProperties": {"^x": {}}},
        {"allOf": [OPEN, {"properties": {"b": {}}}]},
        {**OPEN, "anyOf": [{"properties": {"b": {}}}]},
        {**OPEN, "$ref": "#/$defs/A", "$defs": {"A": {"properties": {"b": {}}}}},
        {"if": OPEN, "then": OPEN},
        {**OPEN, "unevaluatedProperties": False},
        {"properties": {"a": {"allOf": [OPEN, OPEN]}}},
    ],
)
def test_a_schema_that_needs_further_properties_is_left_as_it_is(schema: Any) -> None:
    assert closed(schema) == schema


def test_arguments_of_calls_are_closed_as_well() -> None:
    assert call_schema({"f": OPEN})["properties"]["arguments"] == {"type": "object", **CLOSED}
    assert call_schema({"f": {}})["properties"]["arguments"] == {"type": "object", "additionalProperties": True}
