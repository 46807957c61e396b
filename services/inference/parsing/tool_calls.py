"""Finds tool calls in a model's answer, while it streams.

What the notations have in common: an opening tag, and behind it either a proper call or text. `HermesParser` and
`MiniMaxParser` read their own.

What is no proper call, or is cut off, stays text: its opening tag is given back, and what follows the tag is read
again, as if the tag had not been there. No text is lost, and only what the text says decides, never how it was cut into
pieces.

A call is held until it is complete, so that a client sees no call that turns out to be none. Only what is long is shown
while it is written, as a client would wait for it in silence: see `MOST_HELD`. Such a call cannot be taken back; when
it breaks, its arguments end there, as no JSON, and what follows is text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.segments import Answer, CallArguments, CallStart, Piece
from services.inference.parsing.stop_strings import overlap

MOST_HELD: Final = 256
"""Characters of arguments held back while the call may still turn out invalid: more than most calls have, about 1 s."""
SPACE: Final = " \t\r\n"


class ToolCallParser(ABC):
    """Reads one choice's answer in pieces of any size."""

    open_tag: str
    close_tag: str

    def __init__(self, functions: Mapping[str, Any], *, only_one: bool = False, opened: bool = False) -> None:
        """`functions` are the parameters' JSON Schemas of the functions that may be called, by name.

        With `only_one`, nothing behind the first complete call is read. `opened` says that the text begins inside a
        call, whose tag is not part of it.
        """
        self._functions: Final = functions
        self._only_one: Final = only_one
        self._inside = opened
        self._held = ""
        self._opening = ""
        """The tag of the call that is being read, with the line breaks before it, as long as it may be given back."""
        self._after_call = False
        self._length = 0
        self.calls = 0
        """How many calls were shown, entirely or in part."""
        self.complete = 0
        """How many of them are complete."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is wanted: the only call that is allowed is complete."""
        return self._only_one and self.complete > 0

    @property
    def decided(self) -> int:
        """Of how many of the text's characters it is clear what they are."""
        return self._length - len(self._held) - len(self._opening)

    def feed(self, text: str) -> list[Piece]:
        """Read the next piece of the answer. What may be a part of a call's beginning is held until it is clear."""
        self._held += text
        self._length += len(text)
        pieces: list[Piece] = []
        self._read(pieces)
        return pieces

    def close(self) -> list[Piece]:
        """Read the end: a call that was begun and not shown is text."""
        pieces: list[Piece] = []
        while self._inside and not self.ended:
            self._cut_off(pieces)
            self._read(pieces)
        if not self.ended and not (self._after_call and not self._held.strip("\r\n")):
            self._say(pieces, len(self._held))
        self._held = ""
        return pieces

    def _read(self, pieces: list[Piece]) -> None:
        while not self.ended and (self._read_call(pieces) if self._inside else self._read_text(pieces)):
            pass
        if self.ended:
            self._held = ""

    def _read_text(self, pieces: list[Piece]) -> bool:
        if self._after_call:
            # Line breaks behind a call belong to it, as do those before one.
            self._held = self._held.lstrip("\r\n")
        text, tag, _ = self._held.partition(self.open_tag)
        size = len(text)
        self._say(pieces, len(text[: size if tag else size - overlap(text, self.open_tag)].rstrip("\r\n")))
        if tag:
            end = self._held.index(tag) + len(tag)
            self._opening, self._held = self._held[:end], self._held[end:]
            self._inside = True
        return bool(tag)

    def _say(self, pieces: list[Piece], size: int) -> None:
        """Make the first `size` characters of what is held text."""
        if size:
            pieces.append(Answer(self._held[:size], self._length - len(self._held)))
            self._held = self._held[size:]
            self._after_call = False

    def _give_back(self, pieces: list[Piece]) -> bool:
        """What looked like a call is none. What is behind its tag is to be read next."""
        size = len(self._opening)
        self._held, self._opening, self._inside = self._opening + self._held, "", False
        self._say(pieces, size)
        return True

    def _show(self, pieces: list[Piece], name: str, arguments: str) -> None:
        """Begin a call."""
        self._opening = ""
        self.calls += 1
        pieces += [CallStart(self.calls - 1, name), CallArguments(self.calls - 1, arguments)]

    @abstractmethod
    def _read_call(self, pieces: list[Piece]) -> bool:
        """Read what is held inside a call; whether something else is to be read next."""

    @abstractmethod
    def _cut_off(self, pieces: list[Piece]) -> None:
        """Leave a call that the answer's end cuts off."""
