"""Translates a GBNF to llguidance's Lark.

llguidance's lexer takes the longest match of a terminal and never returns to a shorter one, so that the translation
chooses terminals for which this makes no difference: a grammar without recursion becomes one terminal, which is a
regular expression; in a grammar with recursion, each terminal is one character.
"""

from __future__ import annotations

from collections.abc import Sequence as Lines
from dataclasses import dataclass
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
from services.inference.triton_backend.gbnf.parser import parse

LARK_MARK: Final = "%llguidance"
"""A grammar that begins with it is llguidance's Lark, and not GBNF."""
MAX_REPETITION_PRODUCT: Final = 1_000_000
"""The largest product of the counts of nested repetitions."""
MAX_CHAIN: Final = 256
"""The longest chain of references between different rules."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The rules of a GBNF in Lark. None has the name `start`, or another name of lower-case letters alone."""

    root: str
    """The name of the rule for the whole text."""
    rules: Lines[str]
    is_recursive: bool
    """Whether each terminal is one character. Otherwise the root is the only terminal."""


def is_lark(text: str) -> bool:
    """Return whether a grammar is llguidance's Lark, and not GBNF."""
    return text.lstrip().startswith(LARK_MARK)


def as_lark(text: str) -> str:
    """Return a grammar in llguidance's Lark: a GBNF translated, and Lark unchanged. Raises GbnfError."""
    return text if is_lark(text) else to_lark(text)


def to_lark(text: str) -> str:
    """Translate a GBNF to Lark. Raises GbnfError."""
    translation = translate(text)
    return "\n".join([f"{LARK_MARK} {{}}", f"start: {translation.root}", *translation.rules, ""])


def translate(text: str) -> Translation:
    """Translate the rules of a GBNF to Lark. Raises GbnfError."""
    return _Lark(parse(text)).translation


class _Lark:
    """Writes rules as Lark."""

    def __init__(self, rules: dict[str, Rule]) -> None:
        """Write `rules`; the result is `translation`."""
        self._rules: Final = rules
        order, is_recursive = _order(rules)
        self._regular: Final = not is_recursive
        _check_products(rules, order)
        self._names: Final = {name: f"{'R' if self._regular else 'r'}{number}" for number, name in enumerate(rules)}
        self._sets: Final[dict[Ranges, str]] = {}
        lines = [f"{self._names[name]}: {self._lark(rule.body)}" for name, rule in rules.items()]
        sets = [f"{name}: /{_character_class(ranges)}/" for ranges, name in self._sets.items()]
        self.translation: Final = Translation(self._names["root"], [*lines, *sets], is_recursive)

    def _lark(self, node: Node) -> str:
        match node:
            case Characters(ranges):
                return self._sets.setdefault(ranges, f"C{len(self._sets)}")
            case Reference(name, _):
                return self._names[name]
            case Sequence(items):
                return " ".join(self._group(item) for item in items) or '""'
            case Choice(options):
                return " | ".join(self._lark(option) for option in options)
            case Repetition(item, least, most):
                return self._group(item) + _counts(least, most) if most != 0 else '""'

    def _group(self, node: Node) -> str:
        lark = self._lark(node)
        is_one = isinstance(node, Characters | Reference) or lark == '""'
        return lark if is_one else f"({lark})"


def _counts(least: int, most: int | None) -> str:
    plain = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return plain or f"{{{least},{'' if most is None else most}}}"


def _character_class(ranges: Ranges) -> str:
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges) + "]"


def _order(rules: dict[str, Rule]) -> tuple[list[str], bool]:
    """Return the rules, each behind those that it refers to if possible, and whether there is recursion."""
    references = {
        name: list(dict.fromkeys(node.name for node in nodes(rule.body) if isinstance(node, Reference)))
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
            raise GbnfError("grammar_rules_chained", value=len(path), rule=path[-1][0][:80], limit=MAX_CHAIN)
    return order, is_recursive


def _check_products(rules: dict[str, Rule], order: list[str]) -> None:
    """Raise GbnfError for nested repetitions whose product of counts is too large."""
    products: dict[str, int] = {}
    for name in order:
        products[name] = product = _product(rules[name].body, products)
        if product > MAX_REPETITION_PRODUCT:
            at = f"line {rules[name].line}, rule {name[:80]}"
            raise GbnfError("repetitions_multiply", value=product, at=at, limit=MAX_REPETITION_PRODUCT)


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
