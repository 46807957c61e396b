"""Limits on the repetitions, groups and alternatives of regular expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from services.runtime.failure import invalid
from services.runtime.messages.message import Message

MAX_COUNT: Final = 10_000
"""The largest count of a repetition, and of the items, properties and contained items in a JSON Schema."""
MAX_PATTERN_LENGTH: Final = 4_096
"""The most characters of a regular expression inside a schema or a grammar."""
MAX_PRODUCT: Final = 1_000_000
"""The largest product of the counts of nested repetitions."""
MAX_GROUPS: Final = 64
"""The deepest nesting of groups."""
MAX_BRANCHES: Final = 4_096
"""The most alternatives of a regular expression."""
REPETITION: Final = re.compile(r"\{\s*(?P<least>[0-9]*)\s*(?:(?P<comma>,)\s*(?P<most>[0-9]*)\s*)?\}")


def check_regex(field: str, text: str, *, at: str = "") -> None:
    """Raise Failure for a regular expression whose repetitions, groups or alternatives exceed a limit.

    The text is read once, from left to right. `at` is its path in a schema or its position in a grammar; it is empty if
    the expression is the whole field.
    """
    if at and len(text) > MAX_PATTERN_LENGTH:
        raise invalid(Message("pattern_too_long", field=field, value=len(text), at=at, limit=MAX_PATTERN_LENGTH))
    offset = 0
    counter = RepetitionCounter(field, lambda: at or f"character {offset + 1}")
    while offset < len(text):
        character = text[offset]
        repetition = REPETITION.match(text, offset) if character == "{" else None
        if character == "\\":
            # An escape with a name in braces stands for one character.
            braces = re.compile(r"\\[pPxuU]\{[^}]{0,64}\}").match(text, offset)
            counter.atom()
            offset = braces.end() if braces else offset + 2
            continue
        if character == "[":
            offset = _end_of_class(text, offset)
            counter.atom()
            continue
        if character == "(":
            counter.open()
        elif character == ")":
            counter.close()
        elif character == "|":
            counter.alternative()
        elif repetition is not None and (repetition["least"] or repetition["comma"]):
            counter.repeat(repetition)
            offset = repetition.end()
            continue
        elif character not in "*+?":
            counter.atom()
        offset += 1


class RepetitionCounter:
    """Multiplies the counts of nested repetitions in a regular expression or a grammar."""

    def __init__(self, field: str, at: Callable[[], str]) -> None:
        """Start without repetitions. `field` is that of failures; `at` returns where it is read."""
        self._field: Final = field
        self._at: Final = at
        self._groups: Final[list[int]] = []
        """The largest product so far in each open group, outermost first."""
        self._largest = 1
        self._last = 1
        """The product inside the element that a repetition would repeat."""
        self._alternatives = 1

    def atom(self) -> None:
        """Read an element without repetitions inside."""
        self._note(self._last)
        self._last = 1

    def open(self) -> None:
        """Read the beginning of a group. Raises Failure."""
        self._note(self._last)
        self._last = 1
        self._groups.append(self._largest)
        self._largest = 1
        if len(self._groups) > MAX_GROUPS:
            depth = len(self._groups)
            raise invalid(
                Message("groups_nested_too_deeply", field=self._field, value=depth, at=self._at(), limit=MAX_GROUPS)
            )

    def close(self) -> None:
        """Read the end of a group."""
        self._note(self._last)
        self._last = self._largest
        self._largest = self._groups.pop() if self._groups else 1

    def alternative(self) -> None:
        """Read the beginning of another alternative. Raises Failure."""
        self.atom()
        self._alternatives += 1
        if self._alternatives > MAX_BRANCHES:
            raise invalid(
                Message(
                    "too_many_alternatives",
                    field=self._field,
                    value=self._alternatives,
                    at=self._at(),
                    limit=MAX_BRANCHES,
                )
            )

    def repeat(self, match: re.Match[str]) -> None:
        """Read a repetition of the last element. Raises Failure."""
        excerpt, counts = match[0][:40], [match["least"] or "0", match["most"] or ""]
        numbers = [int(digits) if 0 < len(digits) < 10 else math.inf if digits else 0 for digits in counts]
        if max(numbers) > MAX_COUNT:
            raise invalid(
                Message("repetition_too_large", field=self._field, value=excerpt, at=self._at(), limit=MAX_COUNT)
            )
        if counts[1] and numbers[1] < numbers[0]:
            raise invalid(Message("repetition_backwards", field=self._field, value=excerpt, at=self._at()))
        self._last *= max(1, int(max(numbers)))
        if self._last > MAX_PRODUCT:
            raise invalid(
                Message("repetitions_multiply", field=self._field, value=self._last, at=self._at(), limit=MAX_PRODUCT)
            )
        self._note(self._last)

    def _note(self, product: int) -> None:
        self._largest = max(self._largest, product)


def _end_of_class(text: str, offset: int) -> int:
    """Return the offset behind a class of characters, which may contain classes."""
    depth = 0
    while offset < len(text):
        character = text[offset]
        if character == "\\":
            offset += 1
        elif character == "[":
            depth += 1
            # A closing bracket at the beginning of a class stands for itself.
            if text.startswith("^", offset + 1):
                offset += 1
            if text.startswith("]", offset + 1):
                offset += 1
        elif character == "]":
            depth -= 1
            if depth == 0:
                return offset + 1
        offset += 1
    return offset
