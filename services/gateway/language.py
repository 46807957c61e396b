"""The language of error messages: the caller's `Accept-Language`, and what a message is in it."""

from __future__ import annotations

import re
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Final

import yaml

ACCEPTED: ContextVar[str] = ContextVar("accept_language", default="")
"""The header `Accept-Language` of the request that is being answered."""
LANGUAGES: Final = ("en", "fa")
MOST_CHARACTERS: Final = 1000
"""Longer messages quote much, and stay as they are: to recognise one takes longer the longer it is."""
_PLACE: Final = re.compile(r"\{(\w+)\}")
_FIXED: Final = re.compile(r"`([^`]*)`")
_VERBATIM: Final = frozenset({"field", "value", "model", "name", "url", "known", "where"})
"""Insertions that are the caller's or the operator's own words, even where they look like ours."""
_ISOLATED: Final = "\N{FIRST STRONG ISOLATE}{}\N{POP DIRECTIONAL ISOLATE}"


def preferred(header: str) -> str:
    """The language that `Accept-Language` likes best; English where it likes none of ours, or both alike."""
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


def translated(message: str, language: str) -> str | None:
    """A message in another language than English; None for one that has no text in it."""
    if language == "en" or len(message) > MOST_CHARACTERS:
        return None
    for pattern, text in catalogue(language):
        if found := pattern.fullmatch(message):
            shown = {name: _inserted(name, value, language) for name, value in found.groupdict().items()}
            return _FIXED.sub(lambda part: _isolated(part[1]), text).format_map(shown)
    return None


@cache
def catalogue(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of English messages with their texts, those that say most first."""
    texts = messages(language)
    by_length = sorted(texts, key=lambda english: -len(_PLACE.sub("", english)))
    return tuple((_pattern(english), texts[english]) for english in by_length)


def messages(language: str) -> dict[str, str]:
    """English messages with their texts, as the file has them."""
    texts: dict[str, str] = yaml.safe_load(Path(__file__).with_name(f"messages_{language}.yaml").read_text("utf-8"))
    return texts


def _pattern(english: str) -> re.Pattern[str]:
    pieces = _PLACE.split(english)
    names = pieces[1::2]
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = [f"(?P<{name}>.+?)" for name in names]
    return re.compile("".join(pieces), re.DOTALL)


def _inserted(name: str, value: str, language: str) -> str:
    text = None if name in _VERBATIM else translated(value, language)
    return _isolated(value) if text is None else text


def _isolated(value: str) -> str:
    """A fragment that keeps its own direction, and does not change that of the text around it."""
    return _ISOLATED.format(value)
