"""Ports for servers that are about to start."""

from __future__ import annotations

import socket

import pytest

from services.stack import ports
from services.stack.ports import LOOPBACK, free_ports, is_free

FEW = range(10_000, 10_020)


@pytest.fixture
def few_ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Restrict reservations to FEW, and return the free ports among them."""
    monkeypatch.setattr(ports, "_BELOW_CONNECTIONS", FEW)
    monkeypatch.setattr(ports, "_TRIES", 10_000)
    return [port for port in FEW if is_free(port)]


def test_two_callers_never_get_the_same_port(few_ports: list[int]) -> None:
    reserved = [port for _ in few_ports for port in free_ports(1)]
    assert sorted(reserved) == few_ports
    with pytest.raises(OSError, match="no free port between 10000 and 10019"):
        free_ports(1)


def test_a_server_can_listen_on_a_reserved_port() -> None:
    (port,) = free_ports(1)
    assert is_free(port)
    with socket.create_server((LOOPBACK, port)) as server, socket.create_connection((LOOPBACK, port)):
        connection, _ = server.accept()
        connection.close()
        assert not is_free(port)
    assert is_free(port)
