from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.parsing.stop_strings import StopStrings

LETTERS = "ab\u200cم"
TEXT = st.text(LETTERS, max_size=24)
STOPS = st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=4)


def run(stops: list[str], *segments: str) -> tuple[list[str], str | None]:
    matcher = StopStrings(stops)
    emitted = [matcher.feed(segment) for segment in segments]
    return [*emitted, matcher.close()], matcher.matched


@given(text=TEXT, stops=STOPS, data=st.data())
def test_the_result_does_not_depend_on_the_chunks(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    segments = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    emitted, matched = run(stops, *segments)
    whole, whole_matched = run(stops, text)
    by_characters, characters_matched = run(stops, *text)
    assert "".join(emitted) == "".join(whole) == "".join(by_characters)
    assert matched == whole_matched == characters_matched


@given(text=TEXT, stops=STOPS)
def test_the_answer_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    emitted, matched = run(stops, *text)
    answer = "".join(emitted)
    assert not any(stop in answer for stop in stops)
    if matched is None:
        assert answer == text
    else:
        assert text.startswith(answer + matched)
        ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
        assert len(answer) + len(matched) == min(ends)


@given(text=TEXT, stops=STOPS)
def test_only_text_that_may_begin_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    matcher = StopStrings(stops)
    emitted = "".join(matcher.feed(character) for character in text)
    held = matcher.close()
    assert matcher.matched is not None or emitted + held == text
    assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "text", "answer", "matched"),
    [
        (["END"], "the END of", "the ", "END"),
        (["END"], "the EN", "the EN", None),
        (["aab"], "aaab", "a", "aab"),
        (["abcd", "c"], "abcd", "ab", "c"),
        (["b", "ab"], "xab", "x", "ab"),
        ([], "free", "free", None),
    ],
)
def test_the_stop_string_that_is_complete_first_wins(
    stops: list[str], text: str, answer: str, matched: str | None
) -> None:
    emitted, which = run(stops, *text)
    assert ("".join(emitted), which) == (answer, matched)
