"""Structured output from a real model, with OpenAI's own SDK."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.support.messages import message_id_of

MODEL = "smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "Tell me about Paris as JSON: name and size."}]


class City(BaseModel):
    """The schema of the output."""

    name: Literal["Paris", "تهران"]
    size: Literal["small", "large"]
    rivers: Literal[1, 2, 3]


def test_a_response_is_parsed_into_a_class(client: openai.OpenAI) -> None:
    response = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City, max_tokens=100)
    city = response.choices[0].message.parsed
    assert isinstance(city, City)
    assert response.choices[0].finish_reason == "stop"


def test_json_object_yields_an_object(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model=MODEL, messages=QUESTION, response_format={"type": "json_object"}, max_tokens=300, seed=4
    )
    if response.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(response.choices[0].message.content or ""), dict)
    assert (response.choices[0].message.content or "").lstrip().startswith("{")


def test_structured_output_can_be_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=City, max_tokens=100) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": r"[A-D]\. (yes|no)"}, r"[A-D]\. (yes|no)"),
        ({"guided_choice": ["بله (قطعاً)", "نه؟"]}, r"بله \(قطعاً\)|نه؟"),
        ({"structured_outputs": {"choice": ["a+b", "c|d"]}}, r"a\+b|c\|d"),
    ],
)
def test_regular_expressions_and_choices_are_followed(
    client: openai.OpenAI, fields: dict[str, Any], pattern: str
) -> None:
    for seed in range(3):
        response = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=40, seed=seed, temperature=1.5, extra_body=fields
        )
        assert re.fullmatch(pattern, response.choices[0].message.content or ""), response.choices[0].message.content


@pytest.mark.parametrize(
    ("fields", "message_id"),
    [
        ({"guided_regex": "(" * 3}, "structured_output_not_valid"),
        ({"guided_regex": "a" * 5000}, "text_length_out_of_range"),
        ({"guided_choice": []}, "entries_out_of_range"),
        ({"guided_json": json.dumps({"type": "nothing"})}, "schema_part_not_valid"),
        ({"guided_json": json.loads('{"items":' * 40 + "{}" + "}" * 40)}, "depth_over_limit"),
    ],
)
def test_invalid_structured_output_is_rejected(client: openai.OpenAI, fields: dict[str, Any], message_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as rejection:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=40, extra_body=fields)
    assert message_id_of(rejection.value.response) == message_id
    assert (rejection.value.param or "").startswith(*fields)


def test_the_model_lists_structured_output(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL).model_dump()
    assert model["capabilities"]["structured_output"] is True
    assert "response_format" in model["supported_parameters"]


def schema(**fields: Any) -> dict[str, Any]:
    value = {"type": "array", "items": {"type": "integer"}, **fields}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def grammar(text: str) -> dict[str, Any]:
    return {"structured_outputs": {"grammar": text}}


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "minItems": (schema(minItems=1_000_000_000), "schema_number_out_of_range"),
    "maxItems": (schema(maxItems=1_000_000_000), "schema_number_out_of_range"),
    "minItems of 64 bits": (schema(minItems=18446744073709551615), "schema_number_out_of_range"),
    "a repetition with reversed bounds": (grammar('root ::= "a"{5,2}'), "repetition_backwards"),
    "parentheses": (grammar("root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000), "groups_nested_too_deeply"),
    "a chain of rules": (
        grammar("%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"'),
        "grammar_too_many_rules",
    ),
    "a chain of terminals": (
        grammar("%llguidance {}\nstart: R0\n" + "".join(f"R{i}: R{i + 1}\n" for i in range(4000)) + 'R4000: "a"'),
        "grammar_too_many_rules",
    ),
    "a grammar that only the trial rejects": (
        grammar("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(25)) + "r25 ::= [a-z]?"),
        # The trial ends at the first of its limits, of time and of memory: the machine's speed decides which one it is.
        ("structured_output_not_valid", "structured_output_compiles_too_long"),
    ),
    "a reversed character class": (grammar("root ::= [z-a]+"), "grammar_range_backwards"),
    "an empty character class": (grammar(r"root ::= [^\x00-\U0010ffff]"), "grammar_class_empty"),
    "tokens by number": (grammar("root ::= <[1]> <[2]>"), "grammar_names_token"),
    "tokens by name": (grammar("root ::= <|im_end|> <|im_start|>"), "grammar_names_token"),
    "a tiny repetition penalty": ({"repetition_penalty": 1e-40}, "out_of_range"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_structured_output_is_rejected_and_the_model_stays_available(client: openai.OpenAI, what: str) -> None:
    fields, message_ids = HOSTILE[what]
    with pytest.raises(openai.BadRequestError) as rejection:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=40, extra_body=fields, timeout=10)
    allowed = {message_ids} if isinstance(message_ids, str) else set(message_ids)
    assert message_id_of(rejection.value.response) in allowed
    response = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2, timeout=10)
    assert response.choices[0].finish_reason


AMBIGUOUS = (
    "root ::= s\ns ::= [a-zA-Z ,.!?] s? s? s? | [a-zA-Z ,.!?]",
    'root ::= (x | x x | x x x)+ "!"\nx ::= [a-z ] | [a-z ] [a-z ] | x2\nx2 ::= [a-z ]*',
    "root ::= " + "[a-zA-Z ,.]* " * 200,
    "root ::= " + "(" * 12 + "[a-z ]" + ")+" * 12,
)


@pytest.mark.parametrize("text", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_an_ambiguous_grammar_ends_in_time_and_the_model_stays_available(client: openai.OpenAI, text: str) -> None:
    """The response is complete, or an error reports that the grammar became too complex."""
    try:
        response = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=60, temperature=1.0, extra_body=grammar(text), timeout=10
        )
        assert response.choices[0].finish_reason in ("stop", "length")
    except openai.BadRequestError as rejection:
        assert message_id_of(rejection.response) == "structured_output_too_complex"
    assert client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2, timeout=10).choices


@pytest.mark.parametrize("values", [{"temperature": 1e-40}, {"top_p": 1e-40}, {"extra_body": {"min_p": 1e-40}}])
def test_a_parameter_close_to_zero_causes_no_internal_error(client: openai.OpenAI, values: dict[str, Any]) -> None:
    response = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5, timeout=20, **values)
    assert response.choices[0].message.content is not None
