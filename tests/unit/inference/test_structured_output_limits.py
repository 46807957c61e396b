"""Limits of structural tags, and the time that checks of structured output take."""

from __future__ import annotations

import contextlib
import time

import pytest

from services.inference.request.structured_output.grammar_limits import check_grammar
from services.inference.request.structured_output.regex_limits import check_regex
from services.inference.request.structured_output.structural_tag_limits import check_structural_tag
from services.runtime.failure import Failure


def test_all_parts_of_a_structural_tag_are_checked() -> None:
    check_structural_tag("f", {"structures": [{"begin": "<a>", "schema": {"minItems": 5}, "end": "</a>"}]})
    for part in ({"schema": {"minItems": 1_000_000_000}}, {"regex": "a{5,2}"}, {"grammar": 'root ::= "a"{5,2}'}):
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
