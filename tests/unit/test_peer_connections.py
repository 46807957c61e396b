"""Connections of one address beyond its limit are closed; those of other addresses stay open."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from services.worker.peer_connections import PeerConnections, limited_peers
from tests.support.waits import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and 127.0.0.2 as another address")

FIRST, SECOND = "127.0.0.1", "127.0.0.2"


class Listener:
    """A port with connections from several addresses."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._socket = stack.enter_context(socket.create_server((FIRST, 0)))
        self.port: int = self._socket.getsockname()[1]

    def connect(self, source: str) -> socket.socket:
        """Return the client's end of a new connection, whose other end is accepted."""
        client = self._stack.enter_context(socket.create_connection((FIRST, self.port), source_address=(source, 0)))
        self._stack.enter_context(self._socket.accept()[0])
        client.settimeout(0)
        return client


@pytest.fixture
def listener() -> Iterator[Listener]:
    with contextlib.ExitStack() as stack:
        yield Listener(stack)


def is_open(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True


def test_the_newest_connections_of_an_address_beyond_its_limit_are_closed(listener: Listener) -> None:
    connections = PeerConnections(listener.port, limit=2)
    old = [listener.connect(SECOND) for _ in range(2)]
    assert connections.enforce() == 0
    new = [listener.connect(SECOND) for _ in range(3)]
    other = [listener.connect(FIRST) for _ in range(2)]
    assert connections.enforce() == 3
    assert [is_open(client) for client in old] == [True, True]
    assert [is_open(client) for client in new] == [False, False, False]
    assert [is_open(client) for client in other] == [True, True]


def test_connections_to_other_ports_stay_open(listener: Listener) -> None:
    clients = [listener.connect(SECOND) for _ in range(3)]
    assert PeerConnections(listener.port + 1, limit=1).enforce() == 0
    assert all(is_open(client) for client in clients)


async def test_the_limit_is_enforced_while_the_port_is_served(listener: Listener) -> None:
    async with limited_peers(f"{FIRST}:{listener.port}", limit=1):
        first, second = listener.connect(SECOND), listener.connect(SECOND)
        await until(lambda: not is_open(second), 10, "the second connection is closed")
        assert is_open(first)


async def test_the_limit_is_enforced_again_after_a_lack_of_file_descriptors(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with limited_peers(f"{FIRST}:{listener.port}", limit=1):
        with caplog.at_level(logging.WARNING):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                await until(lambda: "could not be counted" in caplog.text, 10, "the warning is logged")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        first, second = listener.connect(SECOND), listener.connect(SECOND)
        await until(lambda: not is_open(second), 10, "the second connection is closed")
        assert is_open(first)
