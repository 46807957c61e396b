"""Reads `data:` URLs, the form in which requests carry images."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Final

from services.gateway.errors import bad_request

_PIECE: Final = 4 * 2**18
"""Characters that are decoded at a time. Nothing else runs meanwhile; whole groups of four."""


def read(path: str, url: str) -> tuple[str, bytes]:
    """Media type and content. Raises ApiError (400) for any other URL; `path` names the field."""
    head, comma, encoded = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise bad_request(
            path, f"{path} must be a data: URL (data:image/png;base64,…); images are not fetched from elsewhere here"
        )
    mime_type, *parameters = head.removeprefix("data:").split(";")
    if "base64" not in parameters:
        raise bad_request(path, f"{path} must be encoded as base64 (data:image/png;base64,…)")
    try:
        return mime_type, _decoded(encoded)
    except ValueError as error:
        raise bad_request(path, f"{path} is not valid base64: {error}") from None


def _decoded(encoded: str) -> bytes:
    if "=" in encoded[:-2]:
        raise binascii.Error("there is padding before the end")
    starts = range(0, len(encoded), _PIECE)
    return b"".join(b64decode(encoded[start : start + _PIECE], validate=True) for start in starts)
