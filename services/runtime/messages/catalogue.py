"""The texts of messages by id: `en.toml` and `fa.toml`.

A text has the parameters of its message in braces. Where the noun behind a number depends on the number, an entry has
two texts, `one` and `other`, of which the parameter `count` chooses one, by the plural rules of Unicode's CLDR:
https://www.unicode.org/cldr/charts/latest/supplemental/language_plural_rules.html
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ENGLISH: Final = "en"
PERSIAN: Final = "fa"
LANGUAGES: Final = (ENGLISH, PERSIAN)
COUNT: Final = "count"
"""The parameter that chooses between `one` and `other`."""
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_FIXED: Final = re.compile(r"`([^`]*)`")
_ISOLATED: Final = "\N{LEFT-TO-RIGHT ISOLATE}{}\N{POP DIRECTIONAL ISOLATE}"
_DIRECTIONS: Final = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Characters that change the direction of the text behind them, or end an isolate."""
_ONE: Final[dict[str, Callable[[float], bool]]] = {
    ENGLISH: lambda count: count == 1,
    PERSIAN: lambda count: 0 <= count <= 1,
}
"""Whether a number takes the text `one`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The texts of one message in one language. They are equal where the language needs no plural."""

    one: str
    other: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that differ."""
        return (self.one,) if self.one == self.other else (self.one, self.other)

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the parameters that the texts need."""
        return frozenset(_PLACEHOLDER.findall(self.other)) | ({COUNT} if self.one != self.other else set())


@cache
def catalogue(language: str) -> Mapping[str, Entry]:
    """Return the entries of one of LANGUAGES by message id."""
    path = Path(__file__).with_name(f"{language}.toml")
    entries: dict[str, str | dict[str, str]] = tomllib.loads(path.read_text("utf-8"))
    return {
        message_id: Entry(texts, texts) if isinstance(texts, str) else Entry(texts["one"], texts["other"])
        for message_id, texts in entries.items()
    }


def render(message_id: str, parameters: Mapping[str, str], language: str) -> str:
    """Return the text of a message. Raises KeyError for an unknown id, and for a parameter that is missing.

    In a text that is written from right to left, parameters and what stands in `backticks` keep their own direction;
    the backticks are not shown. A parameter in backticks has no mark of its own, because programs compare such words.
    """
    entry = catalogue(language)[message_id]
    text = entry.one if COUNT in parameters and _is_one(parameters[COUNT], language) else entry.other
    if language == PERSIAN:
        text = _FIXED.sub(lambda part: _escaped(_isolated(part[1].format_map(parameters))), text)
        parameters = {name: _isolated(value) for name, value in parameters.items()}
    return text.format_map(parameters)


def _is_one(count: str, language: str) -> bool:
    try:
        return _ONE[language](float(count))
    except ValueError:
        return False


def _escaped(text: str) -> str:
    """Return a text for `str.format`, which leaves it as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def _isolated(value: str) -> str:
    """Return a left-to-right fragment, such as code, that does not change the direction of the text around it."""
    # What a client sends must not end its isolate and reorder the text behind it.
    return _ISOLATED.format(value.translate(_DIRECTIONS))
