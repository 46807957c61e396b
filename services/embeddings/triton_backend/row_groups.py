"""Divides the rows of a batch into groups that are padded to the same length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def groups_of_similar_length(lengths: Sequence[int], *, most_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of all rows, given their `lengths`, in groups of similar lengths, the shortest first.

    A group has at most `most_tokens` tokens, padding included, or one row. Otherwise one long text beside many short
    ones would make all of them long: Triton puts the texts of several requests into one batch.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # The row is the longest so far.
        if group and (len(group) + 1) * lengths[index] > most_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
