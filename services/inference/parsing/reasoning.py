"""Splits a model's text into thought and answer, while it streams.

A model that thinks writes `<think>`, its thought and `</think>` on lines of their own before its answer. Some templates
end the prompt with the opening tag, and then the text begins inside the thought. The tags, and the line breaks that set
them apart, belong to neither.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from services.inference.parsing.segments import Answer, Piece, Thought
from services.inference.parsing.stop_strings import overlap

OPEN_TAG: Final = "<think>"
CLOSE_TAG: Final = "</think>"


class _State(Enum):
    BEFORE = auto()
    THINKING = auto()
    AFTER = auto()
    ANSWERING = auto()


class ReasoningParser:
    """Reads one choice's text in pieces of any size; where they are cut does not change what comes out, joined.

    `opened` says that the prompt ended with the opening tag. A text that does not begin with a thought is all answer; a
    thought that never ends is all thought.
    """

    def __init__(self, *, opened: bool) -> None:
        """See the class."""
        self._state = _State.BEFORE
        self._opened = opened
        self._started = False
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Whether the text read so far ends inside a thought, so that the next token is one of it."""
        return self._state is _State.THINKING or (self._state is _State.BEFORE and self._opened)

    def feed(self, text: str) -> list[Piece]:
        """Read the next piece of text. What may be a part of a tag is held until it is clear."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces, at_end=False):
            pass
        return pieces

    def close(self) -> list[Piece]:
        """Read the end of the text: what was held is what it looks like."""
        pieces: list[Piece] = []
        while self._step(pieces, at_end=True):
            pass
        return pieces

    def _step(self, pieces: list[Piece], *, at_end: bool) -> bool:
        """Go on as far as the held text allows; whether the state changed."""
        before = self._state
        if before is _State.BEFORE:
            self._look_for_opening(at_end=at_end)
        elif before is _State.THINKING:
            self._think(pieces, at_end=at_end)
        elif before is _State.AFTER:
            # An answer keeps the spaces at its beginning; only the line breaks after the tag go.
            self._held = self._held.lstrip("\r\n")
            if self._held:
                self._state = _State.ANSWERING
        elif self._held:
            pieces.append(Answer(self._held))
            self._held = ""
        return self._state is not before

    def _look_for_opening(self, *, at_end: bool) -> None:
        visible = self._held.lstrip()
        if visible.startswith(OPEN_TAG):
            self._held = visible[len(OPEN_TAG) :]
            self._state = _State.THINKING
        elif at_end or not OPEN_TAG.startswith(visible):
            self._state = _State.THINKING if self._opened else _State.ANSWERING

    def _think(self, pieces: list[Piece], *, at_end: bool) -> None:
        if not self._started:
            self._held = self._held.lstrip("\r\n")
            self._started = bool(self._held)
        reasoning, tag, rest = self._held.partition(CLOSE_TAG)
        if tag:
            self._held = rest
            self._state = _State.AFTER
            reasoning = reasoning.rstrip("\r\n")
        elif at_end:
            self._held = ""
            reasoning = reasoning.rstrip("\r\n")
        else:
            keep = _clear_length(self._held, CLOSE_TAG)
            reasoning, self._held = self._held[:keep], self._held[keep:]
        if reasoning:
            pieces.append(Thought(reasoning))


def _clear_length(text: str, tag: str) -> int:
    """How much of `text` cannot be a part of `tag` or of the line breaks before it."""
    return len(text[: len(text) - overlap(text, tag)].rstrip("\r\n"))
