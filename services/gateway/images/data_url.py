"""Reads `data:` URLs, the form in which requests carry images."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Final

from services.gateway.errors import bad_request
from services.gateway.images.limits import image_too_large
from services.runtime.messages.message import Message

_SEGMENT: Final = 4 * 2**18
"""Characters that are decoded at a time, because nothing else runs meanwhile. A multiple of four."""


def read(path: str, url: str, *, max_bytes: int) -> bytes:
    """Return the content of a URL. Its media type is ignored. `path` names the field in messages.

    Raises ApiError (400) for a URL of another form, and, before decoding it, for a content that is too large.
    """
    head, comma, encoded = url.partition(",")
    scheme, _, description = head.partition(":")
    if scheme.lower() != "data" or not comma:
        raise bad_request(Message("image_not_data_url", field=path))
    if description.split(";")[-1].strip().lower() != "base64":
        raise bad_request(Message("image_not_base64", field=path))
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    if size > max_bytes:
        raise image_too_large(path, size, max_bytes)
    try:
        return _decoded(encoded)
    except ValueError as error:
        raise bad_request(Message("base64_not_valid", field=path, reason=str(error))) from None


def _decoded(encoded: str) -> bytes:
    if "=" in encoded[:-2]:
        raise binascii.Error("there is padding before the end")
    starts = range(0, len(encoded), _SEGMENT)
    return b"".join(b64decode(encoded[start : start + _SEGMENT], validate=True) for start in starts)
