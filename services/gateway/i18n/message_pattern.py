"""A message with places for insertions, recognised in one pass over it, whatever is inserted."""

from __future__ import annotations

import re
from typing import Final

_PLACE: Final = re.compile(r"\{(\w+)\}")


class MessagePattern:
    """As `{field} is missing`. Literal text is looked for from left to right and never again: no message takes long."""

    def __init__(self, text: str) -> None:
        """`text` has at least one letter between two places."""
        first, *rest = _PLACE.split(text)
        self.names: Final[tuple[str, ...]] = tuple(rest[::2])
        """Of the places, in order."""
        self.literal_length: Final = len(first) + sum(map(len, rest[1::2]))
        """How many characters it says itself."""
        self._prefix: Final = first
        self._separators: Final[tuple[str, ...]] = tuple(rest[1:-1:2])
        self._suffix: Final = rest[-1] if rest else ""

    def match(self, message: str) -> dict[str, str] | None:
        """Return the value of each placeholder in `message`, or None if it does not match.

        A value has at least one character; all but the last are as short as possible.
        """
        if not self.names:
            return {} if message == self._prefix else None
        if not (message.startswith(self._prefix) and message.endswith(self._suffix)):
            return None
        inserted, place, end = [], len(self._prefix), len(message) - len(self._suffix)
        for separator in self._separators:
            found = message.find(separator, place + 1, end)
            if found < 0:
                return None
            inserted.append(message[place:found])
            place = found + len(separator)
        if place >= end:
            return None
        return dict(zip(self.names, [*inserted, message[place:end]], strict=True))
