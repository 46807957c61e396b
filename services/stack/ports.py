"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import os
import secrets
import socket
from collections import deque
from typing import Final

LOOPBACK: Final = "127.0.0.1"
RESERVED: Final = 256
"""The number of most recently returned ports that stay reserved."""
_BELOW_CONNECTIONS: Final = range(16_384, 32_768)
_TRIES: Final = 100_000
_reserved: Final[deque[int]] = deque()
"""File descriptors of the sockets that reserve ports."""


def free_ports(count: int) -> list[int]:
    """Reserve `count` different free ports for servers that the caller is about to start, and return them.

    They are below the kernel's ephemeral range; otherwise an outgoing connection might take one before its server does.
    No other call returns them in the meantime, in any process.

    Raises:
        OSError: Too few ports are free.
    """
    return [_reserve() for _ in range(count)]


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _reserve() -> int:
    """Reserve a free port by binding a socket without listening on it.

    Linux lets a server with SO_REUSEADDR, which all our servers set, listen on the same port. The option is set after
    binding, so that two reservations exclude each other.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_BELOW_CONNECTIONS)
        reservation = socket.socket()
        try:
            reservation.bind((LOOPBACK, port))
        except OSError:
            reservation.close()
            continue
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(reservation.detach())
        if len(_reserved) > RESERVED:
            os.close(_reserved.popleft())
        return port
    raise OSError(f"no free port between {_BELOW_CONNECTIONS.start} and {_BELOW_CONNECTIONS.stop - 1} on {LOOPBACK}")
