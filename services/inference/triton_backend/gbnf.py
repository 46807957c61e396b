"""Translates GBNF, llama.cpp's notation of grammars, into llguidance's variant of Lark.

llama.cpp follows every reading of an ambiguous GBNF at once, so that one token can take minutes. llguidance bounds the
work for each token. Its lexer takes the longest match of a terminal and never returns to a shorter one, so that the
translation chooses terminals for which this makes no difference: a grammar without recursion becomes one terminal,
which is a regular expression; in a grammar with recursion, each terminal is one character.

Numbers and sizes are limited, so that no text takes long to parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

LARK_MARK: Final = "%llguidance"
"""A grammar that begins with it is llguidance's Lark and no GBNF."""
MAX_RULES: Final = 500
MAX_NESTING: Final = 64
MAX_REPETITION: Final = 10_000
MAX_REPETITION_PRODUCT: Final = 1_000_000
MAX_ALTERNATIVES: Final = 4_096
MAX_SYMBOLS: Final = 20_000
MAX_CHAIN: Final = 256
"""Of rules that refer to one another, one inside the other, without a repetition of any."""
_LAST: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_SPACE: Final = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TOKEN: Final = re.compile(r"!?<[^>\r\n]{0,200}>")
_COUNTS: Final = re.compile(r"\{\s*(?P<least>[0-9]+)\s*(?:(?P<comma>,)\s*(?P<most>[0-9]*)\s*)?\}")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]"}

Ranges = tuple[tuple[int, int], ...]


class GbnfError(Exception):
    """A grammar is invalid, exceeds a limit, or cannot be translated. The message follows the grammar's name."""

    def __init__(self, message: str, *, value: object = "", limit: object = "") -> None:
        """`value` and `limit` are those of a limit that is exceeded."""
        super().__init__(message)
        self.value = value
        self.limit = limit

    def about(self, name: str) -> str:
        """The whole message about the grammar that is called `name`."""
        return f"{name} {self}"


@dataclass(slots=True)
class Characters:
    """One character of some."""

    ranges: Ranges


@dataclass(slots=True)
class Reference:
    """Another rule."""

    name: str
    line: int


@dataclass(slots=True)
class Sequence:
    """Items one after the other; none for the empty text."""

    items: list[Node]


@dataclass(slots=True)
class Choice:
    """One of several."""

    options: list[Node]


@dataclass(slots=True)
class Repetition:
    """An item several times; `most` None for any number."""

    item: Node
    least: int
    most: int | None


Node = Characters | Reference | Sequence | Choice | Repetition


@dataclass(slots=True)
class Rule:
    """A rule, and the line that it begins in."""

    name: str
    line: int
    body: Node = field(default_factory=lambda: Sequence([]))


def as_lark(text: str) -> str:
    """A grammar in llguidance's Lark: a GBNF translated, and Lark as it is. Raises GbnfError."""
    return text if text.lstrip().startswith(LARK_MARK) else to_lark(text)


def to_lark(text: str) -> str:
    """The Lark of a GBNF. Raises GbnfError."""
    return _Lark(parse(text)).text


def parse(text: str) -> dict[str, Rule]:
    """The rules of a GBNF that `root` needs, by name. Raises GbnfError."""
    rules = _Parser(text).rules
    if "root" not in rules:
        raise GbnfError("has no rule named root, where an answer begins; add one")
    needed, waiting = {"root": rules["root"]}, [rules["root"]]
    while waiting:
        for node in _nodes(waiting.pop().body):
            if isinstance(node, Reference) and node.name not in needed:
                if node.name not in rules:
                    raise GbnfError(f"line {node.line} refers to the rule {node.name[:80]}, which is not defined")
                needed[node.name] = rules[node.name]
                waiting.append(rules[node.name])
    return needed


def _nodes(body: Node) -> Iterator[Node]:
    waiting = [body]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case Sequence(items) | Choice(items):
                waiting += items
            case Repetition(item, _, _):
                waiting.append(item)


class _Parser:
    """Reads all rules in one pass."""

    def __init__(self, text: str) -> None:
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
            self._fail("expected the name of a rule")
        self._name = name
        self._skip(lines=False)
        if not self._text.startswith("::=", self._at):
            self._fail("expected ::= behind the name of a rule")
        self._at += 3
        self._skip(lines=True)
        body = self._alternates(0)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            self._fail("expected the end of a line")
        self.rules[name] = Rule(name, line, body)
        if len(self.rules) > MAX_RULES:
            self._fail(f"has more than {MAX_RULES} rules", value=len(self.rules), limit=MAX_RULES)
        self._skip(lines=True)

    def _alternates(self, depth: int) -> Node:
        if depth > MAX_NESTING:
            self._fail(f"parentheses are nested more than {MAX_NESTING} deep", value=depth, limit=MAX_NESTING)
        options: list[Node] = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._alternatives += 1
            if self._alternatives >= MAX_ALTERNATIVES:
                self._fail(
                    f"there are more than {MAX_ALTERNATIVES} alternatives",
                    value=self._alternatives + 1,
                    limit=MAX_ALTERNATIVES,
                )
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
                items.append(Characters(((0, _LAST),)))
            elif character == "(":
                self._at += 1
                self._skip(lines=True)
                items.append(self._alternates(depth + 1))
                if not self._text.startswith(")", self._at):
                    self._fail("expected ) where a group ends")
                self._at += 1
            elif character in "*+?{":
                if not items:
                    self._fail(f"expected something to repeat before {character}")
                items[-1] = self._repetition(items[-1], depth)
            elif character in "<!":
                self._fail(
                    f"refers to the token {(self._match(_TOKEN) or character)[:80]}; tokens cannot be named in a GBNF "
                    "here: write the text itself in quotes, or use llguidance's Lark (%llguidance {}), where "
                    "<[id]> names a token"
                )
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
                self._fail('expected " where a literal ends')
            if self._text[self._at] == '"':
                self._at += 1
                return Sequence(characters)
            code = self._character()
            if _SURROGATES[0] <= code <= _SURROGATES[1]:
                self._fail(f"U+{code:04X} is half a character, which no text has")
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
                self._fail("expected ] where a class of characters ends")
            first = last = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                shown = self._text[began : self._at][:80]
                self._fail(f"the range that ends {shown} goes from U+{first:04X} down to U+{last:04X}; turn it around")
            ranges.append((first, last))
            self._count()
        self._at += 1
        found = _normal(ranges, negated=negated)
        if not found:
            self._fail(f"the class {self._text[began : self._at][:80]} matches no character at all")
        return Characters(found)

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
            self._fail(f"the escape \\{escape}{digits} is not known; write \\\\ for a backslash")
        self._at += len(digits)
        code = int(digits, 16)
        if code > _LAST:
            self._fail(f"the escape \\{escape}{digits} is beyond the last character, \\U0010FFFF")
        return code

    def _repetition(self, item: Node, depth: int) -> Repetition:
        character = self._text[self._at]
        if character != "{":
            self._at += 1
            return Repetition(item, int(character == "+"), 1 if character == "?" else None)
        found = _COUNTS.match(self._text, self._at)
        if found is None or (not depth and re.search(r"[\r\n]", found[0])):
            self._fail("expected {m}, {m,} or {m,n} with numbers for m and n")
        counts = found["least"], found["most"] or ""
        for digits in counts:
            if len(digits) > 9 or int(digits or 0) > MAX_REPETITION:
                self._fail(
                    f"the repetition {found[0][:80]} is more than {MAX_REPETITION}",
                    value=digits[:40],
                    limit=MAX_REPETITION,
                )
        least = int(counts[0])
        most = least if not found["comma"] else int(counts[1]) if counts[1] else None
        if most is not None and most < least:
            self._fail(
                f"the repetition {found[0]} ends before it begins; write the smaller number first", value=found[0]
            )
        self._at = found.end()
        return Repetition(item, least, most)

    def _count(self) -> None:
        self._symbols += 1
        if self._symbols > MAX_SYMBOLS:
            self._fail(
                f"there are more than {MAX_SYMBOLS} characters and symbols", value=self._symbols, limit=MAX_SYMBOLS
            )

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _skip(self, *, lines: bool) -> None:
        self._match(_SPACE_AND_LINES if lines else _SPACE)

    def _here(self) -> int:
        """The number of the line that is read."""
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line

    def _fail(self, problem: str, *, value: object = "", limit: object = "") -> NoReturn:
        rule = f", rule {self._name[:80]}" if self._name else ""
        raise GbnfError(f"is not valid in line {self._here()}{rule}: {problem}", value=value, limit=limit)


def _normal(ranges: list[tuple[int, int]], *, negated: bool) -> Ranges:
    """In order, apart from one another, and without halves of characters."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    if negated:
        edges = [-1, *(edge for first, last in merged for edge in (first, last)), _LAST + 1]
        merged = [(before + 1, after - 1) for before, after in zip(edges[::2], edges[1::2], strict=True)]
    low, high = _SURROGATES
    parts = [part for first, last in merged for part in ((first, min(last, low - 1)), (max(first, high + 1), last))]
    return tuple((first, last) for first, last in parts if first <= last)


class _Lark:
    """Writes rules as Lark."""

    def __init__(self, rules: dict[str, Rule]) -> None:
        self._rules: Final = rules
        order, is_recursive = _order(rules)
        self._regular: Final = not is_recursive
        _check_products(rules, order)
        self._names: Final = {name: f"{'R' if self._regular else 'r'}{number}" for number, name in enumerate(rules)}
        self._sets: Final[dict[Ranges, str]] = {}
        lines = [f"{self._names[name]}: {self._written(rule.body)}" for name, rule in rules.items()]
        sets = [f"{name}: /{_character_class(ranges)}/" for ranges, name in self._sets.items()]
        self.text: Final = "\n".join([f"{LARK_MARK} {{}}", f"start: {self._names['root']}", *lines, *sets, ""])

    def _written(self, node: Node) -> str:
        match node:
            case Characters(ranges):
                return self._sets.setdefault(ranges, f"C{len(self._sets)}")
            case Reference(name, _):
                return self._names[name]
            case Sequence(items):
                return " ".join(self._grouped(item) for item in items) or '""'
            case Choice(options):
                return " | ".join(self._written(option) for option in options)
            case Repetition(item, least, most):
                return self._grouped(item) + _counts(least, most) if most != 0 else '""'

    def _grouped(self, node: Node) -> str:
        written = self._written(node)
        is_one = isinstance(node, Characters | Reference) or written == '""'
        return written if is_one else f"({written})"


def _counts(least: int, most: int | None) -> str:
    plain = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return plain or f"{{{least},{'' if most is None else most}}}"


def _character_class(ranges: Ranges) -> str:
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges) + "]"


def _order(rules: dict[str, Rule]) -> tuple[list[str], bool]:
    """The rules, each behind those that it refers to as far as that is possible; and whether any refers to itself."""
    references = {
        name: list(dict.fromkeys(node.name for node in _nodes(rule.body) if isinstance(node, Reference)))
        for name, rule in rules.items()
    }
    order: list[str] = []
    entered, done, is_recursive = set(), set(), False
    path = [("root", iter(references["root"]))]
    entered.add("root")
    while path:
        name, following = path[-1]
        for other in following:
            if other not in entered:
                entered.add(other)
                path.append((other, iter(references[other])))
                break
            is_recursive |= other not in done
        else:
            path.pop()
            done.add(name)
            order.append(name)
        if len(path) > MAX_CHAIN:
            raise GbnfError(
                f"has a chain of more than {MAX_CHAIN} rules that refer to one another, up to {path[-1][0][:80]}",
                value=len(path),
                limit=MAX_CHAIN,
            )
    return order, is_recursive


def _check_products(rules: dict[str, Rule], order: list[str]) -> None:
    """Raise GbnfError for repetitions inside one another whose counts multiply to too much."""
    products: dict[str, int] = {}
    for name in order:
        products[name] = product = _product(rules[name].body, products)
        if product > MAX_REPETITION_PRODUCT:
            raise GbnfError(
                f"has repetitions inside one another in the rule {name[:80]}, line {rules[name].line}, which multiply "
                f"to more than {MAX_REPETITION_PRODUCT}",
                value=product,
                limit=MAX_REPETITION_PRODUCT,
            )


def _product(node: Node, products: dict[str, int]) -> int:
    match node:
        case Characters():
            return 1
        case Reference(name, _):
            return products.get(name, 1)
        case Sequence(items) | Choice(items):
            return max((_product(item, products) for item in items), default=1)
        case Repetition(item, least, most):
            return _product(item, products) * max(1, least, most or 0)
