"""Tool calls of Qwen's models, in the notation of NousResearch's Hermes function calling: JSON between tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.json_scanner import JsonScanner
from services.inference.parsing.segments import CallArguments, Segment
from services.inference.parsing.tool_calls import MOST_HELD, SPACE, ToolCallParser

LONGEST_HEAD: Final = 512
_NAME_BEGIN: Final = '{"name":"'
_ARGUMENTS_BEGIN: Final = ',"arguments":'
_NAME: Final = r'[ \t\r\n]*\{[ \t\r\n]*"name"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\\x00-\x1f]|\\.)*")'
_ARGUMENTS: Final = r'[ \t\r\n]*,[ \t\r\n]*"arguments"[ \t\r\n]*:[ \t\r\n]*(?=\{)'
_HEAD: Final = re.compile(_NAME + _ARGUMENTS)
_HEAD_TO_NAME: Final = re.compile(_NAME)
_HEAD_BEHIND_NAME: Final = re.compile(_ARGUMENTS)


class HermesParser(ToolCallParser):
    """Parses `<tool_call>` {"name": …, "arguments": {…}} `</tool_call>`. Arguments are passed on unchanged.

    A call at the end of the answer may lack the text behind its arguments. JSON without the opening tag is text, even
    though small models write calls so: docs/models.md says why.
    """

    open_tag = "<tool_call>"
    close_tag = "</tool_call>"

    def __init__(
        self,
        functions: Mapping[str, Any],
        *,
        only_one: bool = False,
        opened: bool = False,
        enforced: bool = False,
        tags: tuple[str, str] | None = None,
    ) -> None:
        """See ToolCallParser. `tags` are the opening and the closing tag, if they are not those of Hermes.

        `enforced` says that the engine holds calls to this notation and to the functions' schemas. A call cannot turn
        out to be invalid then, so that it is sent while it is generated, and stays a call where the answer is cut.
        """
        super().__init__(functions, only_one=only_one, opened=opened)
        self._enforced: Final = enforced
        if tags is not None:
            self.open_tag, self.close_tag = tags
        self._reset()

    def _reset(self) -> None:
        self._name: str | None = None
        self._in_arguments = False
        self._scanner = JsonScanner()
        self._size = 0
        """The number of characters of the arguments read so far."""
        self._started = False
        self._arguments_start = 0
        """The offset in the held text of the arguments that were not sent yet."""
        self._offset = 0
        """The offset in the held text at which reading continues."""
        self._tail = "}" + self.close_tag

    def _read_call(self, segments: list[Segment]) -> bool:
        if not self._in_arguments:
            return self._read_head(segments)
        if not self._scanner.complete:
            return self._read_arguments(segments)
        return self._read_tail(segments)

    def _read_head(self, segments: list[Segment]) -> bool:
        if self._name is not None:
            return self._read_head_behind_name(segments)
        # The head is searched for in a text of limited length, so that no more is ever held or searched again.
        head = (_HEAD_TO_NAME if self._enforced else _HEAD).match(self._held, 0, LONGEST_HEAD)
        if head is None:
            return not self._may_become_head(_NAME_BEGIN) and self._reject_call(segments)
        name = _string(head[1])
        if name not in self._functions:
            return self._reject_call(segments)
        self._name = name
        if self._enforced:
            self._start(segments, head.end())
        else:
            self._in_arguments, self._arguments_start, self._offset = True, head.end(), head.end()
        return True

    def _read_head_behind_name(self, segments: list[Segment]) -> bool:
        head = _HEAD_BEHIND_NAME.match(self._held, 0, LONGEST_HEAD)
        if head is None:
            return not self._may_become_head(_ARGUMENTS_BEGIN) and self._fail(segments)
        self._held, self._in_arguments = self._held[head.end() :], True
        return True

    def _may_become_head(self, beginning: str) -> bool:
        begun = "".join(self._held[:LONGEST_HEAD].split())
        return (
            len(self._held) < LONGEST_HEAD
            and (beginning.startswith(begun) or begun.startswith(beginning))
            and self.close_tag not in self._held
        )

    def _read_arguments(self, segments: list[Segment]) -> bool:
        for character in self._held[self._offset :]:
            if not self._scanner.feed(character):
                return self._fail(segments)
            self._offset += 1
            self._size += 1
            if self._scanner.complete:
                break
        if self._enforced or self._size > MOST_HELD:
            self._send_arguments(segments)
        return self._scanner.complete

    def _read_tail(self, segments: list[Segment]) -> bool:
        for character in self._held[self._offset :]:
            if character == self._tail[0]:
                self._tail = self._tail[1:]
            elif character not in SPACE or self._tail[0] not in "}<":
                return self._fail(segments)
            self._offset += 1
            if not self._tail:
                return self._finish(segments)
        return False

    def _start(self, segments: list[Segment], end: int) -> None:
        """Send the name of the call, and drop the held text up to the offset `end`."""
        assert self._name is not None  # noqa: S101  # it was read before
        self._start_call(segments, self._name)
        self._started = True
        self._held = self._held[end:]
        self._arguments_start = self._offset = 0

    def _send_arguments(self, segments: list[Segment]) -> None:
        arguments = self._held[self._arguments_start : self._offset]
        if self._started:
            self._held = self._held[self._offset :]
            self._arguments_start = self._offset = 0
        else:
            self._start(segments, self._offset)
        if arguments:
            segments.append(CallArguments(self.calls - 1, arguments))

    def _finish(self, segments: list[Segment]) -> bool:
        """End a complete call, whose text ends at the current offset."""
        if not self._started:
            rest = self._held[self._offset :]
            self._offset = self._arguments_start + self._size
            self._send_arguments(segments)
            self._held = rest
        else:
            self._held = self._held[self._offset :]
        self.complete += 1
        self._inside, self._after_call = False, True
        self._reset()
        return True

    def _fail(self, segments: list[Segment]) -> bool:
        """End a call that turns out to be invalid at the current offset."""
        if not self._started and self._size <= MOST_HELD:
            self._reject_call(segments)
        elif self._scanner.complete:
            # All of its arguments were sent: it is a call, and the text in place of its end is ordinary text.
            self.complete += 1
            self._inside = False
        else:
            self._send_arguments(segments)
            self._inside = False
        self._reset()
        return True

    def _cut_off(self, segments: list[Segment]) -> None:
        if self._in_arguments and self._scanner.complete:
            self._offset = len(self._held)
            self._finish(segments)
        elif self._enforced:
            self._cut_off_enforced(segments)
        else:
            self._fail(segments)

    def _cut_off_enforced(self, segments: list[Segment]) -> None:
        """End a call that can be nothing else. It is sent without arguments if its name is not complete, but clear."""
        if self._name is None:
            begun = "".join(self._held.split()).removeprefix(_NAME_BEGIN)
            begun = "" if _NAME_BEGIN.startswith(begun) else begun
            names = [name for name in self._functions if name.startswith(begun)]
            if len(names) == 1:
                self._start_call(segments, names[0])
        self._held, self._opening, self._inside = "", "", False
        self._reset()


def _string(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""
