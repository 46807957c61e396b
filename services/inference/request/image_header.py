"""Reads an image's dimensions from its header, without decoding it, so that harmful images are never decoded.

If a file states its size twice, the size that a decoder would allocate counts. Headers that decoders could read in
another way are rejected, because a small image could hide a large one, as it does from a library that reads the first
size (docs/adr/0016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.inference.triton_backend.jpeg_scans import MOST_SCANS, has_too_many_scans

_MAX_SEGMENTS: Final = 4096
"""The most segments, chunks or blocks before the first frame. Files of cameras and editors have dozens."""
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEGMENTS: Final = _JPEG_SIZES | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""The markers that have a length for every decoder."""
_TRUNCATED: Final = "it ends before its dimensions"


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image."""

    format: str
    """PNG, JPEG, WebP or GIF."""
    width: int
    """The width of the first frame, in pixels."""
    height: int


def read(data: bytes) -> ImageHeader:
    """Read the header of an encoded image. Raises ValueError, whose message continues a sentence about the image."""
    for name, signature, size in _FORMATS:
        if data.startswith(signature) and (name != "WebP" or data[8:12] == b"WEBP"):
            try:
                width, height = size(data)
            except IndexError:
                raise ValueError(_TRUNCATED) from None
            if not width or not height:
                raise ValueError(f"it is a {name} of {width}×{height} pixels")
            return ImageHeader(name, width, height)
    raise ValueError("it is no PNG, JPEG, WebP or GIF")


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR"[: max(0, len(data) - 12)]:
        raise ValueError("it is a PNG that does not begin with its dimensions")
    size = _big(data, 16, 4), _big(data, 20, 4)
    offset = 8
    for _ in range(_MAX_SEGMENTS):
        offset += 12 + _big(data, offset, 4)
        kind = _bytes_at(data, offset + 4, 4)
        if kind in (b"IDAT", b"fdAT"):
            return size
        if kind == b"IHDR":
            raise ValueError("it is a PNG with two sizes")
    raise ValueError(f"it is a PNG with more than {_MAX_SEGMENTS} chunks before its pixels")


def _jpeg(data: bytes) -> tuple[int, int]:
    size, offset = None, 2
    for _ in range(_MAX_SEGMENTS):
        if data[offset] != 0xFF:
            raise ValueError("it is a JPEG with damaged segments")
        marker = data[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
        elif marker == 0xDA:
            break
        elif marker not in _JPEG_SEGMENTS:
            raise ValueError("it is a JPEG with damaged segments")
        else:
            if marker in _JPEG_SIZES:
                if size is not None:
                    raise ValueError("it is a JPEG with two sizes")
                size = _big(data, offset + 7, 2), _big(data, offset + 5, 2)
            length = _big(data, offset + 2, 2)
            if length < 2:
                raise ValueError("it is a JPEG with damaged segments")
            offset += 2 + length
    else:
        raise ValueError(f"it is a JPEG with more than {_MAX_SEGMENTS} segments before its first scan")
    if size is None:
        raise ValueError("it is a JPEG without dimensions")
    if has_too_many_scans(data, offset):
        raise ValueError(f"it is a JPEG with more than {MOST_SCANS} scans")
    return size


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise ValueError("it is a WebP with a damaged lossless frame")
        bits = _little(data, 21, 4)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        if len(data) > 26 and data[23:26] != b"\x9d\x01\x2a":
            raise ValueError("it is a WebP with a damaged frame")
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if len(data) < 16:
        raise ValueError(_TRUNCATED)
    raise ValueError("it is a WebP that does not begin with its dimensions")


def _gif(data: bytes) -> tuple[int, int]:
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    offset = 13 + _colours(data[10])
    blocks = 0
    while data[offset] == 0x21:
        if _is_ambiguous(data, offset):
            raise ValueError("it is a GIF with a damaged extension")
        offset += 2
        while length := data[offset]:
            offset += 1 + length
            blocks += 1
            if blocks > _MAX_SEGMENTS:
                raise ValueError(f"it is a GIF with more than {_MAX_SEGMENTS} blocks before its first frame")
        offset += 1
        blocks += 1
    if data[offset] != 0x2C:
        raise ValueError("it is a GIF without a frame")
    # A frame that reaches beyond the screen enlarges it.
    right = _little(data, offset + 1, 2) + _little(data, offset + 5, 2)
    bottom = _little(data, offset + 3, 2) + _little(data, offset + 7, 2)
    return max(width, right), max(height, bottom)


def _is_ambiguous(data: bytes, offset: int) -> bool:
    """Return whether decoders disagree where an extension ends: an empty block ends it for some, but not for others."""
    kind, length = data[offset + 1], data[offset + 2]
    block = data[offset + 3 : offset + 3 + length]
    after = data[offset + 3 + length]
    return kind != 0xFE and (not length or (kind == 0xFF and block.startswith(b"NETSCAPE2.0") and not after))


def _colours(flags: int) -> int:
    """Return the size of a colour table in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _big(data: bytes, offset: int, count: int) -> int:
    return int.from_bytes(_bytes_at(data, offset, count), "big")


def _little(data: bytes, offset: int, count: int) -> int:
    return int.from_bytes(_bytes_at(data, offset, count), "little")


def _bytes_at(data: bytes, offset: int, count: int) -> bytes:
    if offset + count > len(data):
        raise IndexError
    return data[offset : offset + count]


_FORMATS: Final[tuple[tuple[str, bytes | tuple[bytes, ...], Callable[[bytes], tuple[int, int]]], ...]] = (
    ("PNG", b"\x89PNG\r\n\x1a\n", _png),
    ("JPEG", b"\xff\xd8\xff", _jpeg),
    ("WebP", b"RIFF", _webp),
    ("GIF", (b"GIF87a", b"GIF89a"), _gif),
)
