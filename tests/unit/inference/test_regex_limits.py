"""Limits on repetitions, groups and alternatives in regular expressions."""

from __future__ import annotations

import pytest

from services.inference.request.structured_output.regex_limits import check_regex
from services.runtime.failure import Failure
from services.runtime.messages.message import Message


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
