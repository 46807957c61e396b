"""The connections of one listener, as far as one of them may have to make room for a new one."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, Protocol

MOST_LOOKED_AT: Final = 64
"""Connections that are looked at to find one to close."""


class OpenConnection(Protocol):
    """One of them."""

    is_lingering: bool

    @property
    def is_receiving(self) -> bool:
        """Whether the rest of a body is on its way."""
        ...

    @property
    def has_unsent_bytes(self) -> bool:
        """Whether a part of a response waits for its client to read."""
        ...

    @property
    def sends_slowly(self) -> bool:
        """Whether its client sends a body too slowly."""
        ...

    def evict(self) -> None:
        """Close this connection, which has no request, for the sake of a new one."""
        ...

    def give_up_body(self) -> None:
        """Reject the request whose body is on its way, for the sake of a new connection."""
        ...


class OpenConnections:
    """Those without a request, the longest idle one first, and those with a body on its way, the oldest first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._idle: Final[OrderedDict[OpenConnection, None]] = OrderedDict()
        self._receiving: Final[OrderedDict[OpenConnection, None]] = OrderedDict()

    def note_idle(self, connection: OpenConnection) -> None:
        """A connection has no request."""
        self._idle[connection] = None

    def note_request(self, connection: OpenConnection) -> None:
        """A connection has a request, whose body is on its way."""
        self._idle.pop(connection, None)
        self._receiving[connection] = None

    def note_received(self, connection: OpenConnection) -> None:
        """The body is there."""
        self._receiving.pop(connection, None)

    def forget(self, connection: OpenConnection) -> None:
        """A connection is closed."""
        self._idle.pop(connection, None)
        self._receiving.pop(connection, None)

    def make_room(self) -> bool:
        """Close the longest idle connection, or else give up a slow sender; return whether there was one."""
        return self._evict_longest_idle() or self._give_up_slow_sender()

    def _evict_longest_idle(self) -> bool:
        for connection in list(islice(self._idle, MOST_LOOKED_AT)):
            if not connection.has_unsent_bytes:
                self._idle.pop(connection, None)
                connection.evict()
                return True
            # It is not idle: the end of its last response is still on its way.
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
