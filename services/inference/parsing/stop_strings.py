"""Ends a text at the first of several strings, while the text streams."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Holds back text that may be the beginning of a stop string, so that no part of a stop string is sent.

    The joined result does not depend on the chunks in which the text arrives.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        """Search for `strings`, none of which is empty."""
        self._strings = strings
        self._held = ""
        self.matched: str | None = None
        """The string that ended the text. Of several that begin at one offset, it is the one that is complete first."""

    def feed(self, text: str) -> str:
        """Return the text that is certainly part of the answer; it is empty once `matched` is set."""
        if not self._strings:
            return text
        if self.matched is not None:
            return ""
        self._held += text
        # The earliest end decides, since that is when a text read character by character would have stopped.
        ends = [(self._held.find(s) + len(s), -len(s), s) for s in self._strings if s in self._held]
        if ends:
            end, _, self.matched = min(ends)
            answer, self._held = self._held[: end - len(self.matched)], ""
            return answer
        keep = max(overlap(self._held, s) for s in self._strings)
        answer, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return answer

    def close(self) -> str:
        """Return the text that was held back, which is part of the answer."""
        answer, self._held = self._held, ""
        return answer


def overlap(text: str, string: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `string`, but not all of it."""
    for size in range(min(len(string) - 1, len(text)), 0, -1):
        if text.endswith(string[:size]):
            return size
    return 0
