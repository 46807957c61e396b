"""TCP ports on 127.0.0.1."""

from __future__ import annotations

import secrets
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_BELOW_CONNECTIONS: Final = range(16_384, 32_768)


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing listens on at the moment.

    They are below those that systems give to connections, or else one of these might take a port before its server does.
    """
    found: set[int] = set()
    while len(found) < count:
        port = secrets.choice(_BELOW_CONNECTIONS)
        if is_free(port):
            found.add(port)
    return list(found)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
