"""Cross-origin headers, as browsers and caches read them."""

from __future__ import annotations

import pytest

from services.gateway.edge.cors import Cors

OURS, OTHER = b"https://ours.example", b"https://other.example"
RESPONSE = [(b"content-type", b"application/json"), (b"request-id", b"req-1"), (b"request-id", b"req-2")]


@pytest.mark.parametrize("origin", [OURS, OTHER])
def test_every_origin_may_read_when_all_are_allowed_and_the_response_does_not_vary(origin: bytes) -> None:
    headers = dict(Cors(["*"]).headers({b"origin": origin}, RESPONSE))
    assert headers[b"access-control-allow-origin"] == b"*"
    assert b"vary" not in headers


def test_only_a_listed_origin_may_read() -> None:
    cors = Cors([OURS.decode()])
    assert dict(cors.headers({b"origin": OURS}, RESPONSE))[b"access-control-allow-origin"] == OURS
    assert b"access-control-allow-origin" not in dict(cors.headers({b"origin": OTHER}, RESPONSE))


@pytest.mark.parametrize("request_headers", [{b"origin": OURS}, {b"origin": OTHER}, {}])
def test_responses_vary_by_origin_when_origins_are_listed(request_headers: dict[bytes, bytes]) -> None:
    assert dict(Cors([OURS.decode()]).headers(request_headers, RESPONSE))[b"vary"] == b"origin"


def test_a_request_without_an_origin_gets_no_headers_when_all_are_allowed() -> None:
    assert Cors(["*"]).headers({}, RESPONSE) == []


def test_a_page_may_read_every_header_of_a_response() -> None:
    headers = dict(Cors(["*"]).headers({b"origin": OTHER}, RESPONSE))
    assert headers[b"access-control-expose-headers"] == b"content-type, request-id"
