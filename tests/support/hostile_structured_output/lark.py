"""Grammars in llguidance's Lark that may harm an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from tests.support.hostile_structured_output.mutation import mutated_text
from tests.support.hostile_structured_output.numbers import NUMBERS, random_size
from tests.support.hostile_structured_output.regexes import hostile_regex, wrapped
from tests.support.hostile_structured_output.schemas import hostile_schema


def hostile_lark(random: Random, suite: Sequence[Any]) -> tuple[str, str]:
    """Return the name of a family and a grammar of it."""
    family = random.choice(tuple(_LARK_FAMILIES))
    grammar = "%llguidance {}\n" + _LARK_FAMILIES[family](random, random_size(random), suite)
    if random.random() < 0.25:
        return f"mutated {family}", mutated_text(random, grammar)
    return family, grammar


_LARK_FAMILIES: Final[dict[str, Callable[[Random, int, Sequence[Any]], str]]] = {
    "chain of rules": lambda random, size, suite: (
        "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(min(size, 4_000))) + f'r{min(size, 4_000)}: "a"'
    ),
    "chain of terminals": lambda random, size, suite: (
        "start: T0\n" + "".join(f"T{i}: T{i + 1}\n" for i in range(min(size, 4_000))) + f'T{min(size, 4_000)}: "a"'
    ),
    "repetition": lambda random, size, suite: f'start: "a"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}',
    "parentheses": lambda random, size, suite: "start: " + "(" * size + '"a"' + ")" * size,
    "nested JSON": lambda random, size, suite: "start: %json " + json.dumps(hostile_schema(random, suite)[1]),
    "nested regex": lambda random, size, suite: "start: T\nT: /" + hostile_regex(random)[1].replace("/", r"\/") + "/",
    "nested Lark": lambda random, size, suite: (
        "start: %lark {\n" * min(size, 50) + 'start: "a"\n' + "}\n" * min(size, 50)
    ),
    "intersections": lambda random, size, suite: (
        "start: T\nT: " + " & ".join(f"/(.{{{i}}}a|[^b]*)*c?/" for i in range(1, 1 + min(size, 40)))
    ),
    "complements": lambda random, size, suite: "start: T\nT: " + wrapped("/(a|b)*a(a|b){12}/", "~({})", min(size, 60)),
    "ambiguous": lambda random, size, suite: "start: s\ns: /[a-zA-Z ,.!?]/" + " s?" * min(size, 9) + " | /[a-z ]/",
    "attributes": lambda random, size, suite: (
        f"start: a b\na[max_tokens={random.choice(NUMBERS)}, temperature={random.choice(NUMBERS)}]: /.*/\n"
        f'b[stop="{"x" * min(size, 500)}", lazy]: /.*/'
    ),
    "tokens": lambda random, size, suite: (
        f"start: <[{random.choice(NUMBERS)}-{random.choice(NUMBERS)}]> <|im_end|> <[^0]>"
    ),
    "alternatives": lambda random, size, suite: "start: " + " | ".join(f'"{i}"' for i in range(min(size, 5_000))),
    "left recursion": lambda random, size, suite: 'start: start "a" | start start | "a"',
    "options": lambda random, size, suite: (
        '%llguidance {"no_forcing": true, "allow_initial_skip": 1, "x": [[]]}\nstart: "a"'
    ),
}
