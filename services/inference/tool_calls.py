"""Finds tool calls in a model's answer, while it streams.

Two notations are known. `HermesParser`: a JSON object between `<tool_call>` and `</tool_call>` (Qwen's models, after
NousResearch's Hermes function calling). `MiniMaxParser`: XML between `<minimax:tool_call>` and `</minimax:tool_call>`, one
`invoke` per call, whose parameters are typed by the function's schema.

What is no proper call stays text. Where the text is cut into pieces does not change what comes out, joined.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from services.inference.json_scanner import JsonScanner
from services.inference.parameter_value import ParameterSchema
from services.inference.pieces import Answer, CallArguments, CallStart, Piece
from services.inference.stop_strings import overlap


class ToolCallParser(ABC):
    """Reads one choice's answer in pieces of any size."""

    open_tag: str
    close_tag: str

    def __init__(self, functions: Mapping[str, Any]) -> None:
        """`functions` are the parameters' JSON Schemas of the functions that may be called, by name."""
        self._functions: Final = functions
        self._held = ""
        self._inside = False
        self._after_call = False
        self.calls = 0
        """How many calls were begun."""
        self.complete = 0
        """How many of them are complete."""

    def feed(self, text: str) -> list[Piece]:
        """Read the next piece of the answer. What may be a part of a call's beginning is held until it is clear."""
        self._held += text
        pieces: list[Piece] = []
        while self._read_call(pieces) if self._inside else self._read_text(pieces):
            pass
        return pieces

    def close(self) -> list[Piece]:
        """Read the end: what was held is text, unless a call was already begun with it."""
        held, self._held = self._held, ""
        if not self._inside:
            return [Answer(held)] if held and not (self._after_call and held.isspace()) else []
        return self._cut_off(held)

    def _read_text(self, pieces: list[Piece]) -> bool:
        if self._after_call:
            # Line breaks behind a call belong to it, as do those before one.
            self._held = self._held.lstrip("\r\n")
        text, tag, rest = self._held.partition(self.open_tag)
        if tag:
            self._inside, self._held = True, rest
            text = text.rstrip("\r\n")
        else:
            keep = len(text[: len(text) - overlap(text, self.open_tag)].rstrip("\r\n"))
            text, self._held = text[:keep], text[keep:]
        if text:
            self._after_call = False
            pieces.append(Answer(text))
        return bool(tag)

    def _begin(self, name: str) -> CallStart:
        self.calls += 1
        return CallStart(self.calls - 1, name)

    def _give_up(self, pieces: list[Piece], text: str) -> None:
        """What looked like a call is none: it is text."""
        pieces.append(Answer(text))
        self._inside = False

    @abstractmethod
    def _read_call(self, pieces: list[Piece]) -> bool:
        """Read what is held inside a call; whether something else is to be read next."""

    @abstractmethod
    def _cut_off(self, held: str) -> list[Piece]:
        """The pieces of a call that the answer's end cuts off."""


class HermesParser(ToolCallParser):
    """`<tool_call>` {"name": …, "arguments": {…}} `</tool_call>`. Arguments are streamed as the model writes them."""

    open_tag = "<tool_call>"
    close_tag = "</tool_call>"

    _HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
    _TAIL = re.compile(r"\s*\}\s*</tool_call>")
    _LONGEST_HEAD = 512

    def __init__(self, functions: Mapping[str, Any]) -> None:
        """See the class."""
        super().__init__(functions)
        self._scanner: JsonScanner | None = None

    def _read_call(self, pieces: list[Piece]) -> bool:
        if self._scanner is None:
            return self._read_head(pieces)
        if not self._scanner.complete:
            return self._read_arguments(pieces)
        return self._read_tail(pieces)

    def _read_head(self, pieces: list[Piece]) -> bool:
        head = self._HEAD.match(self._held)
        name = _string(head[1]) if head else ""
        if head and name in self._functions:
            self._held = self._held[head.end() :]
            self._scanner = JsonScanner()
            pieces.append(self._begin(name))
            return True
        end = self._held.find(self.close_tag)
        if head or end >= 0 or len(self._held) > self._LONGEST_HEAD:
            end = end + len(self.close_tag) if end >= 0 else len(self._held)
            text, self._held = self._held[:end], self._held[end:]
            self._give_up(pieces, self.open_tag + text)
            return True
        return False

    def _read_arguments(self, pieces: list[Piece]) -> bool:
        assert self._scanner is not None  # noqa: S101  # it was made with the head
        taken = 0
        for letter in self._held:
            if self._scanner.complete:
                break
            if not self._scanner.feed(letter):
                self._emit(pieces, taken)
                self._leave(pieces)
                return True
            taken += 1
        self._emit(pieces, taken)
        return self._scanner.complete

    def _emit(self, pieces: list[Piece], length: int) -> None:
        if length:
            pieces.append(CallArguments(self.calls - 1, self._held[:length]))
            self._held = self._held[length:]

    def _read_tail(self, pieces: list[Piece]) -> bool:
        tail = self._TAIL.match(self._held)
        if tail is None and self._may_become_tail():
            return False
        self.complete += 1
        if tail is None:
            self._leave(pieces)
        else:
            self._held = self._held[tail.end() :]
            self._inside, self._scanner, self._after_call = False, None, True
        return True

    def _may_become_tail(self) -> bool:
        rest = "".join(self._held.split())
        return ("}" + self.close_tag).startswith(rest)

    def _leave(self, pieces: list[Piece]) -> None:
        """The call is broken here; what follows it is text again."""
        self._inside, self._scanner = False, None

    def _cut_off(self, held: str) -> list[Piece]:
        if self._scanner is None:
            return [Answer(self.open_tag + held)]
        if self._scanner.complete:
            # Only the closing was missing.
            self.complete += 1
        return []


class MiniMaxParser(ToolCallParser):
    """`<invoke name="…">` with `<parameter name="…">` per argument. A parameter is streamed when it is complete."""

    open_tag = "<minimax:tool_call>"
    close_tag = "</minimax:tool_call>"

    _INVOKE = re.compile(r'\s*<invoke name="([^"]*)">')
    _PARAMETER = re.compile(r'\s*<parameter name="([^"]*)">(.*?)</parameter>', re.DOTALL)
    _END_INVOKE = re.compile(r"\s*</invoke>")
    _END = re.compile(r"\s*</minimax:tool_call>")

    def __init__(self, functions: Mapping[str, Any]) -> None:
        """See the class."""
        super().__init__(functions)
        self._name: str | None = None
        self._arguments = 0

    def _read_call(self, pieces: list[Piece]) -> bool:
        return self._read_invoke(pieces) if self._name is None else self._read_parameter(pieces)

    def _read_invoke(self, pieces: list[Piece]) -> bool:
        if end := self._END.match(self._held):
            self._inside, self._after_call = False, True
            self._held = self._held[end.end() :]
            return True
        invoke = self._INVOKE.match(self._held)
        if invoke and invoke[1] in self._functions:
            self._name, self._arguments = invoke[1], 0
            self._held = self._held[invoke.end() :]
            pieces += [self._begin(invoke[1]), CallArguments(self.calls - 1, "{")]
            return True
        visible = self._held.lstrip()
        if invoke or not any(_may_become(visible, tag) for tag in ('<invoke name="', self.close_tag)):
            end_place = self._held.find(self.close_tag)
            if end_place < 0:
                return False
            end_place += len(self.close_tag)
            text, self._held = self._held[:end_place], self._held[end_place:]
            self._give_up(pieces, text if self.calls else self.open_tag + text)
            return True
        return False

    def _read_parameter(self, pieces: list[Piece]) -> bool:
        assert self._name is not None  # noqa: S101  # it was set with the call
        if end := self._END_INVOKE.match(self._held):
            self._held = self._held[end.end() :]
            self._name = None
            self.complete += 1
            pieces.append(CallArguments(self.calls - 1, "}"))
            return True
        parameter = self._PARAMETER.match(self._held)
        if parameter is None:
            return False
        self._held = self._held[parameter.end() :]
        separator = ", " if self._arguments else ""
        self._arguments += 1
        value = ParameterSchema(self._functions[self._name], parameter[1]).to_json(parameter[2])
        name = json.dumps(parameter[1], ensure_ascii=False)
        text = f"{separator}{name}: {value}"
        pieces.append(CallArguments(self.calls - 1, text))
        return True

    def _cut_off(self, held: str) -> list[Piece]:
        if self._name is not None or self.complete or not held:
            return []
        return [Answer(self.open_tag + held)]


def _string(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _may_become(text: str, tag: str) -> bool:
    return tag.startswith(text) or text.startswith(tag)
