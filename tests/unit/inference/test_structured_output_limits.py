"""Limits on numbers and sizes in schemas, regular expressions and grammars."""

from __future__ import annotations

import contextlib
import json
import time
from functools import partial
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_fields import openai_name
from services.gateway.dialects.worker_fields import use_callers_names
from services.gateway.i18n.language import translated
from services.gateway.routing.failures import api_error
from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits, check
from services.inference.request.structured_output.grammar_limits import check_grammar
from services.inference.request.structured_output.regex_limits import check_regex
from services.inference.request.structured_output.schema_limits import check_schema
from services.inference.request.structured_output.structural_tag_limits import check_structural_tag
from services.runtime.failure import Failure, Reason

LIMITS = RequestLimits()
USER = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="?")])
HUGE = 1_000_000_000


def nested(depth: int) -> dict[str, Any]:
    return {"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(depth)}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"type": "array", "items": {"type": "integer"}, "minItems": HUGE}, "1000000000 at $.minItems"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": HUGE}, "1000000000 at $.maxItems"),
        ({"type": "array", "minItems": 18446744073709551615}, "18446744073709551615 at $.minItems"),
        ({"minItems": -1}, "-1 at $.minItems"),
        ({"minItems": 1e300}, "$.minItems"),
        ({"minItems": 10**400}, "$.minItems"),
        ({"properties": {"a": {"maxLength": 100_001}}}, "100001 at $.properties.a.maxLength"),
        ({"properties": {"a b": {"minLength": HUGE}}}, '$.properties["a b"].minLength'),
        ({"anyOf": [{}, {"minProperties": HUGE}]}, "$.anyOf[1].minProperties"),
        ({"maxProperties": HUGE}, "$.maxProperties"),
        ({"contains": {}, "minContains": HUGE}, "$.minContains"),
        ({"items": {"multipleOf": 123456789}}, "123456789 at $.items.multipleOf"),
        ({"multipleOf": 1e-300}, "$.multipleOf"),
        ({"multipleOf": 0}, "$.multipleOf"),
        ({"maximum": 1e300}, "$.maximum"),
        ({"exclusiveMinimum": 1e-300}, "$.exclusiveMinimum"),
        ({"enum": list(range(5000))}, "5000 entries at $.enum"),
        ({"anyOf": [{}] * 600}, "600 entries at $.anyOf"),
        ({"properties": {f"p{i}": {} for i in range(3000)}}, "3000 entries at $.properties"),
        ({"pattern": "a{5,2}"}, "$.pattern"),
        ({"pattern": "a{100000}"}, "{100000} at $.pattern"),
        ({"patternProperties": {"(a{1000}){10000}": {}}}, "$.patternProperties"),
        ({"properties": {"pattern": {"pattern": "a{100000}"}}}, "$.properties.pattern.pattern"),
        ({"$ref": "#/default", "default": {"minItems": HUGE}}, "$.default.minItems"),
        ({"$ref": "#/examples/1", "examples": [{}, {"maxItems": HUGE}]}, "$.examples[1].maxItems"),
        ({"items": {"$ref": "#/const/a~1b/c%20d"}, "const": {"a/b": {"c d": {"minLength": HUGE}}}}, "minLength"),
        ({"$ref": "#/default", "default": {"$ref": "#/enum/0"}, "enum": [{"maxProperties": HUGE}]}, "$.enum[0]"),
        ({"$ref": "#/x/default", "x": {"default": {"$ref": "#/x"}, "enum": [0] * 5000}}, "5000 entries at $.x.enum"),
        (nested(1500), "chain of more than 64 references"),
    ],
)
def test_a_schema_that_exceeds_a_limit_is_rejected_with_its_path(
    caller: ServedModel, schema: dict[str, Any], part: str
) -> None:
    text = json.dumps(schema)
    form = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="x", schema_json=text))
    with pytest.raises(Failure, match=None) as rejection:
        check(pb.GenerateRequest(messages=[USER], response_format=form), caller, LIMITS)
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert part in str(rejection.value)
    assert rejection.value.message.field == "response_format.json_schema.schema_json"
    tool = pb.Tool(name="f", parameters_json=text)
    demanded = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)
    with pytest.raises(Failure) as rejection:
        check(pb.GenerateRequest(messages=[USER], tools=[tool], tool_choice=demanded), caller, LIMITS)
    assert part in str(rejection.value)
    assert rejection.value.message.field == "tools[0].parameters_json"
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
        ("a{1000000000}", "{1000000000}; at most 10000"),
        ("a{5,2}", "{5,2}, which ends before it begins"),
        ("(a{1000}){1000}{1000}", "repetitions inside one another"),
        ("((a{100}b){100}c){101}", "repetitions inside one another of 1010000"),
        ("a{99999999999999999999999}", "at most 10000"),
        ("(" * 65 + "a" + ")" * 65, "65 groups"),
        ("|".join("a" * 4097), "alternatives"),
        ("a{,100000}", "at most 10000"),
    ],
)
def test_a_regex_that_exceeds_a_limit_is_rejected(regex: str, problem: str) -> None:
    with pytest.raises(Failure, match=None) as rejection:
        check_regex("response_format.regex", regex)
    assert problem in str(rejection.value)


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ('root ::= "a"{5,2}', "ends before it begins"),
        ("root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000, "nested more than 64 deep"),
        ("root ::= [z-a]+", "goes from U+007A down to U+0061"),
        (r"root ::= [^\x00-\U0010ffff]", "matches no character at all"),
        ("root ::= <[1]> <[2]>", "refers to the token <[1]>"),
        ("root ::= <|im_end|> <|im_start|>", "refers to the token <|im_end|>"),
        ('root ::= "a"{1,1000000}', "is more than 10000"),
        ('root ::= (("a"{1000}){1000}){1000}', "multiply to more than 1000000"),
        ("root ::= x{1000}\nx ::= y{1000}\ny ::= [a-z]{1000}", "multiply"),
        ("root ::= " + "|".join(['"a"'] * 5000), "4096 alternatives"),
        ("\n".join(f'r{i} ::= "a"' for i in range(600)), "more than 500 rules"),
        ("root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(400)) + '\nr400 ::= "a"', "chain"),
        ("%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"', "501 rules"),
        ("%llguidance {}\nstart: R0\n" + "".join(f"R{i}: R{i + 1}\n" for i in range(4000)) + 'R4000: "a"', "501 rules"),
        ("%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(400)) + 'r400: "a"', "257 rules"),
        ('%llguidance {}\nstart: "a"{5,2}', "line 2, rule start"),
        ('%llguidance {}\nstart: "a"~5..2', "line 2, rule start"),
        ('%llguidance {}\nstart: "a"{1000000}', "at most 10000"),
        ('%llguidance {}\nstart: (("a"{1000}){1000}){1000}', "repetitions inside one another"),
        ("%llguidance {}\nstart: /a{1000000}/", "at most 10000"),
        ('%llguidance {}\nstart: X\nX: %json {"items": {}, "minItems": 1000000000}', "line 3, rule X, $.minItems"),
        ("%llguidance {}\nstart: %lark {\nstart: a\na: /b{5,2}/\n}", "{5,2}"),
        ("%llguidance {}\nstart: " + "(" * 100 + '"a"' + ")" * 100, "65 groups"),
    ],
)
def test_a_grammar_that_exceeds_a_limit_is_rejected_with_line_and_rule(grammar: str, problem: str) -> None:
    with pytest.raises(Failure, match=None) as rejection:
        check_grammar("response_format.grammar", grammar)
    assert problem in str(rejection.value)
    error = api_error(rejection.value, request_id="r")
    use_callers_names(error, partial(openai_name, structured_output_field="structured_outputs.grammar"))
    said = str(error)
    persian = translated(said, "fa") if "llguidance's Lark" not in said else "x"
    assert persian is not None, said


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
    with pytest.raises(Failure, match="at most 10000 are allowed"):
        check_grammar("f", f'%llguidance {{}}\nstart: "a" {repetition}\n')


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
