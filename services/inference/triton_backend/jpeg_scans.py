"""Counts the scans of a JPEG: a decoder goes over the whole image for each scan, and an empty scan has few bytes."""

from __future__ import annotations

import re
from typing import Final

MOST_SCANS: Final = 100
"""The most scans of a file. Usual progressive files have about ten."""
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker that ends the data of a scan: not a stuffed zero, a restart marker or a fill byte."""
_WITH_LENGTH: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, _START_OF_SCAN, *range(0xE0, 0xF0)})
"""Segments that decoders skip. Scans are counted in all other segments."""


def has_too_many_scans(data: bytes, start: int = 0) -> bool:
    """Return whether a JPEG has more than MOST_SCANS scans. `start` is an offset before the first one."""
    # A quick upper bound: every scan has this marker.
    if data.count(b"\xff\xda", start) <= MOST_SCANS:
        return False
    scans, offset = 0, start or 2
    while match := _MARKER.search(data, offset):
        offset, kind = match.end(), data[match.end() - 1]
        if kind == _END:
            break
        if kind in _WITH_LENGTH:
            offset += int.from_bytes(data[offset : offset + 2], "big")
        scans += kind == _START_OF_SCAN
        if scans > MOST_SCANS:
            return True
    return False
