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


class UnreadableImageError(Exception):
    """An image cannot be read: the id of a message, and its parameters. The caller adds the parameter `field`."""

    def __init__(self, message_id: str, /, **parameters: str | int) -> None:
        """`message_id` is one of services.runtime.messages."""
        super().__init__(f"{message_id} {parameters}")
        self.message_id: Final = message_id
        self.parameters: Final = parameters


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image."""

    format: str
    """PNG, JPEG, WebP or GIF."""
    width: int
    """The width of the first frame, in pixels."""
    height: int

    @property
    def size(self) -> str:
        """Width and height, as messages show them."""
        return f"{self.width}×{self.height}"


def read(data: bytes) -> ImageHeader:
    """Read the header of an encoded image. Raises UnreadableImageError."""
    for name, signature, size in _FORMATS:
        if data.startswith(signature) and (name != "WebP" or data[8:12] == b"WEBP"):
            try:
                width, height = size(data)
            except IndexError:
                raise UnreadableImageError("image_truncated") from None
            header = ImageHeader(name, width, height)
            if not width or not height:
                raise UnreadableImageError("image_without_pixels", format=name, size=header.size)
            return header
    raise UnreadableImageError("image_format_unknown")


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR"[: max(0, len(data) - 12)]:
        raise UnreadableImageError("image_without_dimensions", format="PNG")
    size = _big(data, 16, 4), _big(data, 20, 4)
    offset = 8
    for _ in range(_MAX_SEGMENTS):
        offset += 12 + _big(data, offset, 4)
        kind = _bytes_at(data, offset + 4, 4)
        if kind in (b"IDAT", b"fdAT"):
            return size
        if kind == b"IHDR":
            raise UnreadableImageError("image_with_two_sizes", format="PNG")
    raise _too_many_segments("PNG")


def _jpeg(data: bytes) -> tuple[int, int]:
    size, offset = None, 2
    for _ in range(_MAX_SEGMENTS):
        if data[offset] != 0xFF:
            raise _damaged("JPEG", "segment")
        marker = data[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
        elif marker == 0xDA:
            break
        elif marker not in _JPEG_SEGMENTS:
            raise _damaged("JPEG", "segment")
        else:
            if marker in _JPEG_SIZES:
                if size is not None:
                    raise UnreadableImageError("image_with_two_sizes", format="JPEG")
                size = _big(data, offset + 7, 2), _big(data, offset + 5, 2)
            length = _big(data, offset + 2, 2)
            if length < 2:
                raise _damaged("JPEG", "segment")
            offset += 2 + length
    else:
        raise _too_many_segments("JPEG")
    if size is None:
        raise UnreadableImageError("image_without_dimensions", format="JPEG")
    if has_too_many_scans(data, offset):
        raise UnreadableImageError("image_too_many_scans", limit=MOST_SCANS)
    return size


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise _damaged("WebP", "lossless frame")
        bits = _little(data, 21, 4)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        if len(data) > 26 and data[23:26] != b"\x9d\x01\x2a":
            raise _damaged("WebP", "frame")
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if len(data) < 16:
        raise UnreadableImageError("image_truncated")
    raise UnreadableImageError("image_without_dimensions", format="WebP")


def _gif(data: bytes) -> tuple[int, int]:
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    offset = 13 + _colours(data[10])
    blocks = 0
    while data[offset] == 0x21:
        if _is_ambiguous(data, offset):
            raise _damaged("GIF", "extension")
        offset += 2
        while length := data[offset]:
            offset += 1 + length
            blocks += 1
            if blocks > _MAX_SEGMENTS:
                raise _too_many_segments("GIF")
        offset += 1
        blocks += 1
    if data[offset] != 0x2C:
        raise UnreadableImageError("image_without_frame", format="GIF")
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


def _damaged(image_format: str, part: str) -> UnreadableImageError:
    return UnreadableImageError("image_part_damaged", format=image_format, part=part)


def _too_many_segments(image_format: str) -> UnreadableImageError:
    return UnreadableImageError("image_too_many_segments", format=image_format, limit=_MAX_SEGMENTS)


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
