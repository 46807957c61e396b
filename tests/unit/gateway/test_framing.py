"""Rejection of requests with ambiguous headers."""

from __future__ import annotations

import pytest

from services.gateway.edge.framing import framing_error

HOST = (b"host", b"example.com")


@pytest.mark.parametrize("host", [b"", b"a", b"example.com:80", b"127.0.0.1:8000", b"[::1]:8000", b"a_b-c.d", b"a:"])
def test_a_valid_host_is_accepted(host: bytes) -> None:
    assert framing_error("1.1", [(b"host", host)]) is None


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"a@b", b"[", b"[::1", b"a:b", b"a,b", b"\xe9", b"a?b", b"a#b", b"a\tb"]
)
def test_an_invalid_host_is_rejected(host: bytes) -> None:
    found = framing_error("1.1", [(b"host", host)])
    assert found is not None
    assert found.status == 400


def test_only_http_1_1_requires_a_host() -> None:
    assert framing_error("1.0", []) is None
    assert framing_error("1.1", []) is not None
    assert framing_error("1.0", [HOST, HOST]) is not None


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        ([b"chunked"], None),
        ([b" Chunked\t"], None),
        ([b"gzip, chunked"], 501),
        ([b"gzip", b"chunked"], 501),
        ([b"identity, chunked"], 501),
        ([b"identity"], 400),
        ([b"chunked, gzip"], 400),
        ([b"chunked", b"chunked"], 400),
        ([b"chunked;a=b"], 400),
        ([b"xchunked"], 400),
        ([b""], 400),
        ([b"chunked,"], 400),
    ],
)
def test_only_the_transfer_coding_chunked_is_accepted(codings: list[bytes], status: int | None) -> None:
    found = framing_error("1.1", [HOST, *((b"transfer-encoding", coding) for coding in codings)])
    assert (found and found.status) == status


def test_http_1_0_must_not_send_chunks() -> None:
    found = framing_error("1.0", [HOST, (b"transfer-encoding", b"chunked")])
    assert found is not None
    assert found.status == 400


@pytest.mark.parametrize(
    ("version", "value", "status"), [("1.1", b"100-Continue", None), ("1.1", b"x", 417), ("1.0", b"x", None)]
)
def test_only_the_expectation_100_continue_is_accepted(version: str, value: bytes, status: int | None) -> None:
    found = framing_error(version, [HOST, (b"expect", value)])
    assert (found and found.status) == status


def test_a_second_authorization_field_is_rejected() -> None:
    assert framing_error("1.1", [HOST, (b"authorization", b"Bearer a")]) is None
    found = framing_error("1.1", [HOST, (b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")])
    assert found is not None
    assert found.status == 400


def test_a_key_in_another_field_is_not_quoted() -> None:
    key = "vlx_" + "0123456789" * 4
    found = framing_error("1.1", [(b"host", b"a" * 50 + b" " + key.encode())])
    assert found is not None
    assert key[:10] not in str(found.message)
