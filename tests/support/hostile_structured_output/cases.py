"""Generate structured-output requests that may harm an engine: schemas, regular expressions, grammars and choices.

Half of them mutate published material (the JSON Schema Test Suite) and grammars like those in manuals. The other half
come from families that are known to make parsers recurse, automata explode or allocations grow. The same seed and suite
generate the same cases.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tests.support.hostile_structured_output.gbnf import hostile_gbnf
from tests.support.hostile_structured_output.lark import hostile_lark
from tests.support.hostile_structured_output.regexes import hostile_regex
from tests.support.hostile_structured_output.schemas import hostile_schema

MAX_SUITE_FILE_BYTES: Final = 1_000_000
KINDS: Final = ("schema", "tool", "regex", "choice", "gbnf", "lark", "structural_tag")


class Case(NamedTuple):
    """One request: `fields` are merged into a chat request, and `label` names the family in reports."""

    label: str
    fields: dict[str, Any]


def load_suite(archive: Path) -> list[Any]:
    """Read the schemas of the JSON Schema Test Suite from the source archive of the package `jsonschema`.

    Args:
        archive: A `.tar.gz` whose members `*/json/tests/**/*.json` are lists of groups with a `schema` each.

    Returns:
        The schemas in the order of their file names.
    """
    schemas = []
    with tarfile.open(archive) as files:
        members = (member for member in files if "/json/tests/" in member.name and member.name.endswith(".json"))
        for member in sorted(members, key=lambda member: member.name):
            content = files.extractfile(member) if member.size <= MAX_SUITE_FILE_BYTES else None
            if content is not None:
                schemas += [group["schema"] for group in json.load(content)]
    return schemas


def cases(seed: int, suite: Sequence[Any]) -> Iterator[Case]:
    """Generate cases endlessly. The kinds take turns, so that a short run tries all of them."""
    random = Random(seed)
    while True:
        for kind in KINDS:
            yield _MAKERS[kind](random, suite)


def _schema_case(random: Random, suite: Sequence[Any]) -> Case:
    label, schema = hostile_schema(random, suite)
    form = {"type": "json_schema", "json_schema": {"name": "hostile", "schema": schema}}
    if random.random() < 0.2:
        return Case(f"schema by structured_outputs: {label}", {"structured_outputs": {"json": schema}})
    return Case(f"schema: {label}", {"response_format": form})


def _tool_case(random: Random, suite: Sequence[Any]) -> Case:
    tools = []
    labels = []
    for number in range(random.choice((1, 1, 2, 20))):
        label, schema = hostile_schema(random, suite)
        labels.append(label)
        if not isinstance(schema, dict) or schema.get("type") != "object":
            schema = {"type": "object", "properties": {"a": schema}}
        tools.append({"type": "function", "function": {"name": f"f{number}", "parameters": schema, "strict": True}})
    choice: Any = random.choice(("required", {"type": "function", "function": {"name": "f0"}}))
    return Case(f"tool: {labels[0]}", {"tools": tools, "tool_choice": choice})


def _regex_case(random: Random, suite: Sequence[Any]) -> Case:
    label, regex = hostile_regex(random)
    fields = random.choice(({"structured_outputs": {"regex": regex}}, {"guided_regex": regex}))
    return Case(f"regex: {label}", fields)


def _choice_case(random: Random, suite: Sequence[Any]) -> Case:
    count = random.choice((1, 2, 100, 256, 257, 5_000))
    make = random.choice(
        (
            lambda i: "a" * i or "b",
            lambda i: f"{'x' * 60}{i}",
            lambda i: "سلام\u200cها" + str(i),
            lambda i: random.choice(("\0", "\\", "(((", "]", "\x7f", "😀")) * 9,
            lambda i: "same",
            lambda i: "é" * 2_000 + str(i),
        )
    )  # fmt: skip
    return Case("choice", {"structured_outputs": {"choice": [make(i) for i in range(count)]}})


def _gbnf_case(random: Random, suite: Sequence[Any]) -> Case:
    label, grammar = hostile_gbnf(random)
    return Case(f"GBNF: {label}", {"structured_outputs": {"grammar": grammar}})


def _lark_case(random: Random, suite: Sequence[Any]) -> Case:
    label, grammar = hostile_lark(random, suite)
    return Case(f"Lark: {label}", {"structured_outputs": {"grammar": grammar}})


def _structural_tag_case(random: Random, suite: Sequence[Any]) -> Case:
    label, schema = hostile_schema(random, suite)
    tag = {"begin": "<f>", "schema": schema, "end": "</f>"}
    value = {"type": "structural_tag", "structures": [tag] * random.choice((1, 3, 500)), "triggers": ["<f"]}
    return Case(f"structural tag: {label}", {"response_format": value})


_MAKERS: Final[dict[str, Callable[[Random, Sequence[Any]], Case]]] = {
    "schema": _schema_case,
    "tool": _tool_case,
    "regex": _regex_case,
    "choice": _choice_case,
    "gbnf": _gbnf_case,
    "lark": _lark_case,
    "structural_tag": _structural_tag_case,
}


def is_longer(value: Any, length: int) -> bool:
    """Whether the JSON text of `value` is certainly longer than `length`. Shared parts count as often as they occur."""
    waiting = [value]
    while waiting and length >= 0:
        part = waiting.pop()
        if isinstance(part, dict):
            length -= sum(map(len, part)) + 2
            waiting.extend(part.values())
        elif isinstance(part, list):
            length -= len(part) + 1
            waiting.extend(part)
        else:
            length -= len(part) if isinstance(part, str) else 1
    return length < 0
