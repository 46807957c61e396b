from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.parsing.reasoning import ReasoningParser
from services.inference.parsing.segments import Reasoning, Text

WORDS = st.text(alphabet="سلام\u200c<>/think \nab👨‍👩‍👧", max_size=12)
TAGGED = st.lists(st.one_of(WORDS, st.sampled_from(["<think>", "</think>", "\n", "<th", "</thi"])), max_size=8).map(
    "".join
)


def parse(*segments: str, opened: bool = False) -> tuple[str, str]:
    """Return the reasoning and the answer, each joined."""
    parser = ReasoningParser(opened=opened)
    out = [segment for text in segments for segment in parser.feed(text)] + parser.close()
    assert all(segment.text for segment in out)
    reasoning = "".join(segment.text for segment in out if isinstance(segment, Reasoning))
    return reasoning, "".join(segment.text for segment in out if isinstance(segment, Text))


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>\nبگذار فکر کنم\n</think>\n\nسلام", False, "بگذار فکر کنم", "سلام"),
        ("بگذار فکر کنم\n</think>\n\nسلام", True, "بگذار فکر کنم", "سلام"),
        ("<think>\nagain\n</think>\n\nyes", True, "again", "yes"),
        ("<think>\n\n</think>\n\nyes", False, "", "yes"),
        ("no thought", False, "", "no thought"),
        ("  indented", False, "", "  indented"),
        ("<think>\ncut of", False, "cut of", ""),
        ("cut of", True, "cut of", ""),
        ("<thin", False, "", "<thin"),
        ("<think>\na < b </thin", False, "a < b </thin", ""),
        ("<think>\n1\n\n2\n</think>\n\n  x\n\n", False, "1\n\n2", "  x\n\n"),
        ("answer <think> later </think>", False, "", "answer <think> later </think>"),
        ("", True, "", ""),
        ("", False, "", ""),
    ],
)
def test_a_text_is_split_into_reasoning_and_answer(text: str, opened: bool, reasoning: str, answer: str) -> None:
    assert parse(text, opened=opened) == (reasoning, answer)


@given(text=TAGGED, opened=st.booleans(), data=st.data())
def test_the_result_does_not_depend_on_the_chunks(text: str, opened: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    edges = [0, *cuts, len(text)]
    assert parse(*(text[a:b] for a, b in itertools.pairwise(edges)), opened=opened) == parse(text, opened=opened)
    assert parse(*text, opened=opened) == parse(text, opened=opened)


@given(reasoning=WORDS.filter(lambda t: "</think>" not in t), answer=WORDS)
def test_reasoning_and_answer_are_preserved(reasoning: str, answer: str) -> None:
    text = f"<think>\n{reasoning}\n</think>\n\n{answer}"
    assert parse(*text) == (reasoning.strip("\n"), answer.lstrip("\n"))


def test_reasoning_is_streamed() -> None:
    parser = ReasoningParser(opened=True)
    assert parser.feed("first ") == [Reasoning("first ")]
    assert parser.feed("second") == [Reasoning("second")]


def test_the_parser_reports_whether_the_next_token_is_reasoning() -> None:
    parser = ReasoningParser(opened=False)
    states = [parser.in_reasoning]
    for text in ("<think>", "hm", "</think>", "yes"):
        parser.feed(text)
        states.append(parser.in_reasoning)
    assert states == [False, True, True, False, False]
