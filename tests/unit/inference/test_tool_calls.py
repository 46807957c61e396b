"""Tool calls in both notations: which text is a call, and that no text is lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.minimax_calls import MiniMaxParser
from services.inference.parsing.segments import CallArguments, CallStart, Text
from services.inference.parsing.tool_calls import MOST_HELD, ToolCallParser

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
UNKNOWN = HERMES.replace("weather", "unknown")
LONG = "واژه " * MOST_HELD
BOTH = pytest.mark.parametrize(("kind", "call"), [(HermesParser, HERMES), (MiniMaxParser, MINIMAX)])


def parse(kind: type[ToolCallParser], *texts: str, only_one: bool = False) -> tuple[str, list[tuple[str, str]], int]:
    """Return the text, the calls with their arguments' JSON, and the number of complete calls."""
    parser = kind(FUNCTIONS, only_one=only_one)
    segments = [segment for text in texts for segment in parser.feed(text)] + parser.close()
    names = [segment for segment in segments if isinstance(segment, CallStart)]
    assert [call.index for call in names] == list(range(len(names)))
    arguments = [
        "".join(p.json for p in segments if isinstance(p, CallArguments) and p.index == c.index) for c in names
    ]
    content = [segment for segment in segments if isinstance(segment, Text)]
    assert all("".join(texts)[segment.start :].startswith(segment.text) and segment.text for segment in content)
    text = "".join(segment.text for segment in content)
    return text, list(zip((call.name for call in names), arguments, strict=True)), parser.complete


def calls(kind: type[ToolCallParser], text: str) -> list[tuple[str, Any]]:
    _, parsed, complete = parse(kind, text)
    assert complete == len(parsed)
    return [(name, json.loads(arguments)) for name, arguments in parsed]


def minimax(*invokes: str) -> str:
    return "<minimax:tool_call>\n" + "\n".join(invokes) + "\n</minimax:tool_call>"


def invoke(name: str, **parameters: str) -> str:
    lines = [f'<parameter name="{parameter}">{value}</parameter>' for parameter, value in parameters.items()]
    return "\n".join([f'<invoke name="{name}">', *lines, "</invoke>"])


@BOTH
def test_a_call_is_parsed(kind: type[ToolCallParser], call: str) -> None:
    assert calls(kind, call) == [CALL]
    assert parse(kind, call)[0] == ""


@BOTH
def test_text_before_a_call_is_kept_without_the_line_breaks_around_the_call(
    kind: type[ToolCallParser], call: str
) -> None:
    parsed = parse(kind, f"الان می‌پرسم.\n\n{call}\n{call}\n")
    assert (parsed[0], len(parsed[1]), parsed[2]) == ("الان می‌پرسم.", 2, 2)


@BOTH
def test_text_behind_a_call_is_kept(kind: type[ToolCallParser], call: str) -> None:
    text, parsed, complete = parse(kind, f"{call}\nپاسخ ۴۲ است.\n")
    assert (text, len(parsed), complete) == ("پاسخ ۴۲ است.\n", 1, 1)


@BOTH
def test_text_behind_the_only_allowed_call_is_ignored(kind: type[ToolCallParser], call: str) -> None:
    assert parse(kind, f"a\n{call}\n{call} b", only_one=True) == parse(kind, f"a\n{call}")


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", "{}", '"{}" ', "'{}'\n", "{} "])
def test_names_of_minimax_may_have_any_quotes(quoted: str) -> None:
    function, parameter = quoted.format("weather"), quoted.format("city")
    text = minimax(f"<invoke name={function}>\n<parameter name={parameter}>تهران</parameter>\n</invoke>")
    assert calls(MiniMaxParser, text) == [("weather", {"city": "تهران"})]


def test_a_minimax_block_may_have_parallel_calls() -> None:
    text = minimax(invoke("weather", city="a"), invoke("search", q='[1, "x"]'), invoke("search"))
    assert calls(MiniMaxParser, text) == [("weather", {"city": "a"}), ("search", {"q": [1, "x"]}), ("search", {})]


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
    arguments = "".join(segment.json for segment in parser.feed(text) if isinstance(segment, CallArguments))
    assert json.loads(arguments, parse_constant=pytest.fail) == {"p": meaning}


@pytest.mark.parametrize("value", ["a < b", 'a\n"b" \\ </', "<parameter>", '<parameter name="x" value="1"/>', LONG])
def test_a_minimax_value_may_resemble_the_notation(value: str) -> None:
    assert calls(MiniMaxParser, minimax(invoke("weather", city=value, days="3"))) == [
        ("weather", {"city": value, "days": 3})
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnot json\n</tool_call>",
        UNKNOWN,
        f"one\n\n{UNKNOWN}\n",
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": "city"}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {}, "id": 1}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {}} that is all </tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool _call>',
        '<tool_call>\n{"name": "weath',
        "<tool_call",
        "a < b <tool>",
        HERMES.replace("3", "three"),
        HERMES[: HERMES.index("}}")],
        f"{UNKNOWN}\n<tool_call>",
        f"<tool_call>{'x' * 600}</tool_call>",
        f"<tool_call>{' ' * 600}</tool_call>",
    ],
)
def test_an_invalid_hermes_call_stays_text(text: str) -> None:
    assert parse(HermesParser, text) == parse(HermesParser, *text) == (text, [], 0)


@pytest.mark.parametrize(
    "text",
    [
        minimax('<invoke name="unknown">\n</invoke>'),
        minimax(),
        "<minimax:tool_call>nothing</minimax:tool_call>",
        '<minimax:tool_call>\n<invoke name="wea',
        minimax('<invoke name="weather">garbage</invoke>') + "\nThe final answer is 42.",
        minimax('<invoke name="weather">\n<parameter name="city">1\n</invoke>', invoke("weather", city="2")),
        minimax('<invoke name="weather">\n<parameter name="city">1\n<parameter name="days">2</parameter>\n</invoke>'),
        minimax('<invoke name="weather">\n<parameter name="city">1') + "\nand so on",
        minimax('<invoke name="weather">\n<parameter name="city">1</parameter>'),
        minimax(invoke("weather", city="1").replace("</invoke>", '<parameter name="city">2</parameter></invoke>')),
        f"one\n\n{MINIMAX[:60]}",
        MINIMAX[: MINIMAX.index("</invoke>")],
    ],
)
def test_an_invalid_minimax_call_stays_text(text: str) -> None:
    assert parse(MiniMaxParser, text) == parse(MiniMaxParser, *text) == (text, [], 0)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"<tool_call>{'x' * 600}\n{HERMES}", f"<tool_call>{'x' * 600}"),
        (f"<tool_call>\n{HERMES}", "<tool_call>"),
        (f"{UNKNOWN}\n{HERMES}", UNKNOWN),
        (HERMES.replace("3", "three") + HERMES, HERMES.replace("3", "three")),
        (f"{HERMES[:70]}\n{HERMES}", HERMES[:70]),
    ],
)
def test_a_valid_hermes_call_behind_an_invalid_one_is_parsed(text: str, content: str) -> None:
    assert parse(HermesParser, text) == parse(HermesParser, *text) == (content, parse(HermesParser, HERMES)[1], 1)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"<minimax:tool_call>{'x' * 600}\n{MINIMAX}", f"<minimax:tool_call>{'x' * 600}"),
        (f"<minimax:tool_call>\n{MINIMAX}", "<minimax:tool_call>"),
        (minimax(invoke("unknown", city="1")) + MINIMAX, minimax(invoke("unknown", city="1"))),
        (f"{MINIMAX[:80]}\n{MINIMAX}", MINIMAX[:80]),
    ],
)
def test_a_valid_minimax_call_behind_an_invalid_one_is_parsed(text: str, content: str) -> None:
    assert parse(MiniMaxParser, text) == parse(MiniMaxParser, *text) == (content, parse(MiniMaxParser, MINIMAX)[1], 1)


def test_the_calls_before_a_fault_in_a_block_count_and_the_rest_is_text() -> None:
    text = minimax(invoke("weather", city="a"), "so far\n" + invoke("weather", city="b"))
    content = "so far\n" + invoke("weather", city="b") + "\n</minimax:tool_call>"
    assert parse(MiniMaxParser, text) == (content, [("weather", '{"city": "a"}')], 1)


@pytest.mark.parametrize("end", ["", "\n", "\n</minimax:tool"])
def test_a_block_whose_end_is_missing_keeps_its_calls_and_loses_no_text(end: str) -> None:
    block = MINIMAX.removesuffix("\n</minimax:tool_call>")
    assert parse(MiniMaxParser, block + end) == parse(MiniMaxParser, MINIMAX)
    assert parse(MiniMaxParser, f"{block}\nپاسخ")[0] == "پاسخ"


@pytest.mark.parametrize("end", ["", "}", "}\n", "}\n</tool_c"])
def test_a_call_without_its_closing_tag_is_complete(end: str) -> None:
    assert parse(HermesParser, HERMES[: HERMES.index("}}") + 1] + end) == parse(HermesParser, HERMES)


@BOTH
def test_a_truncated_call_is_text(kind: type[ToolCallParser], call: str) -> None:
    for cut in range(call.index(CALL[1]["city"])):
        assert parse(kind, call[:cut]) == (call[:cut], [], 0)


LONG_HERMES = HERMES.replace("تهران", LONG)
LONG_MINIMAX = MINIMAX.replace("تهران", LONG)


@pytest.mark.parametrize(("kind", "call"), [(HermesParser, LONG_HERMES), (MiniMaxParser, LONG_MINIMAX)])
def test_long_arguments_are_streamed(kind: type[ToolCallParser], call: str) -> None:
    parser = kind(FUNCTIONS)
    segments = [parser.feed(call[start : start + 100]) for start in range(0, len(call), 100)]
    begun = next(number for number, parsed in enumerate(segments) if parsed)
    assert begun * 100 < MOST_HELD + 300
    emitted = segments[begun : begun + 20]
    assert emitted[0][0] == CallStart(0, "weather")
    assert all(isinstance(segment, CallArguments) for parsed in emitted[1:] for segment in parsed)
    assert all(parsed for parsed in emitted)
    whole = "".join(segment.json for parsed in segments for segment in parsed if isinstance(segment, CallArguments))
    assert json.loads(whole) == {"city": LONG, "days": 3}
    assert parser.complete == 1


@pytest.mark.parametrize(
    ("kind", "call", "fault"),
    [
        (HermesParser, LONG_HERMES.replace(" 3", " three"), "hree}}\n</tool_call>"),
        (
            MiniMaxParser,
            LONG_MINIMAX.replace("3</parameter>", "3"),
            '<parameter name="days">3\n</invoke>\n</minimax:tool_call>',
        ),
        (
            MiniMaxParser,
            LONG_MINIMAX.replace('\n<parameter name="days"', " garbage<invoke"),
            " garbage<invoke>3</parameter>\n</invoke>\n</minimax:tool_call>",
        ),
    ],
)
def test_long_arguments_that_turn_out_invalid_are_an_incomplete_call(
    kind: type[ToolCallParser], call: str, fault: str
) -> None:
    text, parsed, complete = parse(kind, call)
    assert parse(kind, *call) == (text, parsed, complete)
    assert (len(parsed), complete) == (1, 0)
    assert text == fault
    assert LONG in parsed[0][1]
    assert not is_object(parsed[0][1])


def test_text_in_place_of_the_end_of_long_arguments_is_kept() -> None:
    text, parsed, complete = parse(HermesParser, LONG_HERMES.replace("}}", "} and more }"))
    assert (text, len(parsed), complete) == (" and more }\n</tool_call>", 1, 1)
    assert json.loads(parsed[0][1]) == {"city": LONG, "days": 3}


WORD = "سلام "
PARTS = {
    HermesParser: [
        HERMES,
        UNKNOWN,
        LONG_HERMES,
        HERMES[:70],
        LONG_HERMES[:-40],
        "<tool_call>",
        "<tool_call>\n<tool_call>",
        "<tool",
        "_call>",
        "</tool_call>",
        '{"name": "weather", "arguments": {',
        '{"name": "unknown", "arguments": {"a": ',
        '"city": "',
        '"',
        "}",
    ],
    MiniMaxParser: [
        MINIMAX,
        MINIMAX.replace("weather", "unknown"),
        LONG_MINIMAX,
        MINIMAX[:70],
        LONG_MINIMAX[:-70],
        minimax(invoke("search"), invoke("search", q="[1]"), invoke("weather", city="a")),
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<minimax",
        ":tool_call>",
        '<invoke name="weather">',
        "<invoke name='weather' >",
        "<invoke name=weather>",
        '<invoke name="unknown">',
        "<invoke",
        "</invoke>",
        '<parameter name="city">',
        '<parameter name="days">',
        "<parameter name=city\n>",
        "<parameter name='city",
        "</parameter>",
    ],
}
for parts in PARTS.values():
    parts += ["\n", "\n\n", " ", WORD, "x" * 600]
CASES = st.sampled_from(list(PARTS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(st.sampled_from(PARTS[kind]), max_size=7).map("".join))
)


@settings(max_examples=3 * settings.default.max_examples)
@given(case=CASES, only_one=st.booleans(), data=st.data())
def test_the_result_does_not_depend_on_the_chunks(
    case: tuple[type[ToolCallParser], str], only_one: bool, data: st.DataObject
) -> None:
    kind, text = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    segments = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    whole = parse(kind, text, only_one=only_one)
    assert parse(kind, *segments, only_one=only_one) == whole
    assert parse(kind, *text, only_one=only_one) == whole


@given(case=CASES)
def test_no_word_is_lost_and_complete_calls_are_json(case: tuple[type[ToolCallParser], str]) -> None:
    kind, text = case
    content, parsed, complete = parse(kind, text)
    emitted = content + "".join(arguments for _, arguments in parsed)
    assert emitted.count(WORD) == text.count(WORD)
    assert emitted.count("x" * 600) == text.count("x" * 600)
    assert len(parsed) - complete == sum(not is_object(arguments) for _, arguments in parsed)


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("parts", PARTS.values(), ids=[kind.__name__ for kind in PARTS])
def test_the_result_does_not_depend_on_where_a_text_is_cut_in_two(parts: list[str]) -> None:
    kind = next(kind for kind, its in PARTS.items() if its is parts)
    for first, second in itertools.product([part for part in parts if len(part) < 200], repeat=2):
        text = first + second
        whole = parse(kind, text)
        for cut in range(1, len(text)):
            assert parse(kind, text[:cut], text[cut:]) == whole
