"""Quotes a caller's values in messages to that caller."""

from __future__ import annotations

from typing import Any, Final

import orjson

_MOST_CHARACTERS: Final = 80


def shown(value: Any) -> str:
    """Return a JSON value as text, cut to 80 characters."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 3] + "..."
