"""Answers in a form, from a real model, with OpenAI's own SDK."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

MODEL = "smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "Tell me about Paris as JSON: name and size."}]


class City(BaseModel):
    """What is asked for."""

    name: Literal["Paris", "تهران"]
    size: Literal["small", "large"]
    rivers: Literal[1, 2, 3]


def test_a_class_comes_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=City, max_tokens=100)
    city = answer.choices[0].message.parsed
    assert isinstance(city, City)
    assert answer.choices[0].finish_reason == "stop"


def test_any_object_comes_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, response_format={"type": "json_object"}, max_tokens=300, seed=4
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    assert (answer.choices[0].message.content or "").lstrip().startswith("{")


def test_a_form_holds_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=City, max_tokens=100) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"guided_regex": r"[A-D]\. (yes|no)"}, r"[A-D]\. (yes|no)"),
        ({"guided_choice": ["بله (قطعاً)", "نه؟"]}, r"بله \(قطعاً\)|نه؟"),
        ({"structured_outputs": {"choice": ["a+b", "c|d"]}}, r"a\+b|c\|d"),
    ],
)
def test_other_forms(client: openai.OpenAI, form: dict[str, Any], pattern: str) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=40, seed=seed, temperature=1.5, extra_body=form
        )
        assert re.fullmatch(pattern, answer.choices[0].message.content or ""), answer.choices[0].message.content


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"guided_regex": "(" * 3}, "regex"),
        ({"guided_regex": "a" * 5000}, "4096"),
        ({"guided_choice": []}, "1 to 256"),
        ({"guided_json": json.dumps({"type": "nothing"})}, ""),
        ({"guided_json": json.loads('{"items":' * 40 + "{}" + "}" * 40)}, "at most 32"),
    ],
)
def test_a_form_that_is_none_is_rejected(client: openai.OpenAI, form: dict[str, Any], problem: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=40, extra_body=form)
    assert problem in str(refusal.value)
    assert (refusal.value.param or "").startswith(*form)


def test_the_model_says_that_it_can(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL).model_dump()
    assert model["capabilities"]["structured_output"] is True
    assert "response_format" in model["supported_parameters"]


def schema(**fields: Any) -> dict[str, Any]:
    value = {"type": "array", "items": {"type": "integer"}, **fields}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def grammar(text: str) -> dict[str, Any]:
    return {"structured_outputs": {"grammar": text}}


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "minItems": (schema(minItems=1_000_000_000), "1000000000 at $.minItems"),
    "maxItems": (schema(maxItems=1_000_000_000), "1000000000 at $.maxItems"),
    "minItems of 64 bits": (schema(minItems=18446744073709551615), "18446744073709551615 at $.minItems"),
    "a repetition that ends before it begins": (grammar('root ::= "a"{5,2}'), "{5,2} ends before it begins"),
    "parentheses": (grammar("root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000), "nested more than 64 deep"),
    "a chain of rules": (
        grammar("%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"'),
        "501 rules",
    ),
    "a chain of terminals": (
        grammar("%llguidance {}\nstart: R0\n" + "".join(f"R{i}: R{i + 1}\n" for i in range(4000)) + 'R4000: "a"'),
        "501 rules",
    ),
    "what only the trial finds": (
        grammar("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(25)) + "r25 ::= [a-z]?"),
        "structured_outputs.grammar",
    ),
    "a class turned around": (grammar("root ::= [z-a]+"), "turn it around"),
    "an empty class": (grammar(r"root ::= [^\x00-\U0010ffff]"), "no character at all"),
    "tokens by number": (grammar("root ::= <[1]> <[2]>"), "<[1]>"),
    "tokens by name": (grammar("root ::= <|im_end|> <|im_start|>"), "<|im_end|>"),
    "a tiny repetition penalty": ({"repetition_penalty": 1e-40}, "repetition_penalty"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_form_is_rejected_and_the_model_goes_on(client: openai.OpenAI, what: str) -> None:
    form, problem = HOSTILE[what]
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=40, extra_body=form, timeout=10)
    assert problem in str(refusal.value)
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2, timeout=10)
    assert answer.choices[0].finish_reason


AMBIGUOUS = (
    "root ::= s\ns ::= [a-zA-Z ,.!?] s? s? s? | [a-zA-Z ,.!?]",
    'root ::= (x | x x | x x x)+ "!"\nx ::= [a-z ] | [a-z ] [a-z ] | x2\nx2 ::= [a-z ]*',
    "root ::= " + "[a-zA-Z ,.]* " * 200,
    "root ::= " + "(" * 12 + "[a-z ]" + ")+" * 12,
)


@pytest.mark.parametrize("text", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_an_ambiguous_grammar_ends_in_time_and_the_model_goes_on(client: openai.OpenAI, text: str) -> None:
    """The answer is complete, or an error says that the grammar became too complex to be followed."""
    try:
        answer = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=60, temperature=1.0, extra_body=grammar(text), timeout=10
        )
        assert answer.choices[0].finish_reason in ("stop", "length")
    except openai.BadRequestError as refusal:
        assert "too complex to be followed" in str(refusal)
    assert client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2, timeout=10).choices


@pytest.mark.parametrize("values", [{"temperature": 1e-40}, {"top_p": 1e-40}, {"extra_body": {"min_p": 1e-40}}])
def test_a_number_next_to_zero_is_no_error_of_the_server(client: openai.OpenAI, values: dict[str, Any]) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5, timeout=20, **values)
    assert answer.choices[0].message.content is not None
