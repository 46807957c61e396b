"""Splits a model's text into reasoning and answer, while it streams.

A reasoning model writes `<think>`, its reasoning and `</think>` on lines of their own before its answer. Some templates
end the prompt with the opening tag, and then the text begins inside the reasoning. The tags, and the line breaks around
them, belong to neither part.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from services.inference.parsing.segments import Reasoning, Segment, Text
from services.inference.parsing.stop_strings import overlap

OPEN_TAG: Final = "<think>"
CLOSE_TAG: Final = "</think>"
_BREAKS: Final = ("\r", "\n")


class _State(Enum):
    BEFORE = auto()
    IN_REASONING = auto()
    AFTER = auto()
    IN_ANSWER = auto()


class ReasoningParser:
    """Splits one choice's text, which arrives in chunks of any size; the joined result does not depend on the chunks.

    A text that does not begin with reasoning is all answer; a text whose reasoning never ends is all reasoning.
    """

    def __init__(self, *, opened: bool) -> None:
        """Start to split a text. `opened` says that the prompt ended with the opening tag."""
        self._state = _State.BEFORE
        self._opened = opened
        self._started = False
        self._held = ""
        self.in_answer = False
        """Whether everything that follows is answer."""

    @property
    def in_reasoning(self) -> bool:
        """Whether the text read so far ends inside the reasoning, so that the next token is part of it."""
        return self._state is _State.IN_REASONING or (self._state is _State.BEFORE and self._opened)

    def passes(self, text: str) -> bool:
        """Return whether `feed` would return `text` as reasoning, and hold nothing back."""
        return (
            self._state is _State.IN_REASONING
            and self._started
            and not self._held
            and "<" not in text
            and text[-1:] not in _BREAKS
        )

    def feed(self, text: str) -> list[Segment]:
        """Read the next chunk of text. Text that may be part of a tag is held back until that is decided."""
        self._held += text
        segments: list[Segment] = []
        while self._step(segments, at_end=False):
            pass
        return segments

    def close(self) -> list[Segment]:
        """Read the end of the text: held text that is not a complete tag is ordinary text."""
        segments: list[Segment] = []
        while self._step(segments, at_end=True):
            pass
        return segments

    def _step(self, segments: list[Segment], *, at_end: bool) -> bool:
        """Read as much of the held text as possible in this state, and return whether the state changed."""
        before = self._state
        if before is _State.BEFORE:
            self._look_for_opening(at_end=at_end)
        elif before is _State.IN_REASONING:
            self._read_reasoning(segments, at_end=at_end)
        elif before is _State.AFTER:
            # Line breaks after the tag are removed; the answer keeps the spaces at its beginning.
            self._held = self._held.lstrip("\r\n")
            if self._held:
                self._state = _State.IN_ANSWER
        elif self._held:
            segments.append(Text(self._held))
            self._held = ""
        self.in_answer = self._state is _State.IN_ANSWER
        return self._state is not before

    def _look_for_opening(self, *, at_end: bool) -> None:
        visible = self._held.lstrip()
        if visible.startswith(OPEN_TAG):
            self._held = visible[len(OPEN_TAG) :]
            self._state = _State.IN_REASONING
        elif at_end or not OPEN_TAG.startswith(visible):
            self._state = _State.IN_REASONING if self._opened else _State.IN_ANSWER

    def _read_reasoning(self, segments: list[Segment], *, at_end: bool) -> None:
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
            keep = _certain_length(self._held, CLOSE_TAG)
            reasoning, self._held = self._held[:keep], self._held[keep:]
        if reasoning:
            segments.append(Reasoning(reasoning))


def _certain_length(text: str, tag: str) -> int:
    """Return the length of the beginning of `text` that cannot be part of `tag` or of the line breaks before it."""
    return len(text[: len(text) - overlap(text, tag)].rstrip("\r\n"))
