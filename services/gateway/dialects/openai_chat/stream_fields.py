"""How an answer is to be sent, and what of a request is no part of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gateway.dialects.json_fields import Fields
from services.gateway.errors import bad_request

MOST_IGNORED: Final = 100
"""So many are named; who sends more has seen enough."""
_MOST_CHARACTERS: Final = 200
"""Of names that are said again: they may be as long as a body."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """The fields `stream` and `stream_options`."""

    stream: bool
    include_usage: bool = False
    continuous_usage: bool = False


def add_stream(fields: Fields) -> Streaming:
    """How the answer is to be sent. Raises ApiError."""
    stream = fields.boolean("stream") or False
    options = fields.object("stream_options")
    if options is None:
        return Streaming(stream)
    if not stream:
        raise bad_request("stream_options", "stream_options is only allowed when stream is true")
    include_usage = options.boolean("include_usage") or False
    continuous_usage = options.boolean("continuous_usage_stats") or False
    options.granted("include_obfuscation", False)
    return Streaming(stream, include_usage, continuous_usage)


def ignored_fields(fields: Fields, *, refuse: bool) -> list[str]:
    """The paths of what was not read, also inside of what was. Raises ApiError when they are to be refused."""
    ignored = sorted(fields.unread_paths())[:MOST_IGNORED]
    if ignored and refuse:
        names = ", ".join(ignored)
        names = names if len(names) <= _MOST_CHARACTERS else names[: _MOST_CHARACTERS - 3] + "..."
        raise bad_request(ignored[0], f"{names}: not part of the API (x-strict-params is on); leave it out")
    return ignored
