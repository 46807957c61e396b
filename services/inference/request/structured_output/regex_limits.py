"""Limits on the repetitions, groups and alternatives of regular expressions."""

from __future__ import annotations

import math
import re
from typing import Final

from services.inference.request.structured_output.exceeded import exceeded
from services.runtime.failure import invalid

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
        raise exceeded(field, at, len(text), MAX_PATTERN_LENGTH, unit=" characters")
    counter = RepetitionCounter(field, at)
    offset = 0
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

    def __init__(self, field: str, at: str) -> None:
        """Start without repetitions. `field` and `at` are those of failures."""
        self._field, self._at = field, at
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
            raise exceeded(self._field, self._at, len(self._groups), MAX_GROUPS, unit=" groups inside one another")

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
            raise exceeded(self._field, self._at, self._alternatives, MAX_BRANCHES, unit=" alternatives")

    def repeat(self, match: re.Match[str]) -> None:
        """Read a repetition of the last element. Raises Failure."""
        shown, counts = match[0][:40], [match["least"] or "0", match["most"] or ""]
        numbers = [int(digits) if 0 < len(digits) < 10 else math.inf if digits else 0 for digits in counts]
        if max(numbers) > MAX_COUNT:
            raise exceeded(self._field, self._at, f"the repetition {shown}", MAX_COUNT)
        if counts[1] and numbers[1] < numbers[0]:
            message = f"{self._field} has the repetition {shown}, which ends before it begins; turn it around"
            if self._at:
                message = (
                    f"{self._field} has the repetition {shown} at {self._at}, which ends before it begins; "
                    "turn it around"
                )
            raise invalid(self._field, message, value=shown)
        self._last *= max(1, int(max(numbers)))
        if self._last > MAX_PRODUCT:
            times = f"repetitions inside one another of {self._last} times"
            raise exceeded(self._field, self._at, times, MAX_PRODUCT)
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
