"""Finds tool calls in a model's answer, while it streams.

A notation has an opening tag, which is followed by a valid call or by text. `HermesParser` and `MiniMaxParser` parse
their own notations.

An invalid or truncated call stays text: its opening tag becomes text, and the text behind the tag is parsed again, as
if there had been no tag. No text is lost, and the result does not depend on the chunks in which the text arrives.

A call is held back until it is complete, so that a client never receives a call that turns out to be invalid. Only a
long call is sent while it is generated, because a client would wait for it without output: see `MOST_HELD`. Such a call
cannot be withdrawn. If it turns out to be invalid, its arguments end there, as invalid JSON, and the rest is text
(docs/adr/0012). A call that the engine holds to its schema is always sent while it is generated (docs/adr/0022).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.segments import CallStart, Segment, Text
from services.inference.parsing.stop_strings import overlap

MOST_HELD: Final = 256
"""Characters of arguments held back while the call may still turn out invalid: more than most calls have, about 1 s."""
SPACE: Final = " \t\r\n"
_BREAKS: Final = ("\r", "\n")


class ToolCallParser(ABC):
    """Parses one choice's answer, which arrives in chunks of any size."""

    open_tag: str
    close_tag: str

    def __init__(self, functions: Mapping[str, Any], *, only_one: bool = False, opened: bool = False) -> None:
        """Parse calls of `functions`: the JSON Schemas of the parameters of each callable function, by name.

        With `only_one`, the text behind the first complete call is ignored. `opened` says that the text begins inside a
        call, without its opening tag.
        """
        self._functions: Final = functions
        self._only_one: Final = only_one
        self._inside = opened
        self._held = ""
        self._opening = ""
        """The tag of the call being read, with the line breaks before it, as long as it may still become text."""
        self._after_call = False
        self._length = 0
        self.calls = 0
        """The number of calls that were sent, entirely or in part."""
        self.complete = 0
        """The number of complete calls."""

    @property
    def ended(self) -> bool:
        """Whether the only call that is allowed is complete."""
        return self._only_one and self.complete > 0

    @property
    def decided(self) -> int:
        """The number of characters of the answer that are known to be text or part of a call."""
        return self._length - len(self._held) - len(self._opening)

    def pass_through(self, text: str, length: int) -> bool:
        """Read text of `length` like `feed` if it begins no call and none of it is held back. Return whether it did."""
        if self._held or self._inside or self._after_call or self.open_tag[0] in text or text[-1:] in _BREAKS:
            return False
        self._length += length
        return True

    def feed(self, text: str) -> list[Segment]:
        """Parse the next chunk of the answer. Text that may begin a call is held back until that is decided."""
        self._held += text
        self._length += len(text)
        segments: list[Segment] = []
        self._read(segments)
        return segments

    def close(self) -> list[Segment]:
        """Parse the end of the answer: an incomplete call that was not sent is text."""
        segments: list[Segment] = []
        while self._inside and not self.ended:
            self._cut_off(segments)
            self._read(segments)
        if not self.ended and not (self._after_call and not self._held.strip("\r\n")):
            self._emit_text(segments, len(self._held))
        self._held = ""
        return segments

    def _read(self, segments: list[Segment]) -> None:
        while not self.ended and (self._read_call(segments) if self._inside else self._read_text(segments)):
            pass
        if self.ended:
            self._held = ""

    def _read_text(self, segments: list[Segment]) -> bool:
        if self._after_call:
            # Line breaks before and behind a call belong to it.
            self._held = self._held.lstrip("\r\n")
        text, tag, _ = self._held.partition(self.open_tag)
        size = len(text)
        self._emit_text(segments, len(text[: size if tag else size - overlap(text, self.open_tag)].rstrip("\r\n")))
        if tag:
            end = self._held.index(tag) + len(tag)
            self._opening, self._held = self._held[:end], self._held[end:]
            self._inside = True
        return bool(tag)

    def _emit_text(self, segments: list[Segment], size: int) -> None:
        """Emit the first `size` held characters as text."""
        if size:
            segments.append(Text(self._held[:size], self._length - len(self._held)))
            self._held = self._held[size:]
            self._after_call = False

    def _reject_call(self, segments: list[Segment]) -> bool:
        """Make the opening tag of an invalid call text. The text behind the tag is parsed next. Return True."""
        size = len(self._opening)
        self._held, self._opening, self._inside = self._opening + self._held, "", False
        self._emit_text(segments, size)
        return True

    def _start_call(self, segments: list[Segment], name: str) -> None:
        """Emit the beginning of a call."""
        self._opening = ""
        self.calls += 1
        segments.append(CallStart(self.calls - 1, name))

    @abstractmethod
    def _read_call(self, segments: list[Segment]) -> bool:
        """Parse the held text inside a call. Return whether there may be more to parse in it."""

    @abstractmethod
    def _cut_off(self, segments: list[Segment]) -> None:
        """End a call that is truncated by the end of the answer."""
