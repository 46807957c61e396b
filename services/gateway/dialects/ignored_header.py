"""The header that lists what of a request had no influence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.runtime.telemetry import without_keys

IGNORED_HEADER: Final = "x-ignored-params"
MOST_CHARACTERS: Final = 1024


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """`x-ignored-params`, or nothing where nothing is to be said. Names that there is no room for are left out whole."""
    # Names come from the client: only what a header may hold is repeated, and what stands for a key is not ASCII.
    shown, room = [], MOST_CHARACTERS
    for name in map(without_keys, names):
        if name.isascii() and name.isprintable() and "," not in name and len(name) <= room:
            shown.append(name)
            room -= len(name) + len(",")
    return {IGNORED_HEADER: ",".join(shown)} if shown else {}
