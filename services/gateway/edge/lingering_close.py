"""Closes a connection without a reset while its client is still sending, so that the client can read its response.

A server that closes a socket with unread bytes resets the connection, and the client may lose what it has not read yet.
So only the writing side is closed, and bytes that still arrive are discarded for a while.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

LINGER_SECONDS: Final = 5.0
"""The time for which bytes of a rejected client are discarded."""


class Lingering(Protocol):
    """The protocol of a connection that can be closed in this way."""

    is_lingering: bool

    @property
    def is_receiving(self) -> bool:
        """Whether the rest of a body is still to be received."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether bytes behind a request that is still being served could not be parsed."""
        ...

    def linger(self) -> None:
        """End the connection, but discard bytes that still arrive."""
        ...


class LingeringTransport:
    """A connection's transport for uvicorn, which closes it after a response even if the client is still sending."""

    def __init__(self, transport: asyncio.Transport, protocol: Lingering) -> None:
        """Stand in for `transport`."""
        self.write = transport.write
        self.write_eof = transport.write_eof
        self.abort = transport.abort
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.close_now = transport.close
        self._transport = transport
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Return whether the connection is closing or lingering."""
        return self._protocol.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection, or linger if the client is still sending."""
        if self._protocol.is_receiving or self._protocol.is_broken:
            self._protocol.linger()
        else:
            self.close_now()
