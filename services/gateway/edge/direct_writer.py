"""Writes parts of a response's body past ASGI, whose `send` needs a task that waits for it."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

DIRECT_WRITER: Final = "vilix.direct_writer"
"""The ASGI extension that holds a request's DirectWriter."""


class DirectWriter:
    """Writes to the body of a response that has begun, at once."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        """`cycle` is uvicorn's state of the request and its response."""
        self._cycle: Final = cycle

    @property
    def ready(self) -> bool:
        """Whether the body has begun, goes in chunks, and its reader keeps up."""
        cycle = self._cycle
        return bool(
            cycle.response_started
            and cycle.chunked_encoding
            and not (cycle.response_complete or cycle.disconnected or cycle.flow.write_paused)
        )

    def write(self, data: bytes) -> None:
        """Write a part of the body. To be called while `ready`."""
        # An empty chunk would end the body.
        if data:
            self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
