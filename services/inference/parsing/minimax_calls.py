"""Tool calls of MiniMax's models: XML whose parameters are typed by the function's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.parameter_value import ParameterSchema
from services.inference.parsing.segments import CallArguments, Piece
from services.inference.parsing.tool_calls import MOST_HELD, SPACE, ToolCallParser

LONGEST_NAME: Final = 256
_OPEN: Final = "<minimax:tool_call>"
_CLOSE: Final = "</minimax:tool_call>"
_END_INVOKE: Final = "</invoke>"
_END_PARAMETER: Final = "</parameter>"
_TAG: Final = re.compile(
    rf'{_OPEN}|{_CLOSE}|{_END_INVOKE}|{_END_PARAMETER}|<(invoke|parameter) name="([^"<>]{{1,{LONGEST_NAME}}})">'
)
_BEGUN_TAG: Final = re.compile(rf'<(invoke|parameter) name="[^"<>]{{0,{LONGEST_NAME}}}"?')
_BEGINNINGS: Final = (_OPEN, _CLOSE, _END_INVOKE, _END_PARAMETER, '<invoke name="', '<parameter name="')
_LONGEST_TAG: Final = LONGEST_NAME + 32


class MiniMaxParser(ToolCallParser):
    """Reads `<minimax:tool_call>` blocks: an `<invoke name="…">` per call, a `<parameter name="…">` per argument.

    A value that contains a tag of the notation is none: it is a parameter whose end is missing. A block is read up to
    its first fault; the calls before it count, and the rest is text.
    """

    open_tag = _OPEN
    close_tag = _CLOSE

    def __init__(self, functions: Mapping[str, Any], *, only_one: bool = False, opened: bool = False) -> None:
        """See the base."""
        super().__init__(functions, only_one=only_one, opened=opened)
        self._in_block = 0
        """How many calls of the block are complete."""
        self._place = 0
        """Where in the held text the call is to be read on. Before it, no tag can begin that was not read."""
        self._forget()

    def _forget(self) -> None:
        self._name: str | None = None
        self._seen: set[str] = set()
        self._json = "{"
        """Arguments that were read and not shown."""
        self._shown = False
        self._parameter: ParameterSchema | None = None
        self._value = 0
        """Where in the held text the value begins, as far as it was not shown."""
        self._streams = False
        """Whether the value is shown while it is written."""
        self._kept = 0
        """What of the held text is to be text if the call breaks after it was shown."""

    def _read_call(self, pieces: list[Piece]) -> bool:
        tag, clear = self._next_tag()
        if self._parameter is not None:
            self._read_value(pieces, clear)
        elif self._held[self._place : clear].strip(SPACE):
            return self._fail(pieces)
        else:
            self._place = clear
        return tag is not None and self._read_tag(pieces, tag)

    def _next_tag(self) -> tuple[str | None, int]:
        """The next tag, or None if it is not there yet; and where it is, or where at the earliest it can begin."""
        place = self._held.find("<", self._place)
        while place >= 0:
            if tag := _TAG.match(self._held, place):
                return tag[0], place
            begun = self._held[place : place + _LONGEST_TAG]
            if any(beginning.startswith(begun) for beginning in _BEGINNINGS) or _BEGUN_TAG.fullmatch(begun):
                return None, place
            place = self._held.find("<", place + 1)
        return None, len(self._held)

    def _read_value(self, pieces: list[Piece], clear: int) -> None:
        assert self._parameter is not None  # noqa: S101  # this is what a value is read for
        self._place = clear
        if not self._streams and clear - self._value > MOST_HELD and self._parameter.is_text:
            self._streams = True
            self._add(pieces, '"')
        if self._streams:
            self._add(pieces, _escaped(self._held[self._value : clear]))
            self._flush(pieces)
            self._held = self._held[clear:]
            self._place = self._value = self._kept = 0

    def _read_tag(self, pieces: list[Piece], tag: str) -> bool:
        kind, _, name = tag.removesuffix('">').partition(' name="')
        end = self._place + len(tag)
        if self._name is None:
            if tag == _CLOSE and self._in_block:
                return self._leave_block(end)
            if kind != "<invoke" or name not in self._functions:
                return self._fail(pieces)
            self._name = name
        elif self._parameter is not None:
            if tag != _END_PARAMETER:
                return self._fail(pieces)
            value = self._held[self._value : self._place]
            self._add(pieces, '"' if self._streams else self._parameter.to_json(value))
            self._parameter, self._streams, self._kept = None, False, end
        elif tag == _END_INVOKE:
            return self._finish(pieces, end)
        elif kind == "<parameter" and name not in self._seen:
            separator = ", " if self._seen else ""
            self._add(pieces, f"{separator}{json.dumps(name, ensure_ascii=False)}: ")
            self._seen.add(name)
            self._parameter = ParameterSchema(self._functions[self._name], name)
            self._value, self._kept = end, self._place
        else:
            return self._fail(pieces)
        self._place = end
        return True

    def _add(self, pieces: list[Piece], text: str) -> None:
        """Go on with the arguments."""
        self._json += text
        if self._shown:
            self._flush(pieces)

    def _flush(self, pieces: list[Piece]) -> None:
        """Show the arguments that were read."""
        assert self._name is not None  # noqa: S101  # it was read before the arguments
        if not self._shown:
            self._show(pieces, self._name, self._json)
        elif self._json:
            pieces.append(CallArguments(self.calls - 1, self._json))
        self._shown, self._json = True, ""

    def _finish(self, pieces: list[Piece], end: int) -> bool:
        self._json += "}"
        self._flush(pieces)
        self.complete += 1
        self._in_block += 1
        self._after_call = True
        self._held, self._place = self._held[end:], 0
        self._forget()
        return True

    def _leave_block(self, end: int) -> bool:
        self._held, self._place = self._held[end:], 0
        self._inside, self._in_block = False, 0
        return True

    def _fail(self, pieces: list[Piece]) -> bool:
        """What is read is no call, or none any more."""
        if self._shown:
            self._held = self._held[self._kept :]
            self._after_call = False
        self._give_back(pieces)
        self._place = self._in_block = 0
        self._forget()
        return True

    def _cut_off(self, pieces: list[Piece]) -> None:
        if self._name is None and self._in_block and _CLOSE.startswith(self._held.strip(SPACE)):
            self._leave_block(len(self._held))
        else:
            self._fail(pieces)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
