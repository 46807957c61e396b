"""Encodes vectors as OpenAI's JSON, in segments of about a millisecond each, so that other streams are not delayed."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import Final

import orjson
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

SEGMENT_NUMBERS: Final = 16_384
"""The most numbers of one segment; a vector is never cut."""
_NUMBER_BYTES: Final = 4


def segments(response: pb.EmbedResponse, *, model: str, in_base64: bool) -> Iterator[bytes]:
    """Yield the object `list` of a response in segments."""
    numbers, size = memoryview(response.embeddings), response.dimensions * _NUMBER_BYTES
    step = max(1, SEGMENT_NUMBERS // response.dimensions)
    encode = _base64 if in_base64 else _numbers
    separator = b'{"object":"list","data":['
    for start in range(0, response.count, step):
        segment: list[bytes] = []
        for index in range(start, min(start + step, response.count)):
            vector = numbers[index * size : (index + 1) * size]
            segment += (separator, b'{"object":"embedding","index":%d,"embedding":' % index, encode(vector), b"}")
            separator = b","
        if start + step >= response.count:
            segment.append(_end(response, model))
        yield b"".join(segment)


def is_small(response: pb.EmbedResponse) -> bool:
    """Return whether a response has no more numbers than one segment."""
    return response.count * response.dimensions <= SEGMENT_NUMBERS


def _base64(vector: memoryview) -> bytes:
    return b'"' + binascii.b2a_base64(vector, newline=False) + b'"'


def _numbers(vector: memoryview) -> bytes:
    return orjson.dumps(struct.unpack(f"<{len(vector) // _NUMBER_BYTES}f", vector))


def _end(response: pb.EmbedResponse, model: str) -> bytes:
    tokens = sum(response.token_counts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return b'],"model":' + orjson.dumps(model) + b',"usage":' + orjson.dumps(usage) + b"}"
