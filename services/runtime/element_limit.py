"""Limits how many elements a protobuf message may have, before it is parsed.

A caller can make a parser create an object for every two bytes, the size of an empty submessage of a repeated field.
The parser blocks the thread meanwhile, and needs many times the memory of the message. This check reads only the wire
format, and stops at the limit, so that its own time is bounded too. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

MAX_ELEMENTS: Final = 16_384
"""The most fields of a message, at all levels.

That is 8 for each message of a conversation of 2,048 messages; one with a tool call has about six.
"""
PACKED_BYTES: Final = 256
"""Bytes of a packed list of numbers that count as one element: the parser reads them at almost no cost."""
MAX_DEPTH: Final = 100
"""The deepest nesting of submessages, which is also the limit of the parser."""
LEAST_BYTES: Final = 2
"""The least size of an element: a tag and a value."""

_LONGEST_VARINT_BITS: Final = 70
_VARINT, _LENGTH = 0, 2
_FIXED: Final = {1: 8, 5: 4}
"""Bytes of a field by its wire type."""
_GROUP: Final = {3: 1, 4: -1}
"""The beginning and the end of a group."""


class TooManyElementsError(Failure):
    """A message with more elements than are allowed."""

    def __init__(self, field: str, most: int) -> None:
        """Make the error. `field` is the field of the message itself that contains the first excess element."""
        super().__init__(Reason.INVALID_ARGUMENT, Message("too_many_elements", field=field, limit=most))


def check_elements(data: bytes, kind: Descriptor, *, most: int = MAX_ELEMENTS) -> None:
    """Raise TooManyElementsError if `data`, a message of `kind`, has more than `most` elements.

    Raises DecodeError for a malformed message: a more lenient parser must not receive it.
    """
    if len(data) > most * LEAST_BYTES:
        try:
            _Counter(data, kind, most).read(0, len(data), kind, depth=0)
        except IndexError:
            raise DecodeError("the message ends too early") from None


class _Counter:
    """Counts the elements of one message."""

    def __init__(self, data: bytes, kind: Descriptor, most: int) -> None:
        self._data: Final = data
        self._kind: Final = kind
        self._most: Final = most
        self._left = most
        self._field = 0
        """The number of the field of the message itself that is being read."""

    def read(self, at: int, end: int, kind: Descriptor, *, depth: int) -> None:
        """Count the elements from `at` to `end`. Raises IndexError or DecodeError where the message is malformed."""
        if depth > MAX_DEPTH:
            raise DecodeError("the message is nested too deeply")
        data, groups = self._data, 0
        while at < end:
            tag, at = _number(data, at)
            number, wire = tag >> 3, tag & 7
            if not depth:
                self._field = number
            self._take(1)
            if wire == _LENGTH:
                length, at = _number(data, at)
                if at + length > end:
                    raise DecodeError("a field is longer than its message")
                # No field of our messages is a group, so that a parser skips the content of groups.
                if not groups:
                    self._look_into(number, at, at + length, kind, depth=depth)
                at += length
            elif wire == _VARINT:
                _, at = _number(data, at)
            elif wire in _FIXED:
                at += _FIXED[wire]
            elif wire in _GROUP and groups + _GROUP[wire] >= 0:
                groups += _GROUP[wire]
            else:
                raise DecodeError("a field has no known type")
        if at != end or groups:
            raise DecodeError("the message ends in the middle of a field")

    def _look_into(self, number: int, at: int, end: int, kind: Descriptor, *, depth: int) -> None:
        """Count the elements inside the field `number` of `kind`."""
        submessage = _submessages(kind).get(number)
        if submessage is not None:
            self.read(at, end, submessage, depth=depth + 1)
        elif number in _packed(kind):
            self._take((end - at) // PACKED_BYTES)

    def _take(self, elements: int) -> None:
        self._left -= elements
        if self._left < 0:
            field = self._kind.fields_by_number.get(self._field)
            raise TooManyElementsError(field.name if field is not None else f"field {self._field}", self._most)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, whose last byte lacks the highest bit, and the offset behind it."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, _LONGEST_VARINT_BITS, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("a number is too long")


@cache
def _submessages(kind: Descriptor) -> dict[int, Descriptor]:
    """Return the types of the fields that are messages, by number."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


@cache
def _packed(kind: Descriptor) -> frozenset[int]:
    """Return the numbers of the fields that may hold packed lists."""
    unpacked = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    return frozenset(field.number for field in kind.fields if field.type not in unpacked)
