"""The judgement of answers to prompts with tools."""

from __future__ import annotations

import jsonschema_rs
import pytest

from bench.auto_calls.judging import Form, first_call, judge, report
from bench.auto_calls.prompts import CALL, JSON, TEXT, Prompt, prompt_sets

TOOLS = [
    {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    {"name": "stop", "parameters": {"type": "object", "properties": {}}},
]
WRITTEN = '{"name": "weather", "arguments": {"city": "یزد"}}'
TAGGED = f"<tool_call>\n{WRITTEN}\n</tool_call>"


def block(text: str) -> str:
    return f"```json\n{text}\n```"


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (TAGGED, Form.TAGGED),
        (f"I look.\n{TAGGED}", Form.TAGGED),
        (block(WRITTEN), Form.BLOCK),
        (f"\n{WRITTEN}\n", Form.BARE),
        (f"{{{WRITTEN}}}", Form.DOUBLED),
        (block(f"{{{WRITTEN}}}"), Form.DOUBLED),
        (f"This is it:\n{block(WRITTEN)}", Form.IN_TEXT),
        (f"{block(WRITTEN)}\nI wait.", Form.IN_TEXT),
        (f"{WRITTEN}\n{WRITTEN}", Form.IN_TEXT),
        (f"<tools>{WRITTEN}</tools>", Form.IN_TEXT),
    ],
)
def test_a_call_is_found_in_every_form(answer: str, form: Form) -> None:
    call = first_call(answer, TOOLS)
    assert call is not None
    assert (call.name, call.form) == ("weather", form)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "It is sunny.",
        block('["weather"]'),
        WRITTEN.replace("weather", "climate"),
        WRITTEN.replace('"weather"', "[1]"),
        WRITTEN.replace("city", "town"),
        WRITTEN.replace("}}", '}, "id": 1}'),
        WRITTEN.replace('{"city": "یزد"}', '"یزد"'),
        WRITTEN[:-1],
        TAGGED.replace("city", "town"),
    ],
)
def test_other_answers_have_no_call(answer: str) -> None:
    assert first_call(answer, TOOLS) is None


def test_the_table_counts_answers_by_what_is_right() -> None:
    prompts = [
        Prompt(TOOLS, CALL, "weather", "1"),
        Prompt(TOOLS, CALL, "stop", "2"),
        Prompt(TOOLS, TEXT, "none", "3"),
        Prompt(TOOLS, JSON, "shown", "4"),
        Prompt(TOOLS, JSON, "data", "5"),
        Prompt(TOOLS, JSON, "data", "not answered"),
    ]
    answers = {"1": TAGGED, "2": TAGGED, "3": WRITTEN, "4": block(WRITTEN), "5": block('{"city": "یزد"}')}
    table = report({"model": judge(prompts, answers)})
    assert table.splitlines()[2:] == [
        "| A call is right: it came in `<tool_call>` | 1 of 2 |",
        "| A call is right: it came as a JSON code block | 0 of 2 |",
        "| A call is right: it came as JSON | 0 of 2 |",
        "| A call is right: it came as JSON in doubled braces | 0 of 2 |",
        "| A call is right: it came as JSON with text or more JSON around it | 0 of 2 |",
        "| A call is right: another call came, or none | 1 of 2 |",
        "| Text is right: a call came in `<tool_call>` | 0 of 1 |",
        "| Text is right: the whole answer is a call without tags | 1 of 1 |",
        "| JSON is right: a call came in `<tool_call>` | 0 of 2 |",
        "| The call is to be shown as JSON: the whole answer is that call without tags | 1 of 1 |",
        "| Other JSON is right: the whole answer is a call without tags | 0 of 1 |",
    ]


def test_there_are_as_many_prompts_with_tools_as_the_documentation_says() -> None:
    prompts = [prompt for prompts in prompt_sets() for prompt in prompts]
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 200
    assert sum(prompt.expects == JSON for prompt in prompts) == 100
    for prompt in prompts:
        names = {tool["name"] for tool in prompt.tools}
        assert prompt.expects != CALL or prompt.kind in names
        for tool in prompt.tools:
            # YAML reads some words, such as a plain `on`, as other values than text.
            jsonschema_rs.validator_for(tool["parameters"])
