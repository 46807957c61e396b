"""Slow, oversized, malformed and ambiguous HTTP on the gateway's public port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
import psutil
import pytest

from tests.faults.chat_stream import Stream, body
from tests.faults.connection import Connection
from tests.faults.good_client import good_client
from tests.faults.process import Process
from tests.faults.recordings import BURST, LONG, PREFILL, STEADY
from tests.faults.system import System, running_system, unharmed_system
from tests.support.fault_table import percentile99, record, times
from tests.support.waits import until

HEADER_SECONDS, BODY_SECONDS, WRITE_SECONDS = 2.0, 2.0, 2.0
MAX_CONNECTIONS = 400
NOISE_SECONDS = 0.02
SETTINGS = {
    "VILIX_HEADER_SECONDS": f"{HEADER_SECONDS}",
    "VILIX_BODY_SECONDS": f"{BODY_SECONDS}",
    "VILIX_WRITE_SECONDS": f"{WRITE_SECONDS}",
    "VILIX_MAX_CONNECTIONS": f"{MAX_CONNECTIONS}",
    "VILIX_MAX_BODY_BYTES": "1000000",
}
HEAD = b"POST /api/chat/completions HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(
        tmp_path_factory.mktemp("edge"), slots=2 * MAX_CONNECTIONS, gateway_settings=SETTINGS
    ) as running:
        yield running


@pytest.fixture(autouse=True)
async def is_unharmed(system: System) -> AsyncIterator[None]:
    """Check that a good client is served before and after a test, and that no request or connection remains."""
    async with unharmed_system(system):
        yield
    await until(lambda: _has_connections(system.gateway, 0), what="all connections are closed")


async def test_connections_with_slow_headers_are_closed(system: System) -> None:
    async def trickle(connection: Connection) -> None:
        for byte in HEAD:
            connection.writer.write(bytes([byte]))
            await asyncio.sleep(HEADER_SECONDS / 20)

    await crowd(system, trickle, response=b"408", cause="header_time", what="200 clients that trickle headers")


async def test_connections_with_slow_bodies_are_closed(system: System) -> None:
    async def trickle(connection: Connection) -> None:
        connection.writer.write(HEAD + _authorization(system) + b"Content-Length: 5000\r\n\r\n")
        for _ in range(50):
            connection.writer.write(b" ")
            await asyncio.sleep(BODY_SECONDS / 20)

    await crowd(system, trickle, response=b"408", cause="body_time", what="200 clients that trickle bodies")


async def test_silent_connections_are_closed(system: System) -> None:
    async def wait(connection: Connection) -> None:
        pass

    await crowd(system, wait, response=b"", cause="header_time", what="200 clients that send nothing")


async def test_connections_beyond_the_limit_evict_the_longest_idle_ones(system: System) -> None:
    before = await _rejected(system, "evicted")
    memory = _memory(system.gateway)
    tries = times(1000, 10_000)
    opened: list[Connection] = []
    for _ in range(tries):
        with contextlib.suppress(OSError):
            opened.append(await Connection.open(system.gateway.address))
    await until(lambda: _has_connections(system.gateway, at_most=MAX_CONNECTIONS))
    assert await _rejected(system, "evicted") > before
    assert _memory(system.gateway) - memory < 50e6
    for connection in opened:
        connection.disconnect()
    record(
        f"{tries} idle connections, at most {MAX_CONNECTIONS} allowed",
        "the longest idle ones are closed at once, memory is bounded",
        f"{await _rejected(system, 'evicted') - before:.0f} closed; {(_memory(system.gateway) - memory) / 1e6:+.1f} MB",
        met=True,
    )


async def test_idle_connections_are_closed_for_new_ones(system: System) -> None:
    count = times(500, 2000)
    request = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
    streaming = await Connection.ask(system, body(LONG, max_tokens=300))
    await streaming.until(b"data: ")
    idle: list[Connection] = []
    for _ in range(count):
        connection = await Connection.open(system.gateway.address)
        connection.writer.write(request)
        await connection.until(b"HTTP/1.1 200 ")
        idle.append(connection)
    served = 0
    async with system.client() as client:
        for _ in range(20):
            # Each request uses a new connection.
            response = await client.get("/models", headers={"Connection": "close"})
            served += response.status_code == 200
    assert served == 20
    async with asyncio.timeout(30):
        await streaming.reader.readuntil(b"data: [DONE]")
    evicted = await _rejected(system, "evicted")
    assert evicted >= count - MAX_CONNECTIONS
    assert await _rejected(system, "connections") == 0, "no connection was rejected"
    for connection in (*idle, streaming):
        connection.disconnect()
    record(
        f"{count} connections kept alive by one client, at most {MAX_CONNECTIONS} allowed",
        "20 of 20 new clients are served, a running stream is complete",
        f"{served} of 20, complete; {evicted:.0f} closed",
        met=True,
    )


async def test_connections_with_running_requests_are_not_closed_for_new_ones(system: System) -> None:
    before = await _rejected(system, "connections")
    streaming = await Connection.ask(system, body(STEADY))
    await streaming.until(b"data: ")
    waiting = [await Connection.ask(system, body(PREFILL)) for _ in range(MAX_CONNECTIONS - 1)]

    async def all_have_requests() -> bool:
        return await system.gateway.metric("vilix_http_requests_in_flight") == MAX_CONNECTIONS

    await until(all_have_requests, what="every connection has a request")
    rejected = await Connection.open(system.gateway.address)
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            assert await rejected.reader.read() == b""
    assert await _rejected(system, "connections") == before + 1
    async with asyncio.timeout(60):
        await streaming.reader.readuntil(b"data: [DONE]")
    for connection in (streaming, rejected, *waiting):
        connection.disconnect()


@pytest.mark.parametrize("mebibytes", [1, 8])
async def test_oversized_headers_are_rejected(system: System, mebibytes: int) -> None:
    memory = _memory(system.gateway)
    one = HEAD + b"X-Long: " + b"a" * (mebibytes * 2**20) + b"\r\n\r\n"
    many = HEAD + b"".join(b"X-%d: value\r\n" % i for i in range(mebibytes * 2**20 // 15)) + b"\r\n"
    for request in (one, many):
        response = await exchange(system, request)
        assert response.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"header_bytes"' in response
    assert _memory(system.gateway) - memory < 20e6
    record(f"Headers of {mebibytes} MiB", "431", "431, one long one and many short ones", met=True)


async def test_headers_just_below_the_limit_are_accepted(system: System) -> None:
    response = await exchange(
        system, b"GET /healthz HTTP/1.1\r\nHost: t\r\nX-Long: " + b"a" * 30_000 + b"\r\nConnection: close\r\n\r\n"
    )
    assert response.startswith(b"HTTP/1.1 200 ")


async def test_headers_just_above_the_limit_are_rejected_even_in_one_packet(system: System) -> None:
    response = await exchange(system, HEAD + b"X-Long: " + b"a" * 33_000 + b"\r\nContent-Length: 0\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 431 ")


TRAILERS = {
    "many short ones": b"X-Short: value\r\n" * (8 * 2**20 // 16),
    "one without an end": b"X-Long: " + b"a" * (8 * 2**20),
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", TRAILERS)
async def test_oversized_trailers_are_rejected(system: System, name: str, known: bool) -> None:
    before = await _rejected(system, "header_bytes")
    memory = _memory(system.gateway)
    head = HEAD + (_authorization(system) if known else b"") + b"Transfer-Encoding: chunked\r\n\r\n"
    response = await exchange(system, head + b"2\r\n{}\r\n0\r\n", TRAILERS[name])
    # Without a key, the response may be sent before the trailers arrive.
    assert response.startswith(b"HTTP/1.1 431 " if known else (b"HTTP/1.1 431 ", b"HTTP/1.1 401 "))
    assert await _rejected(system, "header_bytes") == before + 1
    assert _memory(system.gateway) - memory < 20e6
    measured = "431" if known else "401 or 431, without a key"
    record(f"Trailers of 8 MiB, {name}", "rejected, memory is bounded", measured, met=True)


async def test_trailers_are_not_used_as_headers(system: System) -> None:
    content = orjson.dumps(body(stream=False))

    async def ask(headers: bytes, trailers: bytes) -> bytes:
        head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n"
        return await exchange(system, head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(content), content, trailers))

    assert (await ask(b"", _authorization(system))).startswith(b"HTTP/1.1 401 ")
    assert (await ask(_authorization(system), b"X-Sum: 1\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_announces_too_many_bytes_is_rejected_before_it_is_sent(system: System) -> None:
    length = b"Content-Length: %d\r\n\r\n" % (64 * 2**20)
    async with asyncio.timeout(2):
        response = await exchange(system, HEAD + _authorization(system) + length)
    assert response.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_of_64_mib_is_rejected(system: System, announced: bool) -> None:
    memory = _memory(system.gateway)
    size = 64 * 2**20
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    length = b"Content-Length: %d\r\n\r\n" % size if announced else b"Transfer-Encoding: chunked\r\n\r\n"
    content = b" " * size if announced else chunk * (size // 65536) + b"0\r\n\r\n"
    response = await exchange(system, HEAD + _authorization(system) + length + content)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert _memory(system.gateway) - memory < 20e6
    how = "announced" if announced else "in chunks"
    record(
        f"A body of 64 MiB, {how}",
        "413, memory is bounded",
        f"413; {(_memory(system.gateway) - memory) / 1e6:+.1f} MB",
        met=True,
    )


async def test_a_client_that_stops_reading_is_disconnected(system: System) -> None:
    before = await _rejected(system, "write_time")
    memory = _memory(system.gateway)
    count = times(5, 20)
    connections = [await Connection.ask(system, body(BURST), receive_buffer=4096) for _ in range(count)]
    for connection in connections:
        await connection.until(b"data: ")
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no public API
    most = 0

    async def all_are_disconnected() -> bool:
        nonlocal most
        most = max(most, _memory(system.gateway) - memory)
        return await _rejected(system, "write_time") - before == count

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


async def test_pipelined_requests_are_answered_in_order(system: System) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    response = await exchange(system, one * 20 + last)
    assert response.count(b"HTTP/1.1 200 ") == 20
    assert response.rindex(b"HTTP/1.1 200 ") < response.index(b"HTTP/1.1 404 ")
    record("21 pipelined requests", "responses in order", "21 responses in order", met=True)


async def test_an_incomplete_request_behind_a_stream_does_not_end_the_stream(system: System) -> None:
    connection = await Connection.ask(system, body(LONG, max_tokens=200))
    await connection.until(b"data: ")
    connection.writer.write(b"GET /healthz HT")
    async with asyncio.timeout(30):
        await connection.reader.readuntil(b"data: [DONE]")
    connection.disconnect()


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "absurd length": HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare line feed in a header": b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
    "CONNECT": b"CONNECT example:443 HTTP/1.1\r\nHost: example\r\n\r\n",
    "no path": b"GET http:// HTTP/1.1\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_requests_are_rejected(system: System, name: str) -> None:
    response = await exchange(system, MALFORMED[name])
    assert response.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 413 ")), response
    assert b'"error"' in response
    record(f"Malformed HTTP: {name}", "status 4xx, and the connection is closed", response[9:12].decode(), met=True)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
REJECTED = {
    "an unknown transfer coding before chunked": (
        501,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ),
    "an unknown transfer coding in a separate field": (
        501,
        HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ),
    "a transfer coding with a parameter": (501, HEAD + b"Transfer-Encoding: x;a=b, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked before another coding": (400, HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked over HTTP/1.0": (
        400,
        b"POST /api/chat/completions HTTP/1.0\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    ),
    "two Host fields": (400, GET + b"Host: a\r\nHost: b\r\n\r\n"),
    "two equal Host fields": (400, GET + b"Host: a\r\nHost: a\r\n\r\n"),
    "no Host field": (400, GET + b"\r\n"),
    "an invalid Host": (400, GET + b"Host: a b\r\n\r\n"),
    "a Host with a user": (400, GET + b"Host: user@example.com\r\n\r\n"),
    "an unknown expectation": (417, HEAD + b"Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}"),
    "two credentials": (400, HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 0\r\n\r\n"),
    "a body length in words": (400, HEAD + b"Content-Length: five\r\n\r\nhello"),
}


@pytest.mark.parametrize("name", REJECTED)
async def test_ambiguous_requests_are_rejected_and_the_connection_is_closed(system: System, name: str) -> None:
    status, request = REJECTED[name]
    before = await _rejected(system, "malformed")
    response = await exchange(system, request + b"GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 %d " % status), response
    assert response.count(b"HTTP/1.1 ") == 1, "bytes after a rejected request were read as a request"
    assert b"connection: close" in response.lower()
    assert b'"error"' in response
    assert await _rejected(system, "malformed") == before + 1
    record(
        f"Ambiguous HTTP: {name}",
        "one response with status 4xx or 501, and the connection is closed",
        str(status),
        met=True,
    )


@pytest.mark.parametrize("size", [100_000, 4_000_000])
async def test_an_oversized_chunk_extension_is_rejected(system: System, size: int) -> None:
    chunk = b"2;x=" + b"a" * size + b"\r\n{}\r\n0\r\n\r\n"
    response = await exchange(system, HEAD + _authorization(system) + CHUNKED + chunk)
    assert response.startswith(b"HTTP/1.1 431 "), response


async def test_the_total_size_of_chunk_extensions_is_limited(system: System) -> None:
    chunk = b"1;x=" + b"a" * 10_000 + b"\r\n \r\n"
    response = await exchange(system, HEAD + _authorization(system) + CHUNKED + chunk * 100)
    assert response.startswith(b"HTTP/1.1 431 "), response


async def test_a_body_in_tiny_chunks_is_accepted(system: System) -> None:
    content = orjson.dumps(body(stream=False, user="u" * 5000))
    chunks = b"".join(b"1;n=v\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"
    response = await exchange(system, HEAD + b"Connection: close\r\n" + _authorization(system) + CHUNKED + chunks)
    assert response.startswith(b"HTTP/1.1 200 "), response


async def test_a_post_without_a_length_has_an_empty_body_and_following_bytes_are_rejected(system: System) -> None:
    content = orjson.dumps(body(stream=False))
    response = await exchange(system, HEAD + _authorization(system) + b"\r\n" + content)
    first, _, rest = response.partition(b"HTTP/1.1 400 ")[2].partition(b"HTTP/1.1 ")
    assert response.startswith(b"HTTP/1.1 400 "), response
    assert b"not valid JSON" in first
    assert rest.startswith(b"400 "), "the following bytes were read as a request"
    record(
        "A POST without a length, and bytes after it", "a response, and the connection is closed", "400, 400", met=True
    )


async def test_a_malformed_request_behind_a_stream_does_not_end_the_stream(system: System) -> None:
    connection = await Connection.ask(system, body(LONG, max_tokens=100))
    await connection.until(b"data: ")
    connection.writer.write(b"\x16\x03\x01\r\n\r\n")
    async with asyncio.timeout(30):
        await connection.reader.readuntil(b"data: [DONE]")
        rest = await connection.reader.read()
    assert b"HTTP/1.1 400 " in rest
    connection.disconnect()


async def test_an_upgrade_to_another_protocol_is_ignored(system: System) -> None:
    offer = GET + b"Host: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    response = await exchange(system, offer * 3 + last)
    assert response.count(b"HTTP/1.1 200 ") == 3
    assert response.count(b"HTTP/1.1 404 ") == 1


async def test_only_spaces_and_tabs_around_a_key_are_ignored(system: System) -> None:
    key, close = system.api_key.encode(), b"\r\nConnection: close\r\n\r\n"
    head = b"GET /api/models HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer "
    for padding in (b"\xa0", b"\x85", b"\xa0\x85"):
        assert (await exchange(system, head + padding + key + close)).startswith(b"HTTP/1.1 401 ")
        assert (await exchange(system, head + key + padding + close)).startswith(b"HTTP/1.1 401 ")
    assert (await exchange(system, head + b"  " + key + b"\t " + close)).startswith(b"HTTP/1.1 200 ")


async def test_the_first_of_two_request_ids_is_used(system: System) -> None:
    response = await exchange(
        system, GET + b"Host: t\r\nX-Request-Id: first\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n"
    )
    assert b"x-request-id: first" in response
    assert b"last" not in response


async def test_http_1_0_gets_no_interim_response(system: System) -> None:
    head = b"POST /api/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\n" + _authorization(system)
    response = await exchange(system, head + b"Content-Length: 2\r\n\r\n{}")
    assert response.startswith(b"HTTP/1.1 400 "), response


async def test_an_http_1_0_connection_is_closed_after_the_response(system: System) -> None:
    response = await exchange(system, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 " in response.splitlines()[0]
    assert b"connection: close" in response.lower()
    record("HTTP/1.0", "a response, and the connection is closed", "200, closed", met=True)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_1_0_response_is_not_chunked(system: System, stream: bool) -> None:
    content = orjson.dumps(body(stream=stream))
    head = b"POST /api/chat/completions HTTP/1.0\r\n" + _authorization(system)
    response = await exchange(system, head + b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
    headers, _, received = response.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in headers.lower()
    assert b"connection: close" in headers.lower()
    if stream:
        whole = Stream()
        for line in received.decode().split("\n"):
            assert not line or line.startswith("data: ")
            whole.add(line)
        assert whole.is_whole
    else:
        assert orjson.loads(received)["choices"][0]["finish_reason"] == "stop"


async def test_a_slow_client_gets_a_complete_long_stream_over_http_1_0(system: System) -> None:
    content = orjson.dumps(body(BURST))
    connection = await Connection.open(system.gateway.address, receive_buffer=4096)
    head = b"POST /api/chat/completions HTTP/1.0\r\n" + _authorization(system)
    connection.writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
    received = bytearray()
    async with asyncio.timeout(60):
        await connection.until(b"\r\n\r\n")
        # Long enough for all buffers on the path to fill.
        await asyncio.sleep(WRITE_SECONDS / 2)
        while piece := await connection.reader.read(256 * 1024):
            received += piece
    connection.disconnect()
    response = Stream()
    for line in received.decode().split("\n"):
        assert not line or line.startswith("data: ")
        response.add(line)
    assert response.is_whole


async def exchange(system: System, request: bytes, after: bytes = b"") -> bytes:
    """Send `request` and a moment later `after`, and return all bytes received until the connection is closed."""
    connection = await Connection.open(system.gateway.address)
    with contextlib.suppress(OSError):
        connection.writer.write(request)
        await asyncio.wait_for(connection.writer.drain(), 10)
        if after:
            await asyncio.sleep(0.1)
            connection.writer.write(after)
            await asyncio.wait_for(connection.writer.drain(), 10)
    response = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(20):
            while piece := await connection.reader.read(65536):
                response += piece
    connection.disconnect()
    return response


async def crowd(
    system: System, do: Callable[[Connection], Awaitable[None]], *, response: bytes, cause: str, what: str
) -> None:
    """Run 200 misbehaving clients at a time beside a good one, and check that all are closed by the deadline."""
    before = await _rejected(system, cause)
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
    assert await _rejected(system, cause) - before == 200 * rounds
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


def _authorization(system: System) -> bytes:
    return b"Authorization: Bearer " + system.api_key.encode() + b"\r\n"


def _memory(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


async def _rejected(system: System, cause: str) -> float:
    return (await system.gateway.metrics())[f'vilix_http_connections_rejected_total{{cause="{cause}"}}']


async def _has_connections(process: Process, count: int = 0, at_most: int | None = None) -> bool:
    connections = await process.metric("vilix_http_connections")
    return connections <= at_most if at_most is not None else connections == count
