"""Parses GBNF, and rejects grammars with excessive numbers and sizes."""

from __future__ import annotations

import re
from typing import Final

from services.inference.triton_backend.gbnf.grammar import (
    Characters,
    Choice,
    GbnfError,
    Node,
    Ranges,
    Reference,
    Repetition,
    Rule,
    Sequence,
    nodes,
)

MAX_RULES: Final = 500
MAX_NESTING: Final = 64
MAX_REPETITION: Final = 10_000
MAX_ALTERNATIVES: Final = 4_096
MAX_SYMBOLS: Final = 20_000
LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_SPACE: Final = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TOKEN: Final = re.compile(r"!?<[^>\r\n]{0,200}>")
_COUNTS: Final = re.compile(r"\{\s*(?P<least>[0-9]+)\s*(?:(?P<comma>,)\s*(?P<most>[0-9]*)\s*)?\}")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]"}


def parse(text: str) -> dict[str, Rule]:
    """Return the rules of a GBNF that `root` needs, by name. Raises GbnfError."""
    rules = _Parser(text).rules
    if "root" not in rules:
        raise GbnfError("grammar_without_root")
    needed, waiting = {"root": rules["root"]}, [rules["root"]]
    while waiting:
        for node in nodes(waiting.pop().body):
            if isinstance(node, Reference) and node.name not in needed:
                if node.name not in rules:
                    raise GbnfError("grammar_rule_undefined", rule=node.name[:80], at=f"line {node.line}")
                needed[node.name] = rules[node.name]
                waiting.append(rules[node.name])
    return needed


class _Parser:
    """Parses all rules in one pass."""

    def __init__(self, text: str) -> None:
        """Parse `text`; the result is `rules`."""
        self._text: Final = text
        self._at = 0
        self._line_at = 0
        self._line = 1
        self._name = ""
        self._symbols = 0
        self._alternatives = 0
        self.rules: Final[dict[str, Rule]] = {}
        self._skip(lines=True)
        while self._at < len(text):
            self._read_rule()

    def _read_rule(self) -> None:
        line, name = self._here(), self._match(_NAME)
        if not name:
            raise self._expected("NAME")
        self._name = name
        self._skip(lines=False)
        if not self._text.startswith("::=", self._at):
            raise self._expected("::=")
        self._at += 3
        self._skip(lines=True)
        body = self._alternates(0)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            raise self._expected("\\n")
        self.rules[name] = Rule(name, line, body)
        if len(self.rules) > MAX_RULES:
            raise GbnfError("grammar_too_many_rules", value=len(self.rules), at=self._where(), limit=MAX_RULES)
        self._skip(lines=True)

    def _alternates(self, depth: int) -> Node:
        if depth > MAX_NESTING:
            raise GbnfError("groups_nested_too_deeply", value=depth, at=self._where(), limit=MAX_NESTING)
        options: list[Node] = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._alternatives += 1
            if self._alternatives >= MAX_ALTERNATIVES:
                count = self._alternatives + 1
                raise GbnfError("too_many_alternatives", value=count, at=self._where(), limit=MAX_ALTERNATIVES)
            self._at += 1
            self._skip(lines=True)
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else Choice(options)

    def _sequence(self, depth: int) -> Sequence:
        items: list[Node] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == '"':
                items.append(self._literal())
            elif character == "[":
                items.append(self._class())
            elif character == ".":
                self._at += 1
                items.append(Characters(((0, LAST_CHARACTER),)))
            elif character == "(":
                self._at += 1
                self._skip(lines=True)
                items.append(self._alternates(depth + 1))
                if not self._text.startswith(")", self._at):
                    raise self._expected(")")
                self._at += 1
            elif character in "*+?{":
                if not items:
                    raise self._expected(f"ITEM {character}")
                items[-1] = self._repetition(items[-1], depth)
            elif character in "<!":
                token = (self._match(_TOKEN) or character)[:80]
                raise GbnfError("grammar_names_token", value=token, at=self._where())
            else:
                name = self._match(_NAME)
                if not name:
                    break
                items.append(Reference(name, self._here()))
            self._count()
            self._skip(lines=depth > 0)
        return Sequence(items)

    def _literal(self) -> Sequence:
        self._at += 1
        characters: list[Node] = []
        while True:
            if self._at >= len(self._text):
                raise self._expected('"')
            if self._text[self._at] == '"':
                self._at += 1
                return Sequence(characters)
            code = self._character()
            if _SURROGATES[0] <= code <= _SURROGATES[1]:
                raise GbnfError("grammar_half_character", value=f"U+{code:04X}", at=self._where())
            characters.append(Characters(((code, code),)))
            self._count()

    def _class(self) -> Characters:
        began = self._at
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges = []
        while not self._text.startswith("]", self._at):
            if self._at >= len(self._text):
                raise self._expected("]")
            first = last = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                raise GbnfError(
                    "grammar_range_backwards",
                    value=self._text[began : self._at][:80],
                    at=self._where(),
                    first=f"U+{first:04X}",
                    last=f"U+{last:04X}",
                )
            ranges.append((first, last))
            self._count()
        self._at += 1
        normal = _normal(ranges, negated=negated)
        if not normal:
            raise GbnfError("grammar_class_empty", value=self._text[began : self._at][:80], at=self._where())
        return Characters(normal)

    def _character(self) -> int:
        character = self._text[self._at]
        self._at += 1
        if character != "\\":
            return ord(character)
        escape = self._text[self._at : self._at + 1]
        self._at += 1
        if escape in _ESCAPES:
            return ord(_ESCAPES[escape])
        digits = self._text[self._at : self._at + _HEX.get(escape, 0)]
        if not digits or len(digits) < _HEX[escape] or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
            raise GbnfError("grammar_escape_unknown", value=f"\\{escape}{digits}", at=self._where())
        self._at += len(digits)
        code = int(digits, 16)
        if code > LAST_CHARACTER:
            raise GbnfError("grammar_escape_too_large", value=f"\\{escape}{digits}", at=self._where())
        return code

    def _repetition(self, item: Node, depth: int) -> Repetition:
        character = self._text[self._at]
        if character != "{":
            self._at += 1
            return Repetition(item, int(character == "+"), 1 if character == "?" else None)
        match = _COUNTS.match(self._text, self._at)
        if match is None or (not depth and re.search(r"[\r\n]", match[0])):
            raise self._expected("{m} | {m,} | {m,n}")
        counts = match["least"], match["most"] or ""
        for digits in counts:
            if len(digits) > 9 or int(digits or 0) > MAX_REPETITION:
                raise GbnfError("repetition_too_large", value=match[0][:40], at=self._where(), limit=MAX_REPETITION)
        least = int(counts[0])
        most = least if not match["comma"] else int(counts[1]) if counts[1] else None
        if most is not None and most < least:
            raise GbnfError("repetition_backwards", value=match[0], at=self._where())
        self._at = match.end()
        return Repetition(item, least, most)

    def _count(self) -> None:
        self._symbols += 1
        if self._symbols > MAX_SYMBOLS:
            raise GbnfError("grammar_too_many_symbols", value=self._symbols, at=self._where(), limit=MAX_SYMBOLS)

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _skip(self, *, lines: bool) -> None:
        self._match(_SPACE_AND_LINES if lines else _SPACE)

    def _here(self) -> int:
        """Return the number of the line that is being read."""
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line

    def _where(self) -> str:
        """Return what is read, as messages show it."""
        rule = f", rule {self._name[:80]}" if self._name else ""
        return f"line {self._here()}{rule}"

    def _expected(self, symbol: str) -> GbnfError:
        return GbnfError("grammar_syntax", at=self._where(), expected=symbol)


def _normal(ranges: list[tuple[int, int]], *, negated: bool) -> Ranges:
    """Return ranges in order, without overlaps and surrogates."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    if negated:
        edges = [-1, *(edge for first, last in merged for edge in (first, last)), LAST_CHARACTER + 1]
        merged = [(before + 1, after - 1) for before, after in zip(edges[::2], edges[1::2], strict=True)]
    low, high = _SURROGATES
    parts = [part for first, last in merged for part in ((first, min(last, low - 1)), (max(first, high + 1), last))]
    return tuple((first, last) for first, last in parts if first <= last)
