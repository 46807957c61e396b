"""Notices when a client stops reading, and when it reads again."""

from __future__ import annotations

import asyncio
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl


class Reader(Protocol):
    """Is told whether its client keeps up."""

    def reader_is_behind(self) -> None:
        """The client reads more slowly than the response is written."""
        ...

    def reader_caught_up(self) -> None:
        """The client has read."""
        ...


class WatchedFlow(FlowControl):
    """uvicorn's flow control of a connection, which tells the protocol too."""

    def __init__(self, transport: asyncio.Transport, protocol: Reader) -> None:
        """Tell `protocol`."""
        super().__init__(transport)
        self._protocol = protocol

    def pause_writing(self) -> None:
        """Stop writing."""
        super().pause_writing()
        self._protocol.reader_is_behind()

    def resume_writing(self) -> None:
        """Begin to write again."""
        super().resume_writing()
        self._protocol.reader_caught_up()
