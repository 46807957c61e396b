"""Ends a text at the first of several strings, while the text streams."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Holds back what may be the beginning of a stop string, so that no part of one is ever shown.

    Where the text is cut into pieces does not change what comes out, joined.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        """`strings` are not empty."""
        self._strings = strings
        self._held = ""
        self.found: str | None = None
        """The string that ended the text. Of several that begin at one place, the one that was complete first."""

    def feed(self, text: str) -> str:
        """What is certainly part of the answer. Once `found` is set, nothing is."""
        if not self._strings:
            return text
        if self.found is not None:
            return ""
        self._held += text
        # The earliest end decides, since that is when a text read letter by letter would have stopped.
        ends = [(self._held.find(s) + len(s), -len(s), s) for s in self._strings if s in self._held]
        if ends:
            end, _, self.found = min(ends)
            answer, self._held = self._held[: end - len(self.found)], ""
            return answer
        keep = max(overlap(self._held, s) for s in self._strings)
        answer, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return answer

    def close(self) -> str:
        """What was held back and turned out to be part of the answer."""
        answer, self._held = self._held, ""
        return answer


def overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that is a beginning of `string`, but not all of it."""
    for size in range(min(len(string) - 1, len(text)), 0, -1):
        if text.endswith(string[:size]):
            return size
    return 0
