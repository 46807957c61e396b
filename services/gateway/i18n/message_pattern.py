"""A pattern of messages with placeholders, matched in one pass over the message."""

from __future__ import annotations

import re
from typing import Final

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


class MessagePattern:
    """A pattern such as `{field} is missing`, matched in linear time: literal text is searched from left to right."""

    def __init__(self, text: str) -> None:
        """Parse `text`, which has at least one character between two placeholders."""
        first, *rest = _PLACEHOLDER.split(text)
        self.names: Final[tuple[str, ...]] = tuple(rest[::2])
        """The names of the placeholders, in order."""
        self.literal_length: Final = len(first) + sum(map(len, rest[1::2]))
        """The number of characters outside of placeholders."""
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
        inserted, position, end = [], len(self._prefix), len(message) - len(self._suffix)
        for separator in self._separators:
            next_separator = message.find(separator, position + 1, end)
            if next_separator < 0:
                return None
            inserted.append(message[position:next_separator])
            position = next_separator + len(separator)
        if position >= end:
            return None
        return dict(zip(self.names, [*inserted, message[position:end]], strict=True))
