"""Limits on repetitions, groups and rules in grammars."""

from __future__ import annotations

import pytest

from services.inference.request.structured_output.grammar_limits import check_grammar
from services.runtime.failure import Failure
from services.runtime.messages.message import Message


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
