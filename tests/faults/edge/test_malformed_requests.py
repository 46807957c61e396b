"""Malformed and ambiguous HTTP on the gateway's public port."""

from __future__ import annotations

import orjson
import pytest

from tests.faults.chat_stream import body
from tests.faults.edge.exchange import CHUNKED, GET, HEAD, authorization, exchange
from tests.faults.edge.gateway_state import rejections
from tests.faults.system import System
from tests.support.fault_table import record


async def test_trailers_are_not_used_as_headers(system: System) -> None:
    content = orjson.dumps(body(stream=False))

    async def ask(headers: bytes, trailers: bytes) -> bytes:
        head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n"
        return await exchange(system, head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(content), content, trailers))

    assert (await ask(b"", authorization(system))).startswith(b"HTTP/1.1 401 ")
    assert (await ask(authorization(system), b"X-Sum: 1\r\n")).startswith(b"HTTP/1.1 200 ")


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
    before = await rejections(system, "malformed")
    response = await exchange(system, request + b"GET /readyz HTTP/1.1\r\nHost: t\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 %d " % status), response
    assert response.count(b"HTTP/1.1 ") == 1, "bytes after a rejected request were read as a request"
    assert b"connection: close" in response.lower()
    assert b'"error"' in response
    assert await rejections(system, "malformed") == before + 1
    record(
        f"Ambiguous HTTP: {name}",
        "one response with status 4xx or 501, and the connection is closed",
        str(status),
        met=True,
    )


async def test_a_post_without_a_length_has_an_empty_body_and_following_bytes_are_rejected(system: System) -> None:
    content = orjson.dumps(body(stream=False))
    response = await exchange(system, HEAD + authorization(system) + b"\r\n" + content)
    first, _, rest = response.partition(b"HTTP/1.1 400 ")[2].partition(b"HTTP/1.1 ")
    assert response.startswith(b"HTTP/1.1 400 "), response
    assert b"not valid JSON" in first
    assert rest.startswith(b"400 "), "the following bytes were read as a request"
    record(
        "A POST without a length, and bytes after it", "a response, and the connection is closed", "400, 400", met=True
    )


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
