"""Reports the fields of a request that have no effect: in a header, or in an SSE comment once the headers are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from services.gateway.dialects import sse
from services.gateway.dialects.json_model import RequestModel, unread_paths
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message
from services.runtime.telemetry import without_keys

IGNORED_HEADER: Final = "x-ignored-params"
MOST_CHARACTERS: Final = 1024
"""The longest value of the header."""
MOST_IGNORED: Final = 100
"""The most fields that are reported."""
_MOST_MESSAGE_CHARACTERS: Final = 200
"""The most characters of names in a message, because names may be as long as a body."""


def ignored_fields(
    request: RequestModel, body: Mapping[str, Any], overruled_fields: Iterable[str] = (), *, strict: bool
) -> list[str]:
    """Return the paths of fields that have no effect, at every level of a body.

    Args:
        request: What was read of the body.
        body: The parsed body.
        overruled_fields: The paths of fields that are part of the API, and that others overrule in this body.
        strict: Whether such fields are rejected.

    Raises:
        ApiError: There are some, and they are to be rejected.
    """
    ignored = sorted([*unread_paths(request, body), *overruled_fields])[:MOST_IGNORED]
    if ignored and strict:
        names = ", ".join(ignored)
        most = _MOST_MESSAGE_CHARACTERS
        names = names if len(names) <= most else names[: most - 3] + "..."
        raise bad_request(Message("ignored_fields_rejected", field=ignored[0], names=names, count=len(ignored)))
    return ignored


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """Return the header `x-ignored-params`, or no header if there are no names. Names that do not fit are left out."""
    # Clients choose the names. Names that a header cannot hold are left out, as are keys, whose mask is not ASCII.
    fitting, capacity = [], MOST_CHARACTERS
    for name in map(without_keys, names):
        if name.isascii() and name.isprintable() and "," not in name and len(name) <= capacity:
            fitting.append(name)
            capacity -= len(name) + len(",")
    return {IGNORED_HEADER: ",".join(fitting)} if fitting else {}


def header_comments(headers: Mapping[str, str]) -> bytes:
    """Return headers as SSE comments, for a stream whose headers were already sent."""
    return b"".join(sse.comment(f"{name} {value}") for name, value in headers.items())
