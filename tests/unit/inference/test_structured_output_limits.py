"""Limits on numbers and sizes in schemas, regular expressions and grammars."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits, check
from services.inference.request.structured_output.grammar_limits import check_grammar
from services.inference.request.structured_output.regex_limits import check_regex
from services.inference.request.structured_output.schema_limits import check_schema
from services.inference.request.structured_output.structural_tag_limits import check_structural_tag
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


@pytest.mark.parametrize(
    ("regex", "problem"),
    [
        (
            "a{1000000000}",
            Message(
                "repetition_too_large",
                field="response_format.regex",
                value="{1000000000}",
                at="character 2",
                limit=10000,
            ),
        ),
        ("a{5,2}", Message("repetition_backwards", field="response_format.regex", value="{5,2}", at="character 2")),
        (
            "(a{1000}){1000}{1000}",
            Message(
                "repetitions_multiply",
                field="response_format.regex",
                value=1000000000,
                at="character 16",
                limit=1000000,
            ),
        ),
        (
            "((a{100}b){100}c){101}",
            Message(
                "repetitions_multiply", field="response_format.regex", value=1010000, at="character 18", limit=1000000
            ),
        ),
        (
            "a{99999999999999999999999}",
            Message(
                "repetition_too_large",
                field="response_format.regex",
                value="{99999999999999999999999}",
                at="character 2",
                limit=10000,
            ),
        ),
        (
            "(" * 65 + "a" + ")" * 65,
            Message("groups_nested_too_deeply", field="response_format.regex", value=65, at="character 65", limit=64),
        ),
        (
            "|".join("a" * 4097),
            Message(
                "too_many_alternatives", field="response_format.regex", value=4097, at="character 8192", limit=4096
            ),
        ),
        (
            "a{,100000}",
            Message(
                "repetition_too_large", field="response_format.regex", value="{,100000}", at="character 2", limit=10000
            ),
        ),
    ],
)
def test_a_regex_that_exceeds_a_limit_is_rejected(regex: str, problem: Message) -> None:
    with pytest.raises(Failure) as rejection:
        check_regex("response_format.regex", regex)
    assert rejection.value.message == problem


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        (
            'root ::= "a"{5,2}',
            Message("repetition_backwards", field="response_format.grammar", value="{5,2}", at="line 1, rule root"),
        ),
        (
            "root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000,
            Message(
                "groups_nested_too_deeply", field="response_format.grammar", value=65, at="line 1, rule root", limit=64
            ),
        ),
        (
            "root ::= [z-a]+",
            Message(
                "grammar_range_backwards",
                field="response_format.grammar",
                value="[z-a",
                at="line 1, rule root",
                first="U+007A",
                last="U+0061",
            ),
        ),
        (
            r"root ::= [^\x00-\U0010ffff]",
            Message(
                "grammar_class_empty",
                field="response_format.grammar",
                value="[^\\x00-\\U0010ffff]",
                at="line 1, rule root",
            ),
        ),
        (
            "root ::= <[1]> <[2]>",
            Message("grammar_names_token", field="response_format.grammar", value="<[1]>", at="line 1, rule root"),
        ),
        (
            "root ::= <|im_end|> <|im_start|>",
            Message("grammar_names_token", field="response_format.grammar", value="<|im_end|>", at="line 1, rule root"),
        ),
        (
            'root ::= "a"{1,1000000}',
            Message(
                "repetition_too_large",
                field="response_format.grammar",
                value="{1,1000000}",
                at="line 1, rule root",
                limit=10000,
            ),
        ),
        (
            'root ::= (("a"{1000}){1000}){1000}',
            Message(
                "repetitions_multiply",
                field="response_format.grammar",
                value=1000000000,
                at="line 1, rule root",
                limit=1000000,
            ),
        ),
        (
            "root ::= x{1000}\nx ::= y{1000}\ny ::= [a-z]{1000}",
            Message(
                "repetitions_multiply",
                field="response_format.grammar",
                value=1000000000,
                at="line 1, rule root",
                limit=1000000,
            ),
        ),
        (
            "root ::= " + "|".join(['"a"'] * 5000),
            Message(
                "too_many_alternatives", field="response_format.grammar", value=4097, at="line 1, rule root", limit=4096
            ),
        ),
        (
            "\n".join(f'r{i} ::= "a"' for i in range(600)),
            Message(
                "grammar_too_many_rules",
                field="response_format.grammar",
                value=501,
                at="line 501, rule r500",
                limit=500,
            ),
        ),
        (
            "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(400)) + '\nr400 ::= "a"',
            Message("grammar_rules_chained", field="response_format.grammar", value=257, rule="r255", limit=256),
        ),
        (
            "%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"',
            Message(
                "grammar_too_many_rules",
                field="response_format.grammar",
                value=501,
                at="line 502, rule r499",
                limit=500,
            ),
        ),
        (
            "%llguidance {}\nstart: R0\n" + "".join(f"R{i}: R{i + 1}\n" for i in range(4000)) + 'R4000: "a"',
            Message(
                "grammar_too_many_rules",
                field="response_format.grammar",
                value=501,
                at="line 502, rule R499",
                limit=500,
            ),
        ),
        (
            "%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(400)) + 'r400: "a"',
            Message("grammar_rules_chained", field="response_format.grammar", value=257, rule="r255", limit=256),
        ),
        (
            '%llguidance {}\nstart: "a"{5,2}',
            Message("repetition_backwards", field="response_format.grammar", value="{5,2}", at="line 2, rule start"),
        ),
        (
            '%llguidance {}\nstart: "a"~5..2',
            Message("repetition_backwards", field="response_format.grammar", value="~5..2", at="line 2, rule start"),
        ),
        (
            '%llguidance {}\nstart: "a"{1000000}',
            Message(
                "repetition_too_large",
                field="response_format.grammar",
                value="{1000000}",
                at="line 2, rule start",
                limit=10000,
            ),
        ),
        (
            '%llguidance {}\nstart: (("a"{1000}){1000}){1000}',
            Message(
                "repetitions_multiply",
                field="response_format.grammar",
                value=1000000000,
                at="line 2, rule start",
                limit=1000000,
            ),
        ),
        (
            "%llguidance {}\nstart: /a{1000000}/",
            Message(
                "repetition_too_large",
                field="response_format.grammar",
                value="{1000000}",
                at="line 2, rule start",
                limit=10000,
            ),
        ),
        (
            '%llguidance {}\nstart: X\nX: %json {"items": {}, "minItems": 1000000000}',
            Message(
                "schema_number_out_of_range",
                field="response_format.grammar",
                value="1000000000",
                at="line 3, rule X, $.minItems",
                least=0,
                most=10000,
            ),
        ),
        (
            "%llguidance {}\nstart: %lark {\nstart: a\na: /b{5,2}/\n}",
            Message("repetition_backwards", field="response_format.grammar", value="{5,2}", at="line 4, rule a"),
        ),
        (
            "%llguidance {}\nstart: " + "(" * 100 + '"a"' + ")" * 100,
            Message(
                "groups_nested_too_deeply", field="response_format.grammar", value=65, at="line 2, rule start", limit=64
            ),
        ),
    ],
)
def test_a_grammar_that_exceeds_a_limit_is_rejected_with_line_and_rule(grammar: str, problem: Message) -> None:
    with pytest.raises(Failure) as rejection:
        check_grammar("response_format.grammar", grammar)
    assert rejection.value.message == problem


@pytest.mark.parametrize(
    "repetition",
    [
        "~ 1 .. 1000000000",
        "~1 ..1000000000",
        "~1.. 1000000000",
        "~ // a comment\n 1000000000",
        "~ 1 # a comment\n.. 1000000000",
    ],
)
def test_spaces_and_comments_do_not_hide_a_repetition_of_a_lark_grammar(repetition: str) -> None:
    with pytest.raises(Failure) as caught:
        check_grammar("f", f'%llguidance {{}}\nstart: "a" {repetition}\n')
    assert (caught.value.message.id, caught.value.message.parameters["limit"]) == ("repetition_too_large", 10_000)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "yes" | "no"',
        '%llguidance {}\nstart: "a" /[a-z]{1,10}/ X{2,3}\nX[max_tokens=5]: "b" | %json {"type": "integer"} // c\n',
        '%llguidance {}\nstart: "(((((" "{5,2}" <[1]> /\\/{2}/',
    ],
)
def test_a_grammar_within_the_limits_is_accepted(grammar: str) -> None:
    check_grammar("f", grammar)


def test_all_parts_of_a_structural_tag_are_checked() -> None:
    check_structural_tag("f", {"structures": [{"begin": "<a>", "schema": {"minItems": 5}, "end": "</a>"}]})
    for part in ({"schema": {"minItems": HUGE}}, {"regex": "a{5,2}"}, {"grammar": 'root ::= "a"{5,2}'}):
        with pytest.raises(Failure):
            check_structural_tag("f", {"format": {"elements": [part]}})


@pytest.mark.parametrize(
    "text",
    [
        "(" * 65_000,
        "[" * 65_000,
        "a{" * 32_000,
        "\\" * 65_001,
        "\\p{" * 20_000,
        '"' * 65_000,
        "%llguidance {}\n" + "a: " * 20_000,
        "%llguidance {}\n" + "a[" * 32_000,
        "%llguidance {}\n" + "%json " * 10_000,
        "%llguidance {}\n" + "%json {" * 9_000,
        "%llguidance {}\n" + "/" * 65_000,
        "%llguidance {}\n" + '"\\' * 32_000,
        "%llguidance {}\n" + "a {a " * 13_000,
        "root ::= " + "{ " * 32_000,
        "root ::= a" + "{1" * 32_000,
        "root ::= " + "a\n" * 20_000,
        "#" * 65_000,
        "root ::= " + "<" * 65_000,
        "root ::= (" + "\n " * 32_000,
    ],
)
def test_no_text_takes_long_to_check(text: str) -> None:
    began = time.process_time()
    for look in (check_regex, check_grammar):
        with contextlib.suppress(Failure):
            look("f", text)
    assert time.process_time() - began < 2
