"""Limits on numbers, sizes and references in JSON Schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits, check
from services.inference.request.structured_output.schema_limits import check_schema
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

LIMITS = RequestLimits()
USER = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])
HUGE = 1_000_000_000


def nested(depth: int) -> dict[str, Any]:
    return {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(depth)}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"type": "array", "items": {"type": "integer"}, "minItems": HUGE},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"type": "array", "items": {"type": "integer"}, "maxItems": HUGE},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.maxItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"type": "array", "minItems": 18446744073709551615},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="18446744073709551615",
                at="$.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"minItems": -1},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="-1",
                at="$.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"minItems": 1e300},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1e+300",
                at="$.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"minItems": 10**400},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1e+308",
                at="$.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"properties": {"a": {"maxLength": 100_001}}},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="100001",
                at="$.properties.a.maxLength",
                least=0,
                most=100000,
            ),
        ),
        (
            {"properties": {"a b": {"minLength": HUGE}}},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at='$.properties["a b"].minLength',
                least=0,
                most=100000,
            ),
        ),
        (
            {"anyOf": [{}, {"minProperties": HUGE}]},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.anyOf[1].minProperties",
                least=0,
                most=10000,
            ),
        ),
        (
            {"maxProperties": HUGE},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.maxProperties",
                least=0,
                most=10000,
            ),
        ),
        (
            {"contains": {}, "minContains": HUGE},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.minContains",
                least=0,
                most=10000,
            ),
        ),
        (
            {"items": {"multipleOf": 123456789}},
            Message(
                "schema_multiple_out_of_range",
                field="response_format.json_schema.schema_json",
                value="123456789",
                at="$.items.multipleOf",
                limit=10000,
            ),
        ),
        (
            {"multipleOf": 1e-300},
            Message(
                "schema_multiple_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1e-300",
                at="$.multipleOf",
                limit=10000,
            ),
        ),
        (
            {"multipleOf": 0},
            Message(
                "schema_multiple_out_of_range",
                field="response_format.json_schema.schema_json",
                value="0",
                at="$.multipleOf",
                limit=10000,
            ),
        ),
        (
            {"maximum": 1e300},
            Message(
                "schema_bound_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1e+300",
                at="$.maximum",
                least=1e-20,
                most="1.84467e+19",
            ),
        ),
        (
            {"exclusiveMinimum": 1e-300},
            Message(
                "schema_bound_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1e-300",
                at="$.exclusiveMinimum",
                least=1e-20,
                most="1.84467e+19",
            ),
        ),
        (
            {"enum": list(range(5000))},
            Message(
                "schema_too_many_entries",
                field="response_format.json_schema.schema_json",
                value=5000,
                at="$.enum",
                limit=4096,
            ),
        ),
        (
            {"anyOf": [{}] * 600},
            Message(
                "schema_too_many_entries",
                field="response_format.json_schema.schema_json",
                value=600,
                at="$.anyOf",
                limit=512,
            ),
        ),
        (
            {"properties": {f"p{i}": {} for i in range(3000)}},
            Message(
                "schema_too_many_entries",
                field="response_format.json_schema.schema_json",
                value=3000,
                at="$.properties",
                limit=2048,
            ),
        ),
        (
            {"pattern": "a{5,2}"},
            Message(
                "repetition_backwards", field="response_format.json_schema.schema_json", value="{5,2}", at="$.pattern"
            ),
        ),
        (
            {"pattern": "a{100000}"},
            Message(
                "repetition_too_large",
                field="response_format.json_schema.schema_json",
                value="{100000}",
                at="$.pattern",
                limit=10000,
            ),
        ),
        (
            {"patternProperties": {"(a{1000}){10000}": {}}},
            Message(
                "repetitions_multiply",
                field="response_format.json_schema.schema_json",
                value=10000000,
                at='$.patternProperties["(a{1000}){10000}"]',
                limit=1000000,
            ),
        ),
        (
            {"properties": {"pattern": {"pattern": "a{100000}"}}},
            Message(
                "repetition_too_large",
                field="response_format.json_schema.schema_json",
                value="{100000}",
                at="$.properties.pattern.pattern",
                limit=10000,
            ),
        ),
        (
            {"$ref": "#/default", "default": {"minItems": HUGE}},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.default.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"$ref": "#/examples/1", "examples": [{}, {"maxItems": HUGE}]},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.examples[1].maxItems",
                least=0,
                most=10000,
            ),
        ),
        (
            {"items": {"$ref": "#/const/a~1b/c%20d"}, "const": {"a/b": {"c d": {"minLength": HUGE}}}},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at='$.const["a/b"]["c d"].minLength',
                least=0,
                most=100000,
            ),
        ),
        (
            {"$ref": "#/default", "default": {"$ref": "#/enum/0"}, "enum": [{"maxProperties": HUGE}]},
            Message(
                "schema_number_out_of_range",
                field="response_format.json_schema.schema_json",
                value="1000000000",
                at="$.enum[0].maxProperties",
                least=0,
                most=10000,
            ),
        ),
        (
            {"$ref": "#/x/default", "x": {"default": {"$ref": "#/x"}, "enum": [0] * 5000}},
            Message(
                "schema_too_many_entries",
                field="response_format.json_schema.schema_json",
                value=5000,
                at="$.x.enum",
                limit=4096,
            ),
        ),
        (
            nested(1500),
            Message("schema_references_chained", field="response_format.json_schema.schema_json", at="$", limit=64),
        ),
    ],
)
def test_a_schema_that_exceeds_a_limit_is_rejected_with_its_path(
    caller: ServedModel, schema: dict[str, Any], message: Message
) -> None:
    text = json.dumps(schema)
    form = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="x", schema_json=text))
    with pytest.raises(Failure) as rejection:
        check(pb.GenerateRequest(messages=[USER], response_format=form), caller, LIMITS)
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message == message
    tool = pb.Tool(name="f", parameters_json=text)
    demanded = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
    with pytest.raises(Failure) as rejection:
        check(pb.GenerateRequest(messages=[USER], tools=[tool], tool_choice=demanded), caller, LIMITS)
    assert rejection.value.message == message.with_fields(lambda _: "tools[0].parameters_json")
    check(pb.GenerateRequest(messages=[USER], tools=[tool]), caller, LIMITS)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10_000, "maxItems": 10_000, "items": {"maxLength": 100_000}},
        {"multipleOf": 0.01, "minimum": -(2**63), "maximum": 2**64, "exclusiveMinimum": 0},
        {"multipleOf": 1e-6},
        {"multipleOf": 100000},
        {"properties": {"minItems": {"const": HUGE}, "pattern": {"enum": ["a{5,2}", {"minItems": HUGE}]}}},
        {"default": {"minItems": HUGE}, "examples": [{"maxItems": HUGE}]},
        {"minItems": "many", "pattern": 5, "enum": "x", "multipleOf": True},
        {"pattern": r"^\{5,2\}[{5,2}]a{2,5}\p{L}{1,3}\u{1F600}$"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        nested(60),
    ],
)
def test_a_schema_within_the_limits_is_accepted(schema: dict[str, Any]) -> None:
    check_schema("f", schema)
