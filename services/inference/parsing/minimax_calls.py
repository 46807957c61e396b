"""Tool calls of MiniMax's models: XML whose parameters are typed by the function's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.parameter_value import ParameterSchema
from services.inference.parsing.segments import CallArguments, Segment
from services.inference.parsing.tool_calls import MOST_HELD, SPACE, ToolCallParser

LONGEST_NAME: Final = 256
_OPEN: Final = "<minimax:tool_call>"
_CLOSE: Final = "</minimax:tool_call>"
_END_INVOKE: Final = "</invoke>"
_END_PARAMETER: Final = "</parameter>"
_NAMED: Final = "<(invoke|parameter) name="
_TAG: Final = re.compile(
    rf"{_OPEN}|{_CLOSE}|{_END_INVOKE}|{_END_PARAMETER}|"
    rf"""{_NAMED}(?:"([^"<>]{{1,{LONGEST_NAME}}})"|'([^'<>]{{1,{LONGEST_NAME}}})'|"""
    rf"""([^\s"'<>]{{1,{LONGEST_NAME}}}))[ \t\r\n]{{0,8}}>"""
)
_PARTIAL_TAG: Final = re.compile(
    rf"""{_NAMED}(?:"[^"<>]{{0,{LONGEST_NAME}}}|'[^'<>]{{0,{LONGEST_NAME}}}|"""
    rf"""(?:"[^"<>]{{1,{LONGEST_NAME}}}"|'[^'<>]{{1,{LONGEST_NAME}}}'|[^\s"'<>]{{0,{LONGEST_NAME}}})[ \t\r\n]{{0,8}})"""
)
_BEGINNINGS: Final = (_OPEN, _CLOSE, _END_INVOKE, _END_PARAMETER, "<invoke name=", "<parameter name=")
_LONGEST_TAG: Final = LONGEST_NAME + 32


class MiniMaxParser(ToolCallParser):
    """Reads `<minimax:tool_call>` blocks: an `<invoke name="…">` per call, a `<parameter name="…">` per argument.

    The template writes names in double quotes; models also write single ones, or none, as other servers accept.

    A value must not contain a tag of the notation: such a value is a parameter whose end is missing. A block is read up
    to its first fault; the calls before it count, and the rest is text.
    """

    open_tag = _OPEN
    close_tag = _CLOSE

    def __init__(self, functions: Mapping[str, Any], *, only_one: bool = False, opened: bool = False) -> None:
        """See ToolCallParser."""
        super().__init__(functions, only_one=only_one, opened=opened)
        self._in_block = 0
        """The number of complete calls in the block."""
        self._offset = 0
        """The offset in the held text at which reading continues. No unread tag begins before it."""
        self._reset()

    def _reset(self) -> None:
        self._name: str | None = None
        self._names: set[str] = set()
        self._json = "{"
        """Arguments that were read and not sent."""
        self._started = False
        self._parameter: ParameterSchema | None = None
        self._value_start = 0
        """The offset in the held text of the part of the value that was not sent."""
        self._is_streamed = False
        """Whether the value is sent while it is generated."""
        self._text_start_if_broken = 0
        """The offset in the held text from which it is ordinary text if the call breaks after it was sent."""

    def _read_call(self, segments: list[Segment]) -> bool:
        tag, clear = self._next_tag()
        if self._parameter is not None:
            self._read_value(segments, clear)
        elif self._held[self._offset : clear].strip(SPACE):
            return self._fail(segments)
        else:
            self._offset = clear
        return tag is not None and self._read_tag(segments, tag)

    def _next_tag(self) -> tuple[re.Match[str] | None, int]:
        """Return the next tag and its offset, or None and the earliest offset at which one can begin."""
        offset = self._held.find("<", self._offset)
        while offset >= 0:
            if tag := _TAG.match(self._held, offset):
                return tag, offset
            begun = self._held[offset : offset + _LONGEST_TAG]
            if any(beginning.startswith(begun) for beginning in _BEGINNINGS) or _PARTIAL_TAG.fullmatch(begun):
                return None, offset
            offset = self._held.find("<", offset + 1)
        return None, len(self._held)

    def _read_value(self, segments: list[Segment], clear: int) -> None:
        assert self._parameter is not None  # noqa: S101  # a value belongs to a parameter
        self._offset = clear
        if not self._is_streamed and clear - self._value_start > MOST_HELD and self._parameter.is_text:
            self._is_streamed = True
            self._add(segments, '"')
        if self._is_streamed:
            self._add(segments, _escaped(self._held[self._value_start : clear]))
            self._flush(segments)
            self._held = self._held[clear:]
            self._offset = self._value_start = self._text_start_if_broken = 0

    def _read_tag(self, segments: list[Segment], found: re.Match[str]) -> bool:
        tag, kind, name = found[0], found[1], found[2] or found[3] or found[4]
        end = self._offset + len(tag)
        if self._name is None:
            if tag == _CLOSE and self._in_block:
                return self._leave_block(end)
            if kind != "invoke" or name not in self._functions:
                return self._fail(segments)
            self._name = name
        elif self._parameter is not None:
            if tag != _END_PARAMETER:
                return self._fail(segments)
            value = self._held[self._value_start : self._offset]
            self._add(segments, '"' if self._is_streamed else self._parameter.to_json(value))
            self._parameter, self._is_streamed, self._text_start_if_broken = None, False, end
        elif tag == _END_INVOKE:
            return self._finish(segments, end)
        elif kind == "parameter" and name not in self._names:
            separator = ", " if self._names else ""
            self._add(segments, f"{separator}{json.dumps(name, ensure_ascii=False)}: ")
            self._names.add(name)
            self._parameter = ParameterSchema(self._functions[self._name], name)
            self._value_start, self._text_start_if_broken = end, self._offset
        else:
            return self._fail(segments)
        self._offset = end
        return True

    def _add(self, segments: list[Segment], text: str) -> None:
        """Append `text` to the arguments."""
        self._json += text
        if self._started:
            self._flush(segments)

    def _flush(self, segments: list[Segment]) -> None:
        """Send the arguments that were read."""
        assert self._name is not None  # noqa: S101  # it was read before the arguments
        if not self._started:
            self._start_call(segments, self._name)
        if self._json:
            segments.append(CallArguments(self.calls - 1, self._json))
        self._started, self._json = True, ""

    def _finish(self, segments: list[Segment], end: int) -> bool:
        self._json += "}"
        self._flush(segments)
        self.complete += 1
        self._in_block += 1
        self._after_call = True
        self._held, self._offset = self._held[end:], 0
        self._reset()
        return True

    def _leave_block(self, end: int) -> bool:
        self._held, self._offset = self._held[end:], 0
        self._inside, self._in_block = False, 0
        return True

    def _fail(self, segments: list[Segment]) -> bool:
        """Treat the held text as ordinary text: it is not, or not any more, a valid call."""
        if self._started:
            self._held = self._held[self._text_start_if_broken :]
            self._after_call = False
        self._reject_call(segments)
        self._offset = self._in_block = 0
        self._reset()
        return True

    def _cut_off(self, segments: list[Segment]) -> None:
        if self._name is None and self._in_block and _CLOSE.startswith(self._held.strip(SPACE)):
            self._leave_block(len(self._held))
        else:
            self._fail(segments)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
