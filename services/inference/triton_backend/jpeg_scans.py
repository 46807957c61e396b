"""Counts the scans of a JPEG: each goes over the whole image, and an empty one takes a few bytes."""

from __future__ import annotations

import re
from typing import Final

MOST_SCANS: Final = 100
"""Of progressive files as they are made, most have ten."""
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends the data of a scan: not a stuffed zero, a restart or a byte of filling."""
_WITH_LENGTH: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, _START_OF_SCAN, *range(0xE0, 0xF0)})
"""Segments that decoders skip over. In all others, scans are counted as well."""


def has_too_many_scans(data: bytes, start: int = 0) -> bool:
    """Return whether a JPEG has more than MOST_SCANS scans. `start` is an offset before the first one."""
    # Quick, and never too few: inside a scan, no marker can stand for anything else.
    if data.count(b"\xff\xda", start) <= MOST_SCANS:
        return False
    scans, place = 0, start or 2
    while found := _MARKER.search(data, place):
        place, kind = found.end(), data[found.end() - 1]
        if kind == _END:
            break
        if kind in _WITH_LENGTH:
            place += int.from_bytes(data[place : place + 2], "big")
        scans += kind == _START_OF_SCAN
        if scans > MOST_SCANS:
            return True
    return False
