"""Reads the Secrets in which Helm keeps its releases: clients send them as protobuf.

The format is that of Kubernetes' generated.proto: an envelope, whose field 2 is the object.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"


def read_secret(message: bytes) -> dict[str, Any]:
    """Return a Secret as the API shows it in JSON."""
    envelope = dict(_fields(message.removeprefix(MAGIC)))
    secret = list(_fields(envelope[2]))
    metadata = list(_fields(next(value for number, value in secret if number == 1)))
    name = next(value for number, value in metadata if number == 1).decode()
    labels = dict(_entry(value) for number, value in metadata if number == 11)
    data = dict(_entry(value) for number, value in secret if number == 2)
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {key: value.decode() for key, value in labels.items()}},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        "type": next(value for number, value in secret if number == 3).decode(),
    }


def _entry(message: bytes) -> tuple[str, bytes]:
    fields = dict(_fields(message))
    return fields[1].decode(), fields.get(2, b"")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of each field of a message that has a length; numbers are skipped."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        length, position = _varint(message, position)
        if key & 7 == 2:
            yield key >> 3, message[position : position + length]
            position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
