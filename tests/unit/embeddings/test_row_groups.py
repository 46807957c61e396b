"""The groups of rows that the transformers engine pads to the same length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.embeddings.triton_backend.row_groups import groups_of_similar_length


def groups(lengths: list[int], most_tokens: int) -> list[list[int]]:
    return list(groups_of_similar_length(lengths, most_tokens=most_tokens))


def test_a_long_text_does_not_lengthen_the_short_ones() -> None:
    assert groups([16000, *[200] * 63], 32768) == [list(range(1, 64)), [0]]


def test_texts_of_one_length_stay_together() -> None:
    assert groups([256] * 64, 16384) == [list(range(64))]


def test_a_text_longer_than_a_group_is_alone() -> None:
    assert groups([5, 100, 6], 20) == [[0, 2], [1]]


@given(st.lists(st.integers(1, 500), max_size=80), st.integers(1, 2000))
def test_every_row_is_in_one_group_of_the_allowed_size(lengths: list[int], most_tokens: int) -> None:
    found = groups(lengths, most_tokens)
    assert sorted(index for group in found for index in group) == list(range(len(lengths)))
    for group in found:
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= most_tokens
