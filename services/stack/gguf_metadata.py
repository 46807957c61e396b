"""Reads the metadata at the beginning of a GGUF file.

The reader of the package `gguf` makes arrays of NumPy for every string: for a vocabulary of 150,000 tokens it takes
tens of seconds, and this one half a second. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""The types of numbers, as formats of `struct`."""


def read(path: Path) -> dict[str, Any]:
    """Return the metadata of the file at `path`: numbers, texts, and lists of these.

    Raises:
        ValueError: The file cannot be read, or is not a GGUF file with little-endian numbers.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return dict(_fields(content))
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from None


def require(metadata: Mapping[str, Any], name: str) -> Any:
    """Return a field. Raises ValueError if the file has no such field."""
    if name not in metadata:
        raise ValueError(f"the GGUF has no {name}; a chat model needs it")
    return metadata[name]


def _fields(content: mmap.mmap) -> Iterator[tuple[str, Any]]:
    magic, version, _, count = struct.unpack_from("<4sIQQ", content)
    if magic != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}; the versions known here are 2 and 3, with little-endian numbers")
    offset = struct.calcsize("<4sIQQ")
    for _ in range(count):
        name, offset = _string(content, offset)
        (kind,) = struct.unpack_from("<I", content, offset)
        value, offset = _value(content, offset + 4, kind)
        yield name, value


def _value(content: mmap.mmap, offset: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(content, offset)
    if kind == _ARRAY:
        inner, count = struct.unpack_from("<IQ", content, offset)
        return _array(content, offset + 12, inner, count)
    if kind not in _NUMBERS:
        raise ValueError(f"a field has the type {kind}, which does not exist")
    number = struct.Struct(f"<{_NUMBERS[kind]}")
    return number.unpack_from(content, offset)[0], offset + number.size


def _array(content: mmap.mmap, offset: int, kind: int, count: int) -> tuple[list[Any], int]:
    if kind in _NUMBERS:
        size = struct.calcsize(f"<{_NUMBERS[kind]}") * count
        if offset + size > len(content):
            raise ValueError("it ends within an array")
        return list(struct.unpack_from(f"<{count}{_NUMBERS[kind]}", content, offset)), offset + size
    values = []
    for _ in range(count):
        value, offset = _value(content, offset, kind)
        values.append(value)
    return values, offset


def _string(content: mmap.mmap, offset: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", content, offset)
    end = offset + 8 + size
    if end > len(content):
        raise ValueError("it ends within a text")
    return content[offset + 8 : end].decode(errors="replace"), end
