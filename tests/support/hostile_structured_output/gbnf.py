"""Grammars in GBNF that may harm an engine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.support.hostile_structured_output.mutation import mutated_text
from tests.support.hostile_structured_output.numbers import NUMBERS, random_size
from tests.support.hostile_structured_output.regexes import counted_group, wrapped

_BOOK_GRAMMARS: Final = (
    'root ::= (expr "=" ws term "\\n")+\nexpr ::= term ([-+*/] term)*\nterm ::= ident | num | "(" ws expr ")" ws\n'
    "ident ::= [a-z] [a-z0-9_]* ws\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n",
    'root ::= "[" ws (value ("," ws value)*)? "]" ws\nvalue ::= root | string\nstring ::= '
    '"\\"" ([^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\\"" ws\nws ::= | " "\n',
    'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ "\\n"\n',
    'root ::= move (" " move){0,9}\nmove ::= [a-h] [1-8] | "O-O" "-O"? # castling\n',
)
"""Grammars like those in manuals: arithmetic, JSON, a list, chess moves."""


def hostile_gbnf(random: Random) -> tuple[str, str]:
    """Return the name of a family and a grammar of it."""
    if random.random() < 0.3:
        return "mutated book grammar", mutated_text(random, random.choice(_BOOK_GRAMMARS))
    family = random.choice(tuple(_GBNF_FAMILIES))
    return family, _GBNF_FAMILIES[family](random, random_size(random))


def _random_gbnf(random: Random, size: int) -> str:
    names = [f"r{i}" for i in range(random.randint(1, 8))]

    def item(depth: int) -> str:
        simple = ('"a"', "[a-z ]", "[^x]", ".", random.choice(names), '"é"', "[\\u0600-\\u06ff]", '""')
        inner = random.choice(simple) if depth == 0 else f"({body(depth - 1)})"
        return inner + random.choice(
            ("", "", "*", "+", "?", f"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}", "{2}")
        )

    def body(depth: int) -> str:
        options = [
            " ".join(item(depth - random.randint(0, depth)) for _ in range(random.randint(0, 4))) for _ in range(3)
        ]
        return " | ".join(options[: random.randint(1, 3)])

    return "".join(f"{name} ::= {body(2)}\n" for name in ("root", *names))


_GBNF_FAMILIES: Final[dict[str, Callable[[Random, int], str]]] = {
    "random": _random_gbnf,
    "repetition": lambda random, size: f'root ::= "a"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}',
    "nested repetitions": lambda random, size: (
        "root ::= " + wrapped('"a"', counted_group(random.choice((10, 1_000))), min(size, 9))
    ),
    "parentheses": lambda random, size: "root ::= " + "(" * size + '"a"' + ")" * size,
    "stars in a row": lambda random, size: "root ::= " + "[a-zA-Z ,.]* " * min(size, 2_000),
    "nested stars": lambda random, size: "root ::= " + wrapped("[a-z ]", "({})+", min(size, 500)),
    "ambiguous": lambda random, size: "root ::= s\ns ::= [a-zA-Z ,.!?]" + " s?" * min(size, 9) + " | [a-zA-Z ,.!?]",
    "chain of rules": lambda random, size: (
        "root ::= r0\n"
        + "".join(f"r{i} ::= r{i + 1}\n" for i in range(min(size, 4_000)))
        + f'r{min(size, 4_000)} ::= "a"'
    ),
    "left recursion": lambda random, size: 'root ::= root "a" | root root | "a"',
    "alternatives": lambda random, size: "root ::= " + " | ".join(f'"{i}"' for i in range(min(size, 5_000))),
    "empty loops": lambda random, size: 'root ::= (("")* | x*)* "a"\nx ::= "" | x',
    "endless": lambda random, size: "root ::= x\nx ::= x",
    "no root": lambda random, size: 'start ::= "a"',
}
