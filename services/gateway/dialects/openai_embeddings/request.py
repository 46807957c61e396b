"""Translates OpenAI's embeddings request into EmbedRequest.

Types and shapes are checked here; the worker knows what a model accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.dialect import EmbedCall
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_model import read_model
from services.gateway.dialects.openai_embeddings.request_model import EmbeddingRequest
from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_INPUT: Final = re.compile(r"^(texts|token_ids)(?=\[|$)")
"""The worker's fields for OpenAI's `input`."""
_INPUT_TYPES: Final = {"query": pb.INPUT_TYPE_QUERY, "passage": pb.INPUT_TYPE_PASSAGE}


@dataclass(frozen=True, kw_only=True)
class OpenAIEmbedCall(EmbedCall):
    """A call for embeddings."""

    in_base64: bool
    """Whether vectors are requested as base64 of little-endian float32, and not as lists of numbers."""

    def field_name(self, field: str) -> str:
        """Return OpenAI's name of one of the worker's fields."""
        return _INPUT.sub("input", field)


def read_embeddings(body: Any, *, strict: bool) -> OpenAIEmbedCall:
    """Read a parsed body.

    Raises ApiError (400) for a field that does not fit, and, if `strict`, for one that has no effect.
    """
    request = read_model(EmbeddingRequest, body)
    embed = pb.EmbedRequest(model=request.model, truncate=request.truncate or False)
    _add_input(request.input, embed)
    if request.dimensions is not None:
        embed.dimensions = request.dimensions
    if request.input_type is not None:
        embed.input_type = _INPUT_TYPES[request.input_type]
    if request.text_normalization is not None:
        embed.text_normalization = pb.TextNormalization.Value(
            f"TEXT_NORMALIZATION_{request.text_normalization.upper()}"
        )
    return OpenAIEmbedCall(
        embed=embed,
        ignored=ignored_fields(request, body, strict=strict),
        in_base64=request.encoding_format == "base64",
    )


def _add_input(value: str | list[Any], embed: pb.EmbedRequest) -> None:
    """Add texts or token ids. The first entry of a list decides what all of them must be."""
    match value:
        case str():
            embed.texts.append(value)
        case []:
            raise bad_request(Message("list_empty", field="input"))
        case [int(), *_]:
            _check_entries(value, int, "integer")
            embed.token_ids.add(ids=value)
        case [list(), *_]:
            _check_entries(value, list, "array")
            embed.token_ids.extend([pb.TokenIds(ids=ids) for ids in value])
        case _:
            _check_entries(value, str, "string")
            embed.texts.extend(value)


def _check_entries(entries: list[Any], kind: type, expected: str) -> None:
    for index, entry in enumerate(entries):
        if not isinstance(entry, kind):
            raise bad_request(
                Message("not_like_first_entry", field=f"input[{index}]", value=shown(entry), expected=expected)
            )
