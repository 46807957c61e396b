"""Limits how many connections one address may hold to a port of this process.

The gRPC library accepts connections itself and knows only a limit for all of them together, with which one peer could
shut out all others. Therefore the process looks through its own open sockets, and closes those beyond the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from services.runtime.end_tasks import end_tasks

INTERVAL_SECONDS: Final = 0.25
_DESCRIPTORS: Final = Path("/proc/self/fd")
_log: Final = logging.getLogger(__name__)

Address = tuple[str, int]


class PeerConnections:
    """The connections to one port, oldest first."""

    def __init__(self, port: int, *, limit: int) -> None:
        """Watch `port`, to which one address may have `limit` connections."""
        self._port: Final = port
        self._limit: Final = limit
        self._peers: dict[str, Address | None] = {}
        """The peer of every known socket, by its name in /proc; None for a socket that is no connection to the port."""

    def enforce(self) -> int:
        """Close the newest connections of every address that has more than the limit. Returns how many were closed."""
        descriptors = dict(self._sockets())
        self._peers = {name: peer for name, peer in self._peers.items() if name in descriptors}
        for name, descriptor in descriptors.items():
            if name not in self._peers:
                self._peers[name] = self._peer(descriptor)
        counts: Counter[str] = Counter()
        closed: Counter[str] = Counter()
        for name, peer in self._peers.items():
            if peer is None:
                continue
            counts[peer[0]] += 1
            if counts[peer[0]] > self._limit and self._close(descriptors[name], peer):
                closed[peer[0]] += 1
                self._peers[name] = None
        for address, count in closed.items():
            _log.warning("too many connections of one peer closed", extra={"peer": address, "closed": count})
        return closed.total()

    @staticmethod
    def _sockets() -> Iterator[tuple[str, int]]:
        for entry in _DESCRIPTORS.iterdir():
            with contextlib.suppress(OSError):
                name = str(entry.readlink())
                if name.startswith("socket:"):
                    yield name, int(entry.name)

    def _peer(self, descriptor: int) -> Address | None:
        # A copy of the descriptor belongs to us: the library may close its own at any time.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            return self._peer_of(connection)
        return None

    def _peer_of(self, connection: socket.socket) -> Address | None:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != self._port:
            return None
        host, port, *_ = connection.getpeername()
        return host, port

    def _close(self, descriptor: int, peer: Address) -> bool:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            if self._peer_of(connection) == peer:
                # The library then finds the connection ended, and closes it as if the peer had.
                connection.shutdown(socket.SHUT_RDWR)
                return True
        return False


@contextlib.asynccontextmanager
async def limited_peers(listen: str, *, limit: int) -> AsyncIterator[None]:
    """Keep every address at `limit` connections to the port of `listen` (HOST:PORT) in the context. Needs Linux."""
    if not _DESCRIPTORS.is_dir():
        yield
        return
    connections = PeerConnections(int(listen.rpartition(":")[2]), limit=limit)

    async def keep() -> None:
        failed = False
        while True:
            try:
                connections.enforce()
                failed = False
            except (OSError, MemoryError) as error:
                # A flood may have taken all file descriptors. That passes, and the limit must hold again then.
                if not failed:
                    _log.warning("the connections of peers could not be counted: %s", error)
                failed = True
            await asyncio.sleep(INTERVAL_SECONDS)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        await end_tasks(task)
