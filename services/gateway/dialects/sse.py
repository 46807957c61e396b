"""The framing of Server-Sent Events. Nothing else writes `data: `.

The event of a token is joined from fragments that are made once per response. The first fragment begins with DATA and
the last one ends with END. Encoding a whole object per token would cost several times as much.
"""

from __future__ import annotations

from typing import Final

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
DATA: Final = b"data: "
END: Final = b"\n\n"


def event(data: bytes, *, name: str = "") -> bytes:
    """Return an event with one line of data, and with a name if the API names its events."""
    head = b"event: %b\n" % name.encode("ascii") if name else b""
    return head + DATA + data + END


def comment(text: str) -> bytes:
    """Return a comment, which clients ignore."""
    return b": " + text.encode("ascii") + END
