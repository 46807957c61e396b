"""Reads a request's body, bounded in size, and parses a large one off the event loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import orjson
from starlette.types import Receive

from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.body_budget import BodyShare
from services.gateway.edge.served_request import ServedRequest
from services.gateway.errors import ApiError, ErrorKind, bad_request, too_large
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

T = TypeVar("T")
LARGE_BYTES: Final = 64 * 1024
"""A larger body must pass the gate before it is read, and is parsed in a thread."""
MAX_VALUES: Final = 500_000
"""More than the number of token ids in the largest embeddings request."""
MAX_CONTAINERS: Final = 100_000
"""Lists, objects and fields: far more than messages and tools need."""
_COUNTED_BYTES: Final = 2**20
"""Bytes that are counted without a pause, which takes at most a millisecond."""
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class Gate(Protocol):
    """A check that a request must pass before its large body is read."""

    async def check(self) -> None:
        """Raise ApiError for a request that would be rejected whatever its body contains."""
        ...


class RequestBody:
    """The body of one request. It counts in the budget of bodies until `release`."""

    def __init__(self, headers: Mapping[str, str], receive: Receive, served: ServedRequest | None = None) -> None:
        """Prepare to read the body with `receive`, as ASGI defines it. `served` tells if it is already complete."""
        self._headers: Final = headers
        self._receive: Final = receive
        self._served: Final = served
        self._share: BodyShare | None = None

    async def read(self, *, max_bytes: int, share: BodyShare, gate: Gate) -> bytes | bytearray:
        """Return the whole body.

        Args:
            max_bytes: The largest body that is accepted.
            share: The body's share of the budget of bodies.
            gate: Checked before more than LARGE_BYTES of the body are kept.

        Raises:
            ApiError: The body is too large or encoded (413, 415), the budget has no capacity for it (503), or the gate
                rejects the request.
            ClientGoneError: The client disconnected before the body was complete.
        """
        self._share = share
        self._check_encoding()
        announced = self._announced_bytes()
        if announced > max_bytes:
            raise _body_too_large(announced, max_bytes)
        size = self._served.complete_body_bytes if self._served is not None else None
        if size is not None and max(announced, size) <= min(LARGE_BYTES, max_bytes) and share.take(size):
            # The short way of small bodies, which mostly arrive with their headers.
            return await self._receive_rest()
        passed = announced > LARGE_BYTES
        if passed:
            await _pass(gate)
        body = bytearray()
        async with share.receiving(announced):
            more = True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part, more = message.get("body", b""), message.get("more_body", False)
                size = len(body) + len(part)
                if size > max_bytes:
                    raise _body_too_large(size, max_bytes)
                if size > LARGE_BYTES and not passed:
                    await _pass(gate)
                    passed = True
                if part:
                    await share.add(len(part))
                    body += part
        # Converting it to bytes would copy it.
        return body

    async def _receive_rest(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body: bytes = message.get("body", b"")
        return body

    async def count(self, size: int) -> None:
        """Count `size` bytes more, which the body refers to. Raises ApiError (503)."""
        if self._share is not None:
            await self._share.add(size)

    def hand_over(self, other: RequestBody) -> None:
        """Have `other` count and release what this body counts."""
        other._share, self._share = self._share, None

    def release(self) -> None:
        """Give the body's share of the budget back, once nothing that was parsed from the body is kept."""
        if self._share is not None:
            self._share.release()

    def _announced_bytes(self) -> int:
        length = self._headers.get("content-length", "")
        return int(length) if length.isdecimal() else 0

    def _check_encoding(self) -> None:
        encoding = self._headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise _encoded(encoding)


async def parse(raw: bytes | bytearray, into: Callable[[Any], T]) -> T:
    """Parse a body as JSON and return `into(value)`. For a large body, both run in a thread.

    Raises ApiError (400) if the body is not valid JSON, and whatever `into` raises.
    """
    return await asyncio.to_thread(parse_here, raw, into) if len(raw) > LARGE_BYTES else parse_here(raw, into)


def parse_here(raw: bytes | bytearray, into: Callable[[Any], T]) -> T:
    """Parse a body as JSON and return `into(value)`, in this thread. Raises as `parse` does."""
    _check_number_of_values(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise bad_request(Message("body_not_json", reason=where)) from None
    try:
        return into(value)
    except RecursionError:
        raise bad_request(Message("body_nested_too_deeply")) from None


def _check_number_of_values(raw: bytes | bytearray) -> None:
    """Raise ApiError (400) for a body with so many values that parsing it, holding the GIL, would delay others."""
    if len(raw) <= MAX_CONTAINERS or _count(raw, b",:[{") <= MAX_CONTAINERS:
        return
    # Most of the body may be text, so only characters between strings are counted.
    scalars = containers = end = 0
    for string in _STRING.finditer(raw):
        between, end = raw[end : string.start()], string.end()
        scalars += between.count(b",")
        containers += between.count(b":") + between.count(b"[") + between.count(b"{")
        if scalars > MAX_VALUES or containers > MAX_CONTAINERS:
            break
    rest = raw[end:]
    if scalars + _count(rest, b",") > MAX_VALUES or containers + _count(rest, b":[{") > MAX_CONTAINERS:
        raise bad_request(Message("body_has_too_many_values", limit=MAX_VALUES, container_limit=MAX_CONTAINERS))


def _count(raw: bytes | bytearray, marks: bytes) -> int:
    """Return how often any of these bytes occurs. Other threads can run between two calls of `count`."""
    starts = range(0, len(raw), _COUNTED_BYTES)
    return sum(raw.count(mark, start, start + _COUNTED_BYTES) for start in starts for mark in marks)


async def _pass(gate: Gate) -> None:
    try:
        await gate.check()
    except ApiError as error:
        raise error.closing() from None


def _encoded(encoding: str) -> ApiError:
    return ApiError(
        415,
        ErrorKind.INVALID_REQUEST,
        Message("body_is_encoded", value=shown(encoding)),
        code="unsupported_content_encoding",
        headers={"Accept-Encoding": "identity"},
    ).closing()


def _body_too_large(size: int, limit: int) -> ApiError:
    return too_large(Message("body_too_large", value=size, limit=limit)).closing()
