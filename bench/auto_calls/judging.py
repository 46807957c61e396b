"""Finds calls in recorded answers, in every form in which models write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import jsonschema_rs

from bench.auto_calls.prompts import CALL, JSON, TEXT, Prompt
from bench.ratios import table
from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.segments import CallArguments, CallStart

_BLOCK: Final = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)


class Form(Enum):
    """A form in which an answer has a call."""

    TAGGED = "in `<tool_call>`"
    """The call that the parser of the catalog entry recognises."""
    BLOCK = "as a JSON code block"
    """The whole answer is the block."""
    BARE = "as JSON"
    """The whole answer is the JSON."""
    DOUBLED = "as JSON in doubled braces"
    """The notation of the models' chat template."""
    IN_TEXT = "as JSON with text or more JSON around it"


@dataclass(frozen=True)
class Call:
    """A call of an offered function, with arguments that are valid for its schema."""

    name: str
    form: Form


@dataclass(frozen=True)
class Judged:
    """An answer to a prompt: its first call, if it has one."""

    prompt: Prompt
    call: Call | None

    @property
    def is_right(self) -> bool:
        """Whether it calls the function whose call is right."""
        return self.call is not None and self.call.name == self.prompt.kind

    @property
    def is_untagged(self) -> bool:
        """Whether the whole answer is a call without tags: what a parser of such calls would recognise."""
        return self.call is not None and self.call.form in (Form.BLOCK, Form.BARE, Form.DOUBLED)


def judge(prompts: Iterable[Prompt], answers: Mapping[str, str]) -> list[Judged]:
    """Return the judged answers to those prompts that have one; `answers` has them by the text of the prompt."""
    return [Judged(p, first_call(answers[p.text], p.tools)) for p in prompts if p.text in answers]


def first_call(answer: str, tools: Iterable[Mapping[str, Any]]) -> Call | None:
    """Return the first call in an answer, in any form."""
    schemas = {tool["name"]: tool["parameters"] for tool in tools}
    if (tagged := _tagged(answer, schemas)) is not None:
        return Call(tagged, Form.TAGGED)
    whole = answer.strip()
    block = _BLOCK.fullmatch(whole)
    content = block[1].strip() if block else whole
    for start, end, value in _objects(content):
        if _is_call(value, schemas):
            around = content[:start].strip(), content[end:].strip()
            if around == ("", ""):
                return Call(value["name"], Form.BLOCK if block else Form.BARE)
            return Call(value["name"], Form.DOUBLED if around == ("{", "}") else Form.IN_TEXT)
    return None


def _tagged(answer: str, schemas: Mapping[str, Any]) -> str | None:
    parser = HermesParser(schemas, only_one=True)
    segments = [*parser.feed(answer), *parser.close()]
    names = [segment.name for segment in segments if isinstance(segment, CallStart)]
    arguments = "".join(segment.json for segment in segments if isinstance(segment, CallArguments))
    is_call = parser.complete and _is_call({"name": names[0], "arguments": json.loads(arguments)}, schemas)
    return names[0] if is_call else None


def _objects(text: str) -> Iterator[tuple[int, int, Any]]:
    """Yield the outermost JSON objects in a text, with the offsets of their beginnings and ends."""
    decoder, end = json.JSONDecoder(), 0
    for match in re.finditer(r"\{", text):
        if match.start() >= end:
            try:
                value, end = decoder.raw_decode(text, match.start())
            except ValueError:
                continue
            yield match.start(), end, value


def _is_call(value: Any, schemas: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "arguments"}
        and isinstance(value["name"], str)
        and value["name"] in schemas
        and isinstance(value["arguments"], dict)
        and bool(jsonschema_rs.is_valid(schemas[value["name"]], value["arguments"]))
    )


def report(judged: Mapping[str, Sequence[Judged]]) -> str:
    """Format the numbers of answers, by the name of their model, as a table."""
    rows = [
        [label, *(_cell(answers, expects, counts) for answers in judged.values())] for label, expects, counts in _ROWS
    ]
    return table(["", *judged], rows)


def _cell(answers: Iterable[Judged], expects: Callable[[Prompt], bool], counts: Callable[[Judged], bool]) -> str:
    chosen = [one for one in answers if expects(one.prompt)]
    return f"{sum(map(counts, chosen))} of {len(chosen)}"


def _expects(*kinds: str) -> Callable[[Prompt], bool]:
    return lambda prompt: prompt.expects in kinds


def _in_form(form: Form) -> Callable[[Judged], bool]:
    return lambda one: one.call is not None and one.call.form is form


def _right_in(form: Form) -> Callable[[Judged], bool]:
    return lambda one: one.is_right and _in_form(form)(one)


_ROWS: Final[Sequence[tuple[str, Callable[[Prompt], bool], Callable[[Judged], bool]]]] = [
    *((f"A call is right: it came {form.value}", _expects(CALL), _right_in(form)) for form in Form),
    ("A call is right: another call came, or none", _expects(CALL), lambda one: not one.is_right),
    ("Text is right: a call came in `<tool_call>`", _expects(TEXT), _in_form(Form.TAGGED)),
    ("Text is right: the whole answer is a call without tags", _expects(TEXT), lambda one: one.is_untagged),
    ("JSON is right: a call came in `<tool_call>`", _expects(JSON), _in_form(Form.TAGGED)),
    (
        "The call is to be shown as JSON: the whole answer is that call without tags",
        lambda prompt: prompt.kind == "shown",
        lambda one: one.is_untagged,
    ),
    (
        "Other JSON is right: the whole answer is a call without tags",
        lambda prompt: prompt.expects == JSON and prompt.kind != "shown",
        lambda one: one.is_untagged,
    ),
]
