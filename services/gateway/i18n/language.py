"""The language that a caller prefers, by the header `Accept-Language`."""

from __future__ import annotations

import re
from contextvars import ContextVar

from services.runtime.messages.catalogue import ENGLISH, LANGUAGES

ACCEPTED: ContextVar[str] = ContextVar("accept_language", default="")
"""The header `Accept-Language` of the current request."""


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
    return best if named[best] > 0 and best in weights else ENGLISH
