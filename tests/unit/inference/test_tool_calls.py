from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.pieces import Answer, CallArguments, CallStart
from services.inference.tool_calls import HermesParser, MiniMaxParser, ToolCallParser

FUNCTIONS: dict[str, Any] = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "search": {},
}
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "تهران", "days": 3}}\n</tool_call>'
MINIMAX = (
    '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">تهران</parameter>\n'
    '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>'
)
CALL = ("weather", {"city": "تهران", "days": 3})


def parse(kind: type[ToolCallParser], *texts: str) -> tuple[str, list[tuple[str, str]], int]:
    """The text, the calls with their arguments' JSON, and how many of them are complete."""
    parser = kind(FUNCTIONS)
    pieces = [piece for text in texts for piece in parser.feed(text)] + parser.close()
    names = [piece for piece in pieces if isinstance(piece, CallStart)]
    assert [call.index for call in names] == list(range(len(names)))
    arguments = ["".join(p.json for p in pieces if isinstance(p, CallArguments) and p.index == c.index) for c in names]
    text = "".join(piece.text for piece in pieces if isinstance(piece, Answer))
    return text, list(zip((call.name for call in names), arguments, strict=True)), parser.complete


def calls(kind: type[ToolCallParser], text: str) -> list[tuple[str, Any]]:
    _, found, complete = parse(kind, text)
    assert complete == len(found)
    return [(name, json.loads(arguments)) for name, arguments in found]


@pytest.mark.parametrize(("kind", "text"), [(HermesParser, HERMES), (MiniMaxParser, MINIMAX)])
def test_a_call(kind: type[ToolCallParser], text: str) -> None:
    assert calls(kind, text) == [CALL]
    assert parse(kind, text)[0] == ""


@pytest.mark.parametrize(("kind", "text"), [(HermesParser, HERMES), (MiniMaxParser, MINIMAX)])
def test_text_before_a_call_stays_and_line_breaks_between_go(kind: type[ToolCallParser], text: str) -> None:
    found = parse(kind, f"الان می‌پرسم.\n\n{text}\n{text}\n")
    assert (found[0], len(found[1]), found[2]) == ("الان می‌پرسم.", 2, 2)


def test_parallel_calls_of_minimax_stand_in_one_block() -> None:
    text = (
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">a</parameter>\n</invoke>\n'
        '<invoke name="search">\n<parameter name="q">[1, "x"]</parameter>\n</invoke>\n</minimax:tool_call>'
    )
    assert calls(MiniMaxParser, text) == [("weather", {"city": "a"}), ("search", {"q": [1, "x"]})]


@pytest.mark.parametrize(
    ("value", "schema", "meaning"),
    [
        ("5", {"type": "string"}, "5"),
        ("5", {"type": "integer"}, 5),
        ("x y", {"type": "integer"}, "x y"),
        ("null", {}, None),
        ("123", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "123"),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("true", {"type": ["string", "null"]}, "true"),
        ("true", {"$ref": "#/$defs/Unit"}, "true"),
        ("NaN", {"type": "number"}, "NaN"),
        ("1e400", {"type": "number"}, "1e400"),
        ("[" * 100_000, {}, "[" * 100_000),
    ],
)
def test_parameters_of_minimax_are_typed_by_the_schema(value: str, schema: Any, meaning: Any) -> None:
    definitions = {"Unit": {"enum": ["true", "false"]}}
    parser = MiniMaxParser({"f": {"properties": {"p": schema}, "$defs": definitions}})
    text = f'<minimax:tool_call><invoke name="f"><parameter name="p">{value}</parameter></invoke></minimax:tool_call>'
    arguments = "".join(piece.json for piece in parser.feed(text) if isinstance(piece, CallArguments))
    assert json.loads(arguments, parse_constant=pytest.fail) == {"p": meaning}


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": "city"}\n</tool_call>',
        '<tool_call>\n{"name": "weath',
        "<tool_call",
        "a < b <tool>",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert parse(HermesParser, text) == (text, [], 0)


@pytest.mark.parametrize(
    "text",
    [
        '<minimax:tool_call>\n<invoke name="unknown">\n</invoke>\n</minimax:tool_call>',
        "<minimax:tool_call>nothing</minimax:tool_call>",
        '<minimax:tool_call>\n<invoke name="wea',
    ],
)
def test_what_is_no_call_of_minimax_stays_text(text: str) -> None:
    assert parse(MiniMaxParser, text) == (text, [], 0)


@pytest.mark.parametrize("cut", range(70, len(HERMES) - 16, 7))
def test_a_call_that_is_cut_off_is_not_complete(cut: int) -> None:
    _, found, complete = parse(HermesParser, HERMES[: min(cut, HERMES.index("}}"))])
    assert len(found) <= 1
    assert complete == 0


def test_arguments_that_are_no_json_never_make_a_complete_call() -> None:
    text, found, complete = parse(HermesParser, HERMES.replace('"days": 3', '"days": three'))
    assert complete == 0
    assert found[0][1] == '{"city": "تهران", "days": t'
    assert text.endswith("</tool_call>")


def test_arguments_are_streamed_while_they_are_written() -> None:
    parser = HermesParser(FUNCTIONS)
    assert parser.feed('<tool_call>\n{"name": "weather", "arguments": {"ci') == [
        CallStart(0, "weather"),
        CallArguments(0, '{"ci'),
    ]
    assert parser.feed('ty"') == [CallArguments(0, 'ty"')]


PARTS = st.sampled_from(
    [
        HERMES,
        MINIMAX,
        "\n",
        "سلام ",
        "<tool",
        "_call>",
        "</tool_call>",
        '{"name": "weather", "arguments": {',
        "}",
        "<invoke",
    ]
)


@given(parts=st.lists(PARTS, max_size=5), kind=st.sampled_from([HermesParser, MiniMaxParser]), data=st.data())
def test_where_the_stream_is_cut_changes_nothing(
    parts: list[str], kind: type[ToolCallParser], data: st.DataObject
) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    assert parse(kind, *pieces) == parse(kind, text) == parse(kind, *text)
