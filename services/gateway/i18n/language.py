"""The language of error messages: chosen by `Accept-Language`, with the translation of a message into it."""

from __future__ import annotations

import re
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from services.gateway.i18n.message_pattern import MessagePattern

ACCEPTED: ContextVar[str] = ContextVar("accept_language", default="")
"""The header `Accept-Language` of the current request."""
LANGUAGES: Final = ("en", "fa")
MOST_CHARACTERS: Final = 4000
"""The longest message that is translated. Longer ones mostly quote the caller."""
_NESTED: Final = 3
"""How deeply messages that are inserted into messages are translated."""
_FIXED: Final = re.compile(r"`([^`]*)`")
_VERBATIM: Final = frozenset({"field", "value", "model", "name", "url", "known", "where", "text"})
"""Parameters with text of the caller or the operator, which is never translated."""
_ISOLATED: Final = "\N{LEFT-TO-RIGHT ISOLATE}{}\N{POP DIRECTIONAL ISOLATE}"
_DIRECTIONS: Final = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Characters that change the direction of the text behind them, or end an isolate."""


def preferred(header: str) -> str:
    """Return the language that `Accept-Language` prefers; English if it names none of ours, or prefers none."""
    weights: dict[str, float] = {}
    for entry in header[:1000].lower().split(","):
        tag, _, parameters = entry.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameters) if parameters else None
        if parameters and weight is None:
            continue
        language = tag.strip().partition("-")[0]
        weights[language] = max(weights.get(language, 0.0), float(weight[1]) if weight else 1.0)
    rest = weights.get("*", 0.0)
    # A list without weights is in order of preference.
    named = {language: weights.get(language, rest) for language in (*weights, *LANGUAGES) if language in LANGUAGES}
    best = max(named, key=lambda language: named[language])
    return best if named[best] > 0 and best in weights else "en"


def translated(message: str, language: str, *, nested: int = 0) -> str | None:
    """Return a message in `language`, or None if there is no translation. `nested` is the depth of the insertion."""
    if language == "en" or nested > _NESTED or len(message) > MOST_CHARACTERS:
        return None
    for pattern, text in catalogue(language):
        inserted = pattern.match(message)
        if inserted is not None:
            values = {name: _inserted(name, value, language, nested) for name, value in inserted.items()}
            return _FIXED.sub(lambda part: _isolated(part[1]), text).format_map(values)
    return None


@cache
def catalogue(language: str) -> tuple[tuple[MessagePattern, str], ...]:
    """Return patterns of English messages with their translations, those with most literal text first."""
    patterns = [(MessagePattern(english), text) for english, text in messages(language).items()]
    return tuple(sorted(patterns, key=lambda entry: -entry[0].literal_length))


def messages(language: str) -> dict[str, str]:
    """Return the English messages with their translations in the file of `language`."""
    texts: dict[str, str] = yaml.safe_load(Path(__file__).with_name(f"messages_{language}.yaml").read_text("utf-8"))
    return texts


def _inserted(name: str, value: str, language: str, nested: int) -> str:
    text = None if name in _VERBATIM else translated(value, language, nested=nested + 1)
    return _isolated(value) if text is None else text


def _isolated(value: str) -> str:
    """Return a left-to-right fragment, such as code, that does not change the direction of the text around it."""
    # A client's text must not end its isolate and reorder the text behind it.
    return _ISOLATED.format(value.translate(_DIRECTIONS))
