"""The connections of one listener that can be closed to free one for a new client."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, Protocol

MOST_LOOKED_AT: Final = 64
"""The most connections that are checked to find one to close."""


class OpenConnection(Protocol):
    """One connection."""

    is_lingering: bool

    @property
    def is_receiving(self) -> bool:
        """Whether the rest of a body is still to be received."""
        ...

    @property
    def has_unsent_bytes(self) -> bool:
        """Whether a part of a response waits for the client to read."""
        ...

    @property
    def sends_slowly(self) -> bool:
        """Whether the client sends a body too slowly."""
        ...

    def evict(self) -> None:
        """Close this connection, which has no request, to free it for a new one."""
        ...

    def give_up_body(self) -> None:
        """Reject the request whose body is being received, to free its connection for a new one."""
        ...


class OpenConnections:
    """Connections without a request, the longest idle first, and those that receive a body, the oldest first."""

    def __init__(self) -> None:
        """Begin without connections."""
        self._idle: Final[OrderedDict[OpenConnection, None]] = OrderedDict()
        self._receiving: Final[OrderedDict[OpenConnection, None]] = OrderedDict()

    def note_idle(self, connection: OpenConnection) -> None:
        """Note that a connection has no request."""
        self._idle[connection] = None

    def note_request(self, connection: OpenConnection) -> None:
        """Note that a connection has a request, whose body is to be received."""
        self._idle.pop(connection, None)
        self._receiving[connection] = None

    def note_received(self, connection: OpenConnection) -> None:
        """Note that the body is complete."""
        self._receiving.pop(connection, None)

    def forget(self, connection: OpenConnection) -> None:
        """Note that a connection is closed."""
        self._idle.pop(connection, None)
        self._receiving.pop(connection, None)

    def close_one(self) -> bool:
        """Close the longest idle connection, or reject a slow sender. Return whether there was one."""
        return self._evict_longest_idle() or self._give_up_slow_sender()

    def _evict_longest_idle(self) -> bool:
        for connection in list(islice(self._idle, MOST_LOOKED_AT)):
            if not connection.has_unsent_bytes:
                self._idle.pop(connection, None)
                connection.evict()
                return True
            # It is not idle: its client has not read the end of the last response yet.
            self._idle.move_to_end(connection)
        return False

    def _give_up_slow_sender(self) -> bool:
        for connection in list(islice(self._receiving, MOST_LOOKED_AT)):
            if connection.is_lingering or not connection.is_receiving:
                self._receiving.pop(connection, None)
            elif connection.sends_slowly:
                self._receiving.pop(connection, None)
                connection.give_up_body()
                return True
        return False
