"""Reads OpenAI's JSON into EmbedRequest. Types and shapes only: the worker knows what a model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.dialect import EmbedCall
from services.gateway.dialects.json_fields import Fields, wrong_type
from services.gateway.errors import ApiError, bad_request

LARGEST_ID: Final = 2**32 - 1
_INPUT: Final = re.compile(r"^(texts|token_ids)(?=\[|$)")
"""The worker's fields for what OpenAI calls `input`."""
_INPUT_TYPES: Final = {"query": pb.INPUT_TYPE_QUERY, "passage": pb.INPUT_TYPE_PASSAGE}
_SHAPES: Final = "a string, a list of strings, a list of token ids, or a list of lists of token ids"


@dataclass(frozen=True, kw_only=True)
class OpenAIEmbedCall(EmbedCall):
    """A call for embeddings."""

    in_base64: bool
    """Whether vectors are asked for as base64 of little-endian float32, and not as lists of numbers."""

    def field_name(self, field: str) -> str:
        """Return OpenAI's name of one of the worker's fields."""
        return _INPUT.sub("input", field)


def read_embeddings(value: object) -> OpenAIEmbedCall:
    """Read a parsed body. Raises ApiError for a field that does not fit, and for one that is unknown."""
    body = Fields(value)
    embed = pb.EmbedRequest(model=body.required_string("model"))
    _read_input(embed, body.get("input"))
    dimensions = body.integer("dimensions", least=1)
    if dimensions is not None:
        embed.dimensions = dimensions
    encoding = body.one_of("encoding_format", "float", "base64")
    input_type = body.one_of("input_type", *_INPUT_TYPES)
    if input_type is not None:
        embed.input_type = _INPUT_TYPES[input_type]
    embed.truncate = bool(body.boolean("truncate"))
    body.string("user")
    unknown = body.unread()
    if unknown:
        known = "model, input, dimensions, encoding_format, user, input_type and truncate"
        raise bad_request(unknown[0], f"Unknown field: {unknown[0][:128]}. There are {known}.")
    return OpenAIEmbedCall(embed=embed, in_base64=encoding == "base64")


def _read_input(embed: pb.EmbedRequest, value: Any) -> None:
    match value:
        case None:
            raise bad_request("input", f"input is missing; it must be {_SHAPES}")
        case str():
            embed.texts.append(value)
        case []:
            raise bad_request("input", "input is an empty list; it must have at least one entry")
        case [int(), *_]:
            embed.token_ids.append(_token_ids(value, "input"))
        case [list(), *_]:
            embed.token_ids.extend(_token_ids(entry, f"input[{index}]") for index, entry in enumerate(value))
        case list():
            embed.texts.extend(_text(entry, f"input[{index}]") for index, entry in enumerate(value))
        case _:
            raise wrong_type("input", _SHAPES, value)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(path, "a string, as the first entry is", value)
    return value


def _token_ids(values: Any, path: str) -> pb.TokenIds:
    if not isinstance(values, list):
        raise wrong_type(path, "a list of token ids, as the first entry is", values)
    try:
        # The stub refuses what is no integer of 32 bits, much faster than a loop; but to it, true is 1.
        if not any(isinstance(value, bool) for value in values):
            return pb.TokenIds(ids=values)
    except (TypeError, ValueError):
        pass
    raise _no_id(values, path)


def _no_id(values: list[Any], path: str) -> ApiError:
    for index, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool):
            return wrong_type(f"{path}[{index}]", "a token id", value)
        if not 0 <= value <= LARGEST_ID:
            return bad_request(f"{path}[{index}]", f"{path}[{index}] is {value}; it must be 0 to {LARGEST_ID}")
    return wrong_type(path, "a list of token ids", values)
