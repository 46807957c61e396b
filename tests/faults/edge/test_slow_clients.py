"""Clients that send or read slowly, or send nothing, on the gateway's public port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.faults.chat_stream import body
from tests.faults.connection import Connection
from tests.faults.edge.exchange import HEAD, authorization
from tests.faults.edge.gateway_state import memory_of, rejections
from tests.faults.edge.limits import BODY_SECONDS, HEADER_SECONDS, WRITE_SECONDS
from tests.faults.good_client import good_client
from tests.faults.recordings import BURST
from tests.faults.system import System
from tests.support.fault_table import percentile99, record, times
from tests.support.waits import until

NOISE_SECONDS = 0.02


async def test_connections_with_slow_headers_are_closed(system: System) -> None:
    async def trickle(connection: Connection) -> None:
        for byte in HEAD:
            connection.writer.write(bytes([byte]))
            await asyncio.sleep(HEADER_SECONDS / 20)

    await crowd(system, trickle, response=b"408", cause="header_time", what="200 clients that trickle headers")


async def test_connections_with_slow_bodies_are_closed(system: System) -> None:
    async def trickle(connection: Connection) -> None:
        connection.writer.write(HEAD + authorization(system) + b"Content-Length: 5000\r\n\r\n")
        for _ in range(50):
            connection.writer.write(b" ")
            await asyncio.sleep(BODY_SECONDS / 20)

    await crowd(system, trickle, response=b"408", cause="body_time", what="200 clients that trickle bodies")


async def test_silent_connections_are_closed(system: System) -> None:
    async def wait(connection: Connection) -> None:
        pass

    await crowd(system, wait, response=b"", cause="header_time", what="200 clients that send nothing")


async def test_a_client_that_stops_reading_is_disconnected(system: System) -> None:
    before = await rejections(system, "write_time")
    memory = memory_of(system.gateway)
    count = times(5, 20)
    connections = [await Connection.ask(system, body(BURST), receive_buffer=4096) for _ in range(count)]
    for connection in connections:
        await connection.until(b"data: ")
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no public API
    most = 0

    async def all_are_disconnected() -> bool:
        nonlocal most
        most = max(most, memory_of(system.gateway) - memory)
        return await rejections(system, "write_time") - before == count

    await until(all_are_disconnected, 60, "stalled clients are disconnected")
    for connection in connections:
        connection.disconnect()
    await until(system.is_idle)
    # The sockets' buffers belong to the kernel.
    assert most < count * 2e6 + 20e6
    record(
        f"{count} clients that stop reading a fast stream",
        f"disconnected after {WRITE_SECONDS:g} s, the engine is free, memory is bounded",
        f"all disconnected; at most {most / 1e6:+.1f} MB",
        met=True,
    )


async def crowd(
    system: System, do: Callable[[Connection], Awaitable[None]], *, response: bytes, cause: str, what: str
) -> None:
    """Run 200 misbehaving clients at a time beside a good one, and check that all are closed by the deadline."""
    before = await rejections(system, cause)
    rounds = times(1, 5)
    meanwhile: list[float] = []
    async with good_client(system) as client:
        await client.more(20)
        alone = await client.more(times(50, 500))
        for _ in range(rounds):
            first = len(client.waited)
            responses = await _misbehaviour(system, do)
            meanwhile += client.waited[first:]
            assert all(received.startswith(b"HTTP/1.1 " + response) for received in responses if received)
            if response:
                assert sum(bool(received) for received in responses) >= 190
    assert await rejections(system, cause) - before == 200 * rounds
    assert len(meanwhile) > 10
    # On a small machine, other processes cause delays of some milliseconds.
    most = max(2 * percentile99(alone), percentile99(alone) + NOISE_SECONDS)
    record(
        what,
        "all closed by the deadline; a good client's p99 latency of the first event is less than twice the one alone, "
        f"or at most {NOISE_SECONDS * 1000:g} ms more",
        f"{200 * rounds} of {200 * rounds} closed; p99 {percentile99(alone) * 1000:.1f} ms alone, "
        f"{percentile99(meanwhile) * 1000:.1f} ms meanwhile "
        f"({percentile99(meanwhile) / percentile99(alone):.1f}×, of {len(meanwhile)} chats)",
        met=percentile99(meanwhile) < most,
    )


async def _misbehaviour(system: System, do: Callable[[Connection], Awaitable[None]]) -> list[bytes]:
    """Run 200 misbehaving clients, and return the bytes that they receive before their connections are closed."""

    async def misbehave(after: float) -> bytes:
        await asyncio.sleep(after)
        connection = await Connection.open(system.gateway.address)
        # Writes after the end of the connection may fail with any error.
        sending = asyncio.ensure_future(do(connection))
        try:
            return await asyncio.wait_for(connection.reader.read(), 20)
        except OSError:
            return b""
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            connection.disconnect()

    # The clients start one after the other, within half of the deadline.
    return await asyncio.gather(*(misbehave(i / 200) for i in range(200)))
