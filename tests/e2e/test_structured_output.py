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
def test_a_form_that_is_none_is_refused(client: openai.OpenAI, form: dict[str, Any], problem: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=40, extra_body=form)
    assert problem in refusal.value.message
    assert (refusal.value.param or "").startswith(*form)


def test_the_model_says_that_it_can(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL).model_dump()
    assert model["capabilities"]["structured_output"] is True
    assert "response_format" in model["supported_parameters"]
