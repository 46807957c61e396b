"""Detects when a client stops reading, and when it reads again."""

from __future__ import annotations

import asyncio
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl


class Reader(Protocol):
    """A protocol that is notified whether its client reads fast enough."""

    def reader_is_behind(self) -> None:
        """Handle a client that reads more slowly than the response is written."""
        ...

    def reader_caught_up(self) -> None:
        """Handle a client that has read what was waiting."""
        ...


class WatchedFlow(FlowControl):
    """uvicorn's flow control of a connection, which also notifies the protocol."""

    def __init__(self, transport: asyncio.Transport, protocol: Reader) -> None:
        """Control `transport` and notify `protocol`."""
        super().__init__(transport)
        self._protocol = protocol

    def pause_writing(self) -> None:
        """Stop writing."""
        super().pause_writing()
        self._protocol.reader_is_behind()

    def resume_writing(self) -> None:
        """Resume writing."""
        super().resume_writing()
        self._protocol.reader_caught_up()
