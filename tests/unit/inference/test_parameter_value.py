from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.parsing.parameter_value import ParameterSchema
from tests.support.hostile_structured_output.cases import Case, cases

DEFINITIONS: dict[str, Any] = {
    "Unit": {"enum": ["1", "2", "true"], "type": "string"},
    "Id": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
    "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "string"}]},
    "a/b~c d": {"type": "string"},
}


def meaning(text: str, schema: Any) -> Any:
    """Return the value that a client parses."""
    function = {"properties": {"p": schema}, "$defs": DEFINITIONS}
    return json.loads(ParameterSchema(function, "p").to_json(text), parse_constant=pytest.fail)


STRINGS: list[Any] = [
    {"type": "string"},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    {"oneOf": [{"type": "null"}, {"type": "string", "minLength": 1}]},
    {"type": "string", "nullable": True},
    {"allOf": [{"type": "string"}, {"description": "what"}]},
    {"enum": ["123", "true", "[1]"]},
    {"enum": ["a", "b"]},
    {"const": "123"},
    {"$ref": "#/$defs/Unit"},
    {"$ref": "#/$defs/Id"},
    {"$ref": "#/$defs/Loop"},
    {"$ref": "#/$defs/a~1b~0c%20d"},
    {"allOf": [{"$ref": "#/$defs/Unit"}], "description": "what"},
    {"anyOf": [{"type": "string"}, {"type": "object"}]},
]


@pytest.mark.parametrize("schema", STRINGS)
@pytest.mark.parametrize("text", ["123", "true", "1.50", "[1]", "", " x ", '"quoted"', "NaN"])
def test_a_text_is_a_string_if_the_schema_requires_one(schema: Any, text: str) -> None:
    assert meaning(text, schema) == text


@pytest.mark.parametrize("schema", [STRINGS[1], STRINGS[2], STRINGS[3], STRINGS[4], {"$ref": "#/$defs/Id"}])
def test_null_is_null_where_it_is_allowed(schema: Any) -> None:
    assert meaning("null", schema) is None
    assert meaning("null", {"type": "string"}) == "null"


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "integer"}, 5),
        (" 5\n", {"type": "integer"}, 5),
        ("5", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5),
        ("5.5", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "5.5"),
        ("true", {"type": ["boolean", "string"]}, True),
        ('{"a": 1}', {"anyOf": [{"type": "string"}, {"type": "object"}]}, {"a": 1}),
        ("1", {"enum": [1, "auto"]}, 1),
        ("true", {"enum": [1, "auto"]}, "true"),
        ('"a"', {"enum": ["a"]}, "a"),
        ("null", {}, None),
        ('[1, "x"]', {}, [1, "x"]),
        ("x y", {}, "x y"),
        ("x y", {"type": "integer"}, "x y"),
        ("[1]", {"type": "integer"}, [1]),
        ("5", True, 5),
        ("5", {"$ref": "#/nowhere"}, 5),
        ("5", {"type": "unheard of"}, 5),
    ],
)
def test_a_text_is_json_if_the_schema_allows_its_value(text: str, schema: Any, value: Any) -> None:
    result = meaning(text, schema)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize("schema", [{}, {"type": "array"}, {"type": "number"}])
@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "[NaN]", "[" * 100_000, "9" * 5_000])
def test_json_that_not_every_parser_accepts_is_a_string(schema: Any, text: str) -> None:
    assert meaning(text, schema) == text


def test_digits_and_escapes_are_passed_on_unchanged() -> None:
    schema = ParameterSchema({}, "p")
    for text in ("1.10", "12345678901234567890.5", '["\\ud800"]'):
        assert schema.to_json(text) == text


@pytest.mark.parametrize(("last", "text"), [(30, '"5"'), (2000, "5")])
def test_long_chains_of_references_take_little_time(last: int, text: str) -> None:
    chain: dict[str, Any] = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(last)}
    for one in chain.values():
        one["anyOf"] = [dict(branch) for branch in one["anyOf"]]
    function = {"properties": {"p": {"$ref": "#/$defs/d0"}}, "$defs": {**chain, f"d{last}": {"type": "string"}}}
    assert ParameterSchema(function, "p").to_json("5") == text


@given(text=st.text(max_size=20), schema=st.sampled_from([{}, *STRINGS, {"type": "number"}, {"enum": [1, None]}]))
def test_every_text_becomes_a_json_string_or_its_own_value(text: str, schema: Any) -> None:
    result = meaning(text, schema)
    if not isinstance(result, str):
        assert json.loads(text) == result


@pytest.mark.parametrize(
    ("schema", "is_text"),
    [
        ({"type": "string"}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"$ref": "#/$defs/Loop"}, True),
        ({}, False),
        ({"type": ["string", "object"]}, False),
        ({"enum": ["a"]}, False),
    ],
)
def test_schemas_whose_long_texts_can_only_be_strings_are_recognized(schema: Any, is_text: bool) -> None:
    assert ParameterSchema({"properties": {"p": schema}, "$defs": DEFINITIONS}, "p").is_text is is_text


def schema_of(case: Case) -> Any:
    """Return the schema that a hostile request has, or None."""
    match case.fields:
        case {"response_format": {"json_schema": {"schema": schema}}} | {"structured_outputs": {"json": schema}}:
            return schema
        case {"tools": [{"function": {"parameters": schema}}, *_]}:
            return schema
    return None


@pytest.mark.timeout(20)
def test_hostile_schemas_do_not_break_the_conversion_of_values() -> None:
    schemas = (schema_of(case) for case in cases(7, ()))
    for schema in itertools.islice((schema for schema in schemas if schema is not None), 300):
        # References begin at the function's schema.
        function = {**(schema if isinstance(schema, dict) else {}), "properties": {"p": schema}}
        parameter = ParameterSchema(function, "p")
        assert isinstance(parameter.is_text, bool)
        for text in ("", "5", "null", '["a"]', "x" * 4000):
            found = json.loads(parameter.to_json(text))
            assert found == text or found == json.loads(text)
