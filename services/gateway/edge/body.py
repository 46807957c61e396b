"""Reads a request's body: bounded in size, parsed off the event loop when it is large."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from services.gateway.edge.body_budget import BodyBudget, BodyShare, open_share
from services.gateway.edge.hang_up import ClientGoneError
from services.gateway.errors import ApiError, bad_request, shown

T = TypeVar("T")
IN_THREAD_BYTES: Final = 64 * 1024
MAX_VALUES: Final = 500_000
"""More than the token ids of the largest embeddings request."""
MAX_CONTAINERS: Final = 100_000
"""Lists, objects and fields: far more than messages and tools need."""
_COUNTED_BYTES: Final = 2**20
"""In one go, which takes a millisecond at most."""
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


async def read_json(
    request: Request,
    into: Callable[[Any], T],
    *,
    max_bytes: int,
    budget: BodyBudget,
    key_id: str,
    before_large: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """What `into` makes of the parsed body; both run in a thread when the body is large.

    The body counts in `budget` as one of the key `key_id`. `before_large` is awaited before more than IN_THREAD_BYTES of
    the body are kept, and may refuse it with an ApiError. Raises ApiError when the body is too large, finds no room or is
    no JSON, ClientGoneError when it never came, and what `into` raises.
    """
    raw = await _read(request, max_bytes, open_share(request, budget, key_id), before_large)
    return await asyncio.to_thread(parse, raw, into) if len(raw) > IN_THREAD_BYTES else parse(raw, into)


def parse(raw: bytes | bytearray, into: Callable[[Any], T]) -> T:
    """What `into` makes of a body. Raises ApiError, and what `into` raises."""
    _refuse_too_many_values(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise bad_request(None, f"The body is not valid JSON ({where}). Send a JSON object as UTF-8.") from None
    try:
        return into(value)
    except RecursionError:
        raise bad_request(None, "The body is nested too deeply. Send a flatter JSON object.") from None


def _refuse_too_many_values(raw: bytes | bytearray) -> None:
    """Refuse what would take the parser, which lets nothing else run meanwhile, longer than others should wait."""
    if len(raw) <= MAX_CONTAINERS or _count(raw, b",:[{") <= MAX_CONTAINERS:
        return
    # Most of it may be text. What stands between the strings decides.
    scalars = containers = end = 0
    for string in _STRING.finditer(raw):
        between, end = raw[end : string.start()], string.end()
        scalars += between.count(b",")
        containers += between.count(b":") + between.count(b"[") + between.count(b"{")
        if scalars > MAX_VALUES or containers > MAX_CONTAINERS:
            break
    rest = raw[end:]
    if scalars + _count(rest, b",") > MAX_VALUES or containers + _count(rest, b":[{") > MAX_CONTAINERS:
        raise bad_request(
            None,
            f"The body has too many values; at most {MAX_VALUES} are allowed, and {MAX_CONTAINERS} lists, objects and "
            "their fields. Split the request.",
        )


def _count(raw: bytes | bytearray, marks: bytes) -> int:
    """How often any of these bytes is there. Others run between two pieces."""
    starts = range(0, len(raw), _COUNTED_BYTES)
    return sum(raw.count(mark, start, start + _COUNTED_BYTES) for start in starts for mark in marks)


async def _read(
    request: Request, max_bytes: int, share: BodyShare, before_large: Callable[[], Awaitable[None]] | None
) -> bytearray:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise _encoded(encoding)
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else 0
    if announced > max_bytes:
        raise _too_large(announced, max_bytes)
    unasked = before_large
    if unasked is not None and announced > IN_THREAD_BYTES:
        await _ask(unasked)
        unasked = None
    body = bytearray()
    try:
        async with share.receiving(announced):
            async for piece in request.stream():
                if len(body) + len(piece) > max_bytes:
                    raise _too_large(len(body) + len(piece), max_bytes)
                if unasked is not None and len(body) + len(piece) > IN_THREAD_BYTES:
                    await _ask(unasked)
                    unasked = None
                await share.add(len(piece))
                body += piece
    except ClientDisconnect:
        raise ClientGoneError from None
    # A copy as bytes would double it.
    return body


async def _ask(before_large: Callable[[], Awaitable[None]]) -> None:
    try:
        await before_large()
    except ApiError as error:
        # The rest of the body is not read, so the connection cannot be used again.
        error.headers["Connection"] = "close"
        raise


def _encoded(encoding: str) -> ApiError:
    return ApiError(
        415,
        f"The body has the Content-Encoding {shown(encoding)}; send it as plain JSON, without that header.",
        code="unsupported_content_encoding",
        # The body is not read, so the connection cannot be used again.
        headers={"Connection": "close", "Accept-Encoding": "identity"},
    )


def _too_large(size: int, limit: int) -> ApiError:
    # The rest of the body is not read, so the connection cannot be used again.
    return ApiError(
        413,
        f"The body has at least {size} bytes; at most {limit} are allowed.",
        code="request_too_large",
        headers={"Connection": "close"},
    )
