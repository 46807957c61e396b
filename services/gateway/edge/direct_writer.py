"""Writes parts of a response's body without ASGI's `send`, which only a task can await."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

DIRECT_WRITER: Final = "vilix.direct_writer"
"""The ASGI extension that holds a request's DirectWriter."""


class DirectWriter:
    """Writes to the body of a response that has begun, without waiting."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        """Write to the response of `cycle`, uvicorn's state of a request and its response."""
        self._cycle: Final = cycle

    @property
    def ready(self) -> bool:
        """Whether the body has begun, is sent in chunks, and its client reads fast enough."""
        cycle = self._cycle
        if not cycle.response_started or cycle.response_complete or cycle.disconnected or cycle.flow.write_paused:
            return False
        return cycle.chunked_encoding is True

    def write(self, data: bytes) -> bool:
        """Write a part of the body, which is not empty, and return whether the next part may be written at once.

        To be called only if the body was `ready` before the event loop did anything else.
        """
        cycle = self._cycle
        if cycle.response_complete or cycle.disconnected:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return not cycle.flow.write_paused
