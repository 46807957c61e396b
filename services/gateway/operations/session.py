"""The session that a client names in headers: its requests probably begin with the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_HEADERS: Final = ("x-claude-code-session-id", "x-claude-code-agent-id")
"""Headers that name a conversation together: Claude Code's session, and one of its agents, which has another prompt."""
_MOST_CHARACTERS: Final = 256


def session_of(headers: Mapping[str, str]) -> str:
    """Return the name of the session, or an empty string. The names of `headers` are in lower case."""
    session, *parts = (headers.get(name, "")[:_MOST_CHARACTERS] for name in _HEADERS)
    return "\0".join((session, *parts)) if session else ""
