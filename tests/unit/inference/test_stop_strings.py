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
    shown = [matcher.feed(segment) for segment in segments]
    return [*shown, matcher.close()], matcher.matched


@given(text=TEXT, stops=STOPS, data=st.data())
def test_where_the_stream_is_cut_changes_nothing(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    segments = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    shown, found = run(stops, *segments)
    whole, whole_found = run(stops, text)
    letters, letters_found = run(stops, *text)
    assert "".join(shown) == "".join(whole) == "".join(letters)
    assert found == whole_found == letters_found


@given(text=TEXT, stops=STOPS)
def test_the_answer_ends_before_the_first_stop_and_shows_none(text: str, stops: list[str]) -> None:
    shown, found = run(stops, *text)
    answer = "".join(shown)
    assert not any(stop in answer for stop in stops)
    if found is None:
        assert answer == text
    else:
        assert text.startswith(answer + found)
        ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
        assert len(answer) + len(found) == min(ends)


@given(text=TEXT, stops=STOPS)
def test_only_what_may_begin_a_stop_is_held(text: str, stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = "".join(matcher.feed(letter) for letter in text)
    held = matcher.close()
    assert matcher.matched is not None or shown + held == text
    assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "text", "answer", "found"),
    [
        (["END"], "the END of", "the ", "END"),
        (["END"], "the EN", "the EN", None),
        (["aab"], "aaab", "a", "aab"),
        (["abcd", "c"], "abcd", "ab", "c"),
        (["b", "ab"], "xab", "x", "ab"),
        ([], "free", "free", None),
    ],
)
def test_which_stop_wins(stops: list[str], text: str, answer: str, found: str | None) -> None:
    shown, which = run(stops, *text)
    assert ("".join(shown), which) == (answer, found)
