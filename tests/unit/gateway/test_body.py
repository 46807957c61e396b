"""Bodies that are rejected before they are parsed, and data URLs that are decoded in segments."""

from __future__ import annotations

from base64 import b64encode
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from services.gateway.edge.body import MAX_CONTAINERS, MAX_VALUES, Gate, RequestBody, parse_here
from services.gateway.edge.body_budget import SMALL_BYTES, BodyBudget
from services.gateway.edge.served_request import ServedRequest
from services.gateway.errors import ApiError
from services.gateway.images import data_url
from services.runtime.messages.message import Message
from tests.unit.gateway.chat_bodies import read_chat


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"0," * MAX_VALUES + b"0,0]",
        b"[" + b"[]," * MAX_CONTAINERS + b"0]",
        b"[" + b'{"a":0},' * (MAX_CONTAINERS // 2) + b"0]",
        b"{" + b'"a":"b",' * MAX_CONTAINERS + b'"c":0}',
        b'{"model": "' + b"[" * 10 + b'", "messages": ' + b"[" * MAX_CONTAINERS,
    ],
)
def test_a_body_of_too_many_values_is_rejected(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_here(body, lambda value: value)
    assert caught.value.status == 400
    assert caught.value.message == Message("body_has_too_many_values", limit=500000, container_limit=100000)


@pytest.mark.parametrize(
    "value",
    [
        {"input": [1] * 300_000},
        {"content": "1,2:[{" * 500_000},
        {"content": '{"quoted": [",", "\\\\"], ' * 100_000},
        {"content": [{"type": "text", "text": 'a\\",b'}] * 10_000},
    ],
)
def test_a_large_body_with_few_values_is_accepted(value: object) -> None:
    assert parse_here(orjson.dumps(value), lambda value: value) == value


async def test_a_body_that_was_handed_over_counts_until_the_other_one_is_released() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    budget = BodyBudget(total=10**6, per_key=10**6)
    body, other = RequestBody({}, receive), RequestBody({}, receive)
    await body.read(max_bytes=100, share=budget.open("key"), gate=cast(Gate, None))
    body.hand_over(other)
    body.release()
    await other.count(1000)
    assert budget.used == 1002
    other.release()
    assert budget.used == 0


@pytest.mark.parametrize(("total", "counted"), [(10**6, 2), (SMALL_BYTES - 1, 0)])
async def test_a_body_that_came_with_its_headers_needs_capacity_like_any_other(total: int, counted: int) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    budget = BodyBudget(total=total, per_key=10**6, wait_seconds=0)
    body = RequestBody({}, receive, cast(ServedRequest, SimpleNamespace(complete_body_bytes=2)))
    reading = body.read(max_bytes=100, share=budget.open("key"), gate=cast(Gate, None))
    if counted:
        assert await reading == b"{}"
    else:
        with pytest.raises(ApiError) as caught:
            await reading
        assert caught.value.status == 503
    assert budget.used == counted


async def test_a_body_that_came_with_its_headers_may_not_be_too_large() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"[1, 2]"}

    share = BodyBudget(total=10**6, per_key=10**6).open("key")
    body = RequestBody({}, receive, cast(ServedRequest, SimpleNamespace(complete_body_bytes=6)))
    with pytest.raises(ApiError) as caught:
        await body.read(max_bytes=5, share=share, gate=cast(Gate, None))
    assert caught.value.status == 413


@pytest.mark.parametrize("size", [0, 1, 2, 3, 786_431, 786_432, 786_433, 3_000_000])
def test_a_data_url_is_decoded_completely(size: int) -> None:
    content = Random(size).randbytes(size)
    url = f"data:image/png;base64,{b64encode(content).decode()}"
    assert data_url.read("url", url, max_bytes=size) == content
    if size:
        with pytest.raises(ApiError) as caught:
            data_url.read("url", url, max_bytes=size - 1)
        assert caught.value.message == Message("image_over_bytes", field="url", value=size, limit=size - 1)


@pytest.mark.parametrize("encoded", ["A", "AA=", "AA==AAAA", "AAA=" + "A" * 2**20, "A" * 2**20 + "A", "A*AA", "AAA\n"])
def test_a_damaged_data_url_is_rejected(encoded: str) -> None:
    with pytest.raises(ApiError) as caught:
        data_url.read("url", f"data:image/png;base64,{encoded}", max_bytes=2**22)
    assert caught.value.message.id == "base64_not_valid"


@pytest.mark.parametrize("field", ["temperature", "messages", "stop", "tools", "metadata", "response_format", "model"])
def test_a_value_that_is_nested_too_deeply_is_rejected(field: str) -> None:
    raw = b'{"model": "m", "%b": %b1%b}' % (field.encode(), b'{"a":' * 1000, b"}" * 1000)
    with pytest.raises(ApiError) as rejection:
        parse_here(raw, read_chat)
    assert rejection.value.status == 400
