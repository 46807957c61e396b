"""The state of a request in the server, which ASGI's `receive` reports only to a task that waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

SERVED_REQUEST: Final = "vilix.served_request"
"""The ASGI extension that holds a request's ServedRequest."""


class ServedRequest:
    """A request that is being served."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        """Look at `cycle`, uvicorn's state of a request and its response."""
        self._cycle: Final = cycle
        self._on_disconnect: Callable[[], None] | None = None

    @property
    def complete_body_bytes(self) -> int | None:
        """The bytes of the body that ASGI's `receive` returns at once; None if it would not be complete then."""
        cycle = self._cycle
        return None if cycle.more_body or cycle.disconnected else len(cycle.body)

    def on_disconnect(self, call: Callable[[], None] | None) -> None:
        """Call `call` when the client disconnects, or now if it already has. Replaces an earlier callback.

        To be called once the body has been read.
        """
        self._on_disconnect = call
        if call is None:
            return
        # As `receive` does: otherwise the end of the connection is not noticed while reading is paused.
        self._cycle.flow.resume_reading()
        if self._cycle.disconnected:
            self.disconnected()

    def disconnected(self) -> None:
        """Note that the client has disconnected."""
        call, self._on_disconnect = self._on_disconnect, None
        if call is not None:
            call()
