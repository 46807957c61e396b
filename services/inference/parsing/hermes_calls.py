"""Tool calls of Qwen's models, after NousResearch's Hermes function calling: JSON between tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from services.inference.parsing.json_scanner import JsonScanner
from services.inference.parsing.segments import CallArguments, Piece
from services.inference.parsing.tool_calls import MOST_HELD, SPACE, ToolCallParser

LONGEST_HEAD: Final = 512
_HEAD_BEGIN: Final = '{"name":"'
_HEAD: Final = re.compile(
    r'[ \t\r\n]*\{[ \t\r\n]*"name"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\\x00-\x1f]|\\.)*")[ \t\r\n]*'
    r',[ \t\r\n]*"arguments"[ \t\r\n]*:[ \t\r\n]*(?=\{)'
)


class HermesParser(ToolCallParser):
    """`<tool_call>` {"name": …, "arguments": {…}} `</tool_call>`. Arguments are passed on as the model writes them.

    A call at the answer's end may lack what follows its arguments.
    """

    open_tag = "<tool_call>"
    close_tag = "</tool_call>"

    def __init__(self, functions: Mapping[str, Any], *, only_one: bool = False, opened: bool = False) -> None:
        """See the base."""
        super().__init__(functions, only_one=only_one, opened=opened)
        self._forget()

    def _forget(self) -> None:
        self._name: str | None = None
        self._scanner = JsonScanner()
        self._size = 0
        """How long the arguments are, as far as they were read."""
        self._shown = False
        self._begin = 0
        """Where in the held text the arguments begin of which nothing was shown."""
        self._place = 0
        """Where in the held text the call is to be read on."""
        self._tail = "}" + self.close_tag

    def _read_call(self, pieces: list[Piece]) -> bool:
        if self._name is None:
            return self._read_head(pieces)
        if not self._scanner.complete:
            return self._read_arguments(pieces)
        return self._read_tail(pieces)

    def _read_head(self, pieces: list[Piece]) -> bool:
        # It is looked for in a text of a fixed length, so that no more than that is ever held or searched again.
        head = _HEAD.match(self._held, 0, LONGEST_HEAD)
        if head is None:
            return not self._may_become_head() and self._give_back(pieces)
        name = _string(head[1])
        if name not in self._functions:
            return self._give_back(pieces)
        self._name, self._begin, self._place = name, head.end(), head.end()
        return True

    def _may_become_head(self) -> bool:
        begin = "".join(self._held[:LONGEST_HEAD].split())
        return (
            len(self._held) < LONGEST_HEAD
            and (_HEAD_BEGIN.startswith(begin) or begin.startswith(_HEAD_BEGIN))
            and self.close_tag not in self._held
        )

    def _read_arguments(self, pieces: list[Piece]) -> bool:
        for letter in self._held[self._place :]:
            if not self._scanner.feed(letter):
                return self._fail(pieces)
            self._place += 1
            self._size += 1
            if self._scanner.complete:
                break
        if self._size > MOST_HELD:
            self._show_arguments(pieces)
        return self._scanner.complete

    def _read_tail(self, pieces: list[Piece]) -> bool:
        for letter in self._held[self._place :]:
            if letter == self._tail[0]:
                self._tail = self._tail[1:]
            elif letter not in SPACE or self._tail[0] not in "}<":
                return self._fail(pieces)
            self._place += 1
            if not self._tail:
                return self._finish(pieces)
        return False

    def _show_arguments(self, pieces: list[Piece]) -> None:
        assert self._name is not None  # noqa: S101  # it was read before the arguments
        arguments = self._held[self._begin : self._place]
        if not self._shown:
            self._show(pieces, self._name, arguments)
        elif arguments:
            pieces.append(CallArguments(self.calls - 1, arguments))
        self._shown = True
        self._held = self._held[self._place :]
        self._begin = self._place = 0

    def _finish(self, pieces: list[Piece]) -> bool:
        """The call is complete, and what is held up to the current place belongs to it."""
        if not self._shown:
            rest = self._held[self._place :]
            self._place = self._begin + self._size
            self._show_arguments(pieces)
            self._held = rest
        else:
            self._held = self._held[self._place :]
        self.complete += 1
        self._inside, self._after_call = False, True
        self._forget()
        return True

    def _fail(self, pieces: list[Piece]) -> bool:
        """The call is broken at the current place."""
        if self._size <= MOST_HELD:
            self._give_back(pieces)
        elif self._scanner.complete:
            # All of its arguments were shown: it is a call, and what comes instead of its end is text.
            self.complete += 1
            self._inside = False
        else:
            self._show_arguments(pieces)
            self._inside = False
        self._forget()
        return True

    def _cut_off(self, pieces: list[Piece]) -> None:
        if self._name is not None and self._scanner.complete:
            self._place = len(self._held)
            self._finish(pieces)
        else:
            self._fail(pieces)


def _string(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""
