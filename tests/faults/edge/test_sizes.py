"""Oversized headers, trailers and bodies on the gateway's public port."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.faults.chat_stream import body
from tests.faults.edge.exchange import CHUNKED, HEAD, authorization, exchange
from tests.faults.edge.gateway_state import memory_of, rejections
from tests.faults.system import System
from tests.support.fault_table import record


@pytest.mark.parametrize("mebibytes", [1, 8])
async def test_oversized_headers_are_rejected(system: System, mebibytes: int) -> None:
    memory = memory_of(system.gateway)
    one = HEAD + b"X-Long: " + b"a" * (mebibytes * 2**20) + b"\r\n\r\n"
    many = HEAD + b"".join(b"X-%d: value\r\n" % i for i in range(mebibytes * 2**20 // 15)) + b"\r\n"
    for request in (one, many):
        response = await exchange(system, request)
        assert response.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"header_bytes"' in response
    assert memory_of(system.gateway) - memory < 20e6
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
    before = await rejections(system, "header_bytes")
    memory = memory_of(system.gateway)
    head = HEAD + (authorization(system) if known else b"") + b"Transfer-Encoding: chunked\r\n\r\n"
    response = await exchange(system, head + b"2\r\n{}\r\n0\r\n", TRAILERS[name])
    # Without a key, the response may be sent before the trailers arrive.
    assert response.startswith(b"HTTP/1.1 431 " if known else (b"HTTP/1.1 431 ", b"HTTP/1.1 401 "))
    assert await rejections(system, "header_bytes") == before + 1
    assert memory_of(system.gateway) - memory < 20e6
    measured = "431" if known else "401 or 431, without a key"
    record(f"Trailers of 8 MiB, {name}", "rejected, memory is bounded", measured, met=True)


async def test_a_body_that_announces_too_many_bytes_is_rejected_before_it_is_sent(system: System) -> None:
    length = b"Content-Length: %d\r\n\r\n" % (64 * 2**20)
    async with asyncio.timeout(2):
        response = await exchange(system, HEAD + authorization(system) + length)
    assert response.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_of_64_mib_is_rejected(system: System, announced: bool) -> None:
    memory = memory_of(system.gateway)
    size = 64 * 2**20
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    length = b"Content-Length: %d\r\n\r\n" % size if announced else b"Transfer-Encoding: chunked\r\n\r\n"
    content = b" " * size if announced else chunk * (size // 65536) + b"0\r\n\r\n"
    response = await exchange(system, HEAD + authorization(system) + length + content)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert memory_of(system.gateway) - memory < 20e6
    how = "announced" if announced else "in chunks"
    record(
        f"A body of 64 MiB, {how}",
        "413, memory is bounded",
        f"413; {(memory_of(system.gateway) - memory) / 1e6:+.1f} MB",
        met=True,
    )


@pytest.mark.parametrize("size", [100_000, 4_000_000])
async def test_an_oversized_chunk_extension_is_rejected(system: System, size: int) -> None:
    chunk = b"2;x=" + b"a" * size + b"\r\n{}\r\n0\r\n\r\n"
    response = await exchange(system, HEAD + authorization(system) + CHUNKED + chunk)
    assert response.startswith(b"HTTP/1.1 431 "), response


async def test_the_total_size_of_chunk_extensions_is_limited(system: System) -> None:
    chunk = b"1;x=" + b"a" * 10_000 + b"\r\n \r\n"
    response = await exchange(system, HEAD + authorization(system) + CHUNKED + chunk * 100)
    assert response.startswith(b"HTTP/1.1 431 "), response


async def test_a_body_in_tiny_chunks_is_accepted(system: System) -> None:
    content = orjson.dumps(body(stream=False, user="u" * 5000))
    chunks = b"".join(b"1;n=v\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"
    response = await exchange(system, HEAD + b"Connection: close\r\n" + authorization(system) + CHUNKED + chunks)
    assert response.startswith(b"HTTP/1.1 200 "), response
