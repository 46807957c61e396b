"""Recognises an image's format by its first bytes."""

from __future__ import annotations

from typing import Final

_SIGNATURES: Final[dict[str, tuple[bytes, ...]]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}


def media_type(data: bytes) -> str | None:
    """Return the media type of a PNG, JPEG, WebP or GIF, and None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for name, signatures in _SIGNATURES.items() if data.startswith(signatures)), None)
