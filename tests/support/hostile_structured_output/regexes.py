"""Regular expressions that may harm an engine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.support.hostile_structured_output.numbers import NUMBERS, random_size


def hostile_regex(random: Random) -> tuple[str, str]:
    """Return the name of a family and an expression of it."""
    family = random.choice(tuple(_REGEX_FAMILIES))
    return family, _REGEX_FAMILIES[family](random, random_size(random))


def _random_regex(random: Random, depth: int) -> str:
    if depth <= 0:
        return random.choice(
            ("a", ".", r"\w", r"\d", r"\s", "[a-z]", "[^a]", r"[\u0600-\u06FF]", r"\p{L}", "é", "😀", r"\b", "^", "$",
             r"\1", r"\x00", r"\uD800", "[z-a]", "[]",
             "(?=a)", "(?!b)", "(?<=c)", "(?i)a", r"\Q", r"\z", "[[:alpha:]]", "[a&&b]")
        )  # fmt: skip
    parts = [_random_regex(random, depth - 1 - random.randrange(2)) for _ in range(random.randint(1, 3))]
    whole = random.choice(("", "|")).join(parts)
    return random.choice(("({})", "(?:{})", "{}", "(?P<n>{})")).format(whole) + _repetition(random)


def _repetition(random: Random) -> str:
    least, most = random.choice(NUMBERS), random.choice(NUMBERS)
    return random.choice(
        ("", "*", "+", "?", "*?", "++", "{2}", "{1,3}", f"{{{least}}}", f"{{{least},}}", f"{{{least},{most}}}",
         f"{{,{most}}}")
    )  # fmt: skip


_REGEX_FAMILIES: Final[dict[str, Callable[[Random, int], str]]] = {
    "random": lambda random, size: _random_regex(random, random.randint(1, 5)),
    "one repetition": lambda random, size: random.choice(("a", ".", r"\w", "[^x]", "(ab|c)")) + _repetition(random),
    "nested repetitions": lambda random, size: wrapped(
        "a", counted_group(random.choice((2, 10, 100, 1_000, 10_000))), min(size, 9)
    ),
    "nested groups": lambda random, size: "(" * size + "a" + ")" * size,
    "nested stars": lambda random, size: wrapped("a", "({})*", min(size, 2_000)),
    "alternatives": lambda random, size: "|".join("a" * (i % 80) + "b" for i in range(min(size, 3_000))),
    "counting back": lambda random, size: f"(a|b)*a(a|b){{{min(size, 2_000)}}}",
    "large classes": lambda random, size: r"(\p{L}|\p{N}|[^\x00-\x7f])" * min(size, 300) + "{1,100}",
    "optional many": lambda random, size: "a?" * min(size, 1_500) + "a" * min(size, 1_500),
}


def counted_group(most: int) -> str:
    """Return a template for `wrapped`: a group that is repeated up to `most` times."""
    return "({}){{1," + str(most) + "}}"


def wrapped(text: str, template: str, times: int) -> str:
    """Put a text into a template, the result into the template again, and so on."""
    for _ in range(times):
        text = template.format(text)
    return text
