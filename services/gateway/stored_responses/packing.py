"""Packs what is stored: JSON, compressed, after the size that it has before."""

from __future__ import annotations

import asyncio
import base64
import zlib
from typing import Any, Final

import orjson

LARGE_BYTES: Final = 64 * 1024
"""More bytes of JSON are read in a thread."""


class TooLargeError(Exception):
    """A value has more bytes of JSON than are allowed."""


def pack(value: Any, *, most: int) -> str:
    """Return a value as it is stored: `SIZE:BASE64`. Raises TooLargeError for more than `most` bytes of JSON."""
    raw = orjson.dumps(value)
    if len(raw) > most:
        raise TooLargeError
    return f"{len(raw)}:{base64.b64encode(zlib.compress(raw, 1)).decode()}"


def raw_bytes(packed: str) -> int:
    """Return the number of bytes of JSON that a packed value becomes; 0 for none."""
    return int(packed[: packed.index(":")]) if packed else 0


def unpack(packed: str) -> Any:
    """Return a packed value. Raises ValueError if it is larger than it says."""
    size, _, data = packed.partition(":")
    decompressor = zlib.decompressobj()
    # One more byte, so that the end of the data is read, too.
    raw = decompressor.decompress(base64.b64decode(data), int(size) + 1)
    if decompressor.unconsumed_tail or len(raw) != int(size):
        raise ValueError("a stored value has another size than it says")
    return orjson.loads(raw)


async def unpack_anywhere(packed: str) -> Any:
    """Return a packed value, which is unpacked in a thread if it is large."""
    return await asyncio.to_thread(unpack, packed) if raw_bytes(packed) > LARGE_BYTES else unpack(packed)
