"""Encodes vectors as OpenAI's JSON, in pieces that take about a millisecond each: streams must not wait for them."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import Final

import orjson
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

PIECE_NUMBERS: Final = 16_384
"""Most numbers of one piece; a vector is never cut."""
_NUMBER_BYTES: Final = 4


def pieces(answer: pb.EmbedResponse, *, model: str, in_base64: bool) -> Iterator[bytes]:
    """Yield the object `list` of a whole answer."""
    numbers, size = memoryview(answer.embeddings), answer.dimensions * _NUMBER_BYTES
    step = max(1, PIECE_NUMBERS // answer.dimensions)
    encode = _base64 if in_base64 else _numbers
    separator = b'{"object":"list","data":['
    for start in range(0, answer.count, step):
        piece: list[bytes] = []
        for index in range(start, min(start + step, answer.count)):
            vector = numbers[index * size : (index + 1) * size]
            piece += (separator, b'{"object":"embedding","index":%d,"embedding":' % index, encode(vector), b"}")
            separator = b","
        if start + step >= answer.count:
            piece.append(_end(answer, model))
        yield b"".join(piece)


def is_small(answer: pb.EmbedResponse) -> bool:
    """Return whether a whole answer has no more numbers than one piece."""
    return answer.count * answer.dimensions <= PIECE_NUMBERS


def _base64(vector: memoryview) -> bytes:
    return b'"' + binascii.b2a_base64(vector, newline=False) + b'"'


def _numbers(vector: memoryview) -> bytes:
    return orjson.dumps(struct.unpack(f"<{len(vector) // _NUMBER_BYTES}f", vector))


def _end(answer: pb.EmbedResponse, model: str) -> bytes:
    tokens = sum(answer.token_counts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return b'],"model":' + orjson.dumps(model) + b',"usage":' + orjson.dumps(usage) + b"}"
